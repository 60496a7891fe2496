"""Run a revision once more, from nothing, and hold every output against the hash that DVC recorded for it."""

import json
import math
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from ruamel.yaml import YAML

from pipeline import files
from pipeline.errors import PipelineError
from pipeline.experiments import results
from pipeline.experiments.repository import Repository, Revision, search_path
from pipeline.experiments.results import TRACK, Results

ENVIRONMENT = ("device", "device_name", "threads", "precision", "platform", "python", "torch")


@dataclass(frozen=True)
class Verdict:
    """What running a revision once more has shown.

    Attributes:
        compared: how many outputs were held against their hashes.
        differing: outputs that are not the same, in the order of the stages; empty: all are, to the bit.
        details: in what way those of the first stage that has some differ, one line for each.
        environment: what the training ran on -> (then, now), where that differs.
    """

    compared: int
    differing: tuple[str, ...]
    details: tuple[str, ...]
    environment: dict[str, tuple[str, str]]


def verify(repository: Repository, revision: Revision) -> Verdict:
    """Run all stages but track of a revision in a temporary clone, without DVC's run cache, and compare.

    What the stages print goes to stderr. The clone has a cache of its own, so nothing can be restored.

    Raises:
        PipelineError: the revision is no commit, carries no results, or a stage fails.
    """
    if not revision.sha:
        raise PipelineError("the workspace can't be verified, as it may change meanwhile; commit it, or name a commit")
    record = repository.results(revision)
    scratch = repository.root / ".dvc/tmp"
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="verify-") as folder:
        clone = _clone(repository, revision, Path(folder))
        (clone / results.LOCK).unlink()  # nothing counts as done
        _adapt(clone / record.paths["train"]["params"], repository.root)
        _run(clone, [name for name in record.paths if name != TRACK])
        again = results.read(results.reader(clone))
        differing = tuple(path for path, digest in record.decided.items() if again.outputs.get(path) != digest)
        source = next((given for given in record.paths.values() if {*differing} & {*given.values()}), {})
        details = tuple(
            _explain(repository, revision, clone, path, Path(folder)) for path in differing if path in source.values()
        )
    then_and_now = {key: (_machine(record, key), _machine(again, key)) for key in ENVIRONMENT}
    changed = {key: pair for key, pair in then_and_now.items() if pair[0] != pair[1]}
    return Verdict(len(record.decided), differing, details, changed)


def _clone(repository: Repository, revision: Revision, folder: Path) -> Path:
    top = Path(repository.scm.root_dir)
    target = folder / "clone"
    for command in (
        ["git", "clone", "--quiet", "--shared", "--no-checkout", str(top), str(target)],
        ["git", "-C", str(target), "checkout", "--quiet", "--detach", revision.sha],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # our own words
        if done.returncode:
            raise PipelineError(f"{revision.name}: git cannot bring it to a folder of its own: {done.stderr.strip()}")
    return target / repository.root.relative_to(top)


def _adapt(params: Path, root: Path) -> None:
    """Change what no output depends on: no tracking, and an archive named relative to the user's repository."""
    yaml = YAML()
    tree = yaml.load(params)
    tree["tracking"]["enabled"] = False
    archive = tree["data"]["archive"]
    if archive and "://" not in archive:
        tree["data"]["archive"] = str(root / archive)
    yaml.dump(tree, params)


def _run(clone: Path, stages: list[str]) -> None:
    command = [sys.executable, "-m", "dvc", "repro", "--no-run-cache", "--no-commit", *stages]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_"))}
    environment["PATH"] = search_path()
    done = subprocess.run(command, cwd=clone, env=environment, stdout=sys.stderr, check=False)  # noqa: S603  # likewise
    if done.returncode:
        raise PipelineError("a stage failed; what it printed is above")


def _explain(repository: Repository, revision: Revision, clone: Path, path: str, folder: Path) -> str:
    """Say in what way an output differs from the recorded one."""
    if repository.copy(revision, [path], folder / "recorded"):
        return f"{path}: hashes differ; the recorded one is in no cache, so by how much can't be said"
    old, new = folder / "recorded" / path, clone / path
    if old.is_dir():
        return _explain_folder(path, old, new)
    if path.endswith(".json"):
        return _explain_json(path, json.loads(old.read_bytes()), json.loads(new.read_bytes()))
    return f"{path}: {old.stat().st_size:,} bytes then, {new.stat().st_size:,} now, not the same"


def _explain_folder(path: str, old: Path, new: Path) -> str:
    names = sorted(
        {file.relative_to(side).as_posix() for side in (old, new) for file in side.rglob("*") if file.is_file()}
    )
    for name in sorted(names, key=lambda name: not name.endswith(".safetensors")):  # numbers say most
        pair = old / name, new / name
        if not all(file.exists() for file in pair):
            return f"{path}/{name}: {'new' if pair[1].exists() else 'gone'}"
        if name.endswith(".safetensors"):
            then, now = (safetensors.numpy.load_file(file) for file in pair)
            if {k: v.shape for k, v in then.items()} != {k: v.shape for k, v in now.items()}:
                return f"{path}/{name}: other tensors"
            worst = {key: float(np.abs(then[key].astype(float) - now[key].astype(float)).max()) for key in then}
            key = max(worst, key=lambda key: worst[key])
            if worst[key] > 0 or math.isnan(worst[key]):
                return f"{path}/{name}: {key} differs most, by {worst[key]:.3g} at most"
        if files.sha256(pair[0]) != files.sha256(pair[1]):
            return f"{path}/{name}: not the same bytes"
    return f"{path}: the same files now; the recorded hash was of others"


def _explain_json(path: str, old: dict[str, Any], new: dict[str, Any]) -> str:
    changed = [f"{key} {old.get(key)} then, {new.get(key)} now" for key in old | new if old.get(key) != new.get(key)]
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return f"{path}: {'; '.join(changed[:3])}{more}"


def _machine(record: Results, key: str) -> str:
    return str(record.metrics.get(f"train/{key}", "unknown"))
