"""The commit that a run started from: what differs from its params.yaml, and its results.

A run in the workspace inherits the parameters that earlier ones left in params.yaml; the line shows them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline import stage
from pipeline.config import architectures, loading
from pipeline.config.schema import Params
from pipeline.config.section import assignments
from pipeline.errors import ParamsError, ResultsError
from pipeline.experiments import git, results
from pipeline.experiments.results import Results

PRINTED = Path(".dvc/tmp/differing")
"""The process and the line that the first stage of the last run printed; DVC's temporary workspaces have their own."""
SHELLS = ("sh", "bash", "dash", "zsh", "fish", "ksh", "busybox")
"""DVC starts each stage through one, which may or may not replace itself by the stage."""


def load(path: Path) -> Params:
    """Read and validate the params.yaml of a stage; print what differs from HEAD's if no stage of this run has.

    Raises:
        ParamsError: the file is missing, is not YAML, or has mistakes; one line for each mistake.
    """
    try:
        params = loading.load(path)
    except ParamsError as error:
        hint = _new_architecture(path)
        raise ParamsError(f"{error}\n{hint}") if hint else error from None
    line = message(params, path)
    if line and _first(path.parent / PRINTED, line):
        print(line, flush=True)
    return params


def message(params: Params, path: Path) -> str | None:
    """Return the line on effective parameters that differ from HEAD's; None if none does or there is no HEAD."""
    text = git.output(path.parent, "show", f"HEAD:./{path.name}")
    if text is None:
        return None
    changed = differing(params.effective(), text)
    return f"{path.name} differs from HEAD: {', '.join(assignments(changed))}" if changed else None


def differing(values: Mapping[str, Any], text: bytes) -> dict[str, Any]:
    """Return the flat values that differ from those of a params.yaml; none if the text is not YAML."""
    try:
        return loading.differing(values, YAML(typ="safe").load(text))
    except (YAMLError, UnicodeDecodeError):
        return {}


def differing_from(root: Path, rev: str, record: Results) -> dict[str, Any]:
    """Return the recorded parameters that differ from params.yaml at a commit; none if git has none there."""
    text = git.output(root, "show", f"{rev}:./params.yaml")
    return {} if text is None else differing(record.params, text)


def results_at(root: Path, rev: str) -> Results | None:
    """Return the results of a commit, read with git alone, without DVC; None if it has none."""

    def read(path: str) -> bytes:
        content = git.output(root, "show", f"{rev}:./{path}")
        if content is None:
            raise FileNotFoundError(path)
        return content

    try:
        return results.read(read)
    except ResultsError:
        return None


def _first(printed: Path, line: str) -> bool:
    """Return whether this is the first stage with this line that DVC, its nearest ancestor but the shell, starts."""
    dvc = next((process for process in psutil.Process().parents() if process.name() not in SHELLS), psutil.Process())
    content = f"{dvc.pid} {dvc.create_time()} {line}"
    try:
        if printed.exists() and printed.read_text(encoding="utf-8") == content:
            return False
        printed.write_text(content, encoding="utf-8")
    except OSError:  # no DVC, or a read-only folder: every stage prints it
        pass
    return True


def _new_architecture(path: Path) -> str | None:
    """Return what to do if `model.arch` is a folder that only the user's repository has, which DVC copied from git."""
    try:
        arch = str(loading.read(path)["model"]["arch"])
    except (ParamsError, KeyError, TypeError):
        return None
    folder = f"pipeline/models/{arch}"
    if arch in architectures.NAMES or not (stage.root() / folder).is_dir():
        return None
    return f"{path}: model.arch: if {folder} is new, git add it and commit: --temp and --queue run what git knows"
