"""The commit that an experiment started from: its params.yaml and results, read with git alone, without DVC."""

import subprocess
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.config.loading import validate
from pipeline.errors import ParamsError, ResultsError
from pipeline.experiments import results
from pipeline.experiments.results import Reader, Results


def reader(root: Path, rev: str) -> Reader:
    """Return a `Reader` of the files of a commit."""

    def read(path: str) -> bytes:
        command = ["git", "show", f"{rev}:./{path}"]
        done = subprocess.run(command, cwd=root, capture_output=True, check=False)  # noqa: S603  # our own command
        if done.returncode:
            raise FileNotFoundError(path)
        return done.stdout

    return read


def results_of(root: Path, rev: str) -> Results | None:
    """Return the results of a commit, None if it has none."""
    try:
        return results.read(reader(root, rev))
    except ResultsError:
        return None


def differing(root: Path, rev: str, record: Results) -> dict[str, Any]:
    """Return the parameters of a record that differ from params.yaml at a commit, with the record's values.

    Without a valid params.yaml there, nothing differs.
    """
    try:
        tree = YAML(typ="safe").load(reader(root, rev)("params.yaml"))
        given = validate(tree, "params.yaml", combinations=False).effective()
    except (FileNotFoundError, ParamsError):
        return {}
    return {key: value for key, value in record.params.items() if key not in given or _plain(given[key]) != value}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
