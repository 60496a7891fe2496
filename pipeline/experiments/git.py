"""Answers of the git command, for stages and error messages that should not wait for DVC's import."""

import subprocess
from pathlib import Path

EXPERIMENTS = "refs/exps/"


def output(folder: Path, *words: str) -> bytes | None:
    """Return what a git command prints; None if it fails, there is no git, or the folder is in no repository."""
    try:
        command = ["git", *words]
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False)  # noqa: S603  # our own words
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def latest_experiment(folder: Path) -> str | None:
    """Return the name of the experiment that finished last, None if there is none."""
    refs = output(folder, "for-each-ref", "--sort=-committerdate", "--format=%(refname)", EXPERIMENTS) or b""
    parts = (ref.removeprefix(EXPERIMENTS).split("/") for ref in refs.decode().splitlines())
    return next((part[2] for part in parts if len(part) == 3 and len(part[0]) == 2), None)  # others are DVC's own


def advice(folder: Path) -> str:
    """Return the end of a message on a missing output: how to get that of an experiment, if there is one."""
    name = latest_experiment(folder)
    return f"; dvc exp apply {name} takes on the results of the experiment {name}" if name else ""
