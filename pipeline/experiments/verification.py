"""Run a revision again from scratch and compare every output with the hash that DVC recorded."""

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
from pipeline.experiments import lock, results
from pipeline.experiments.lock import TRACK
from pipeline.experiments.repository import Repository, Revision, search_path
from pipeline.experiments.results import Results

ENVIRONMENT = ("device", "device_name", "threads", "precision", "platform", "python", "torch")


@dataclass(frozen=True)
class Verdict:
    """The result of running a revision again.

    Attributes:
        compared: number of outputs compared.
        differing: outputs with other hashes, in the order of the stages; empty if all are bit-identical.
        details: how the outputs of the first differing stage differ, one line for each.
        environment: properties of the machine and libraries that differ -> (then, now).
    """

    compared: int
    differing: tuple[str, ...]
    details: tuple[str, ...]
    environment: dict[str, tuple[str, str]]


def verify(repository: Repository, revision: Revision) -> Verdict:
    """Run all stages but track of a revision in a temporary clone, without DVC's run cache, and compare.

    Output of the stages goes to stderr. The clone has its own empty cache, so that no stage is restored.

    Raises:
        PipelineError: the revision is not a commit, has no results, or a stage fails.
    """
    if not revision.sha:
        raise PipelineError("cannot verify the workspace, which may change meanwhile; commit it, or name a commit")
    record = repository.results(revision)
    scratch = repository.root / ".dvc/tmp"
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="verify-") as folder:
        clone = _clone(repository, revision, Path(folder))
        (clone / lock.NAME).unlink()  # so that all stages run
        _adapt(clone / record.paths["train"]["params"], repository.root)
        _run(clone, [name for name in record.paths if name != TRACK])
        again = results.read(results.reader(clone))
        differing = tuple(path for path, digest in record.decided.items() if again.outputs.get(path) != digest)
        source = next((paths for paths in record.paths.values() if {*differing} & {*paths.values()}), {})
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
            raise PipelineError(f"{revision.name}: git cannot clone or check it out: {done.stderr.strip()}")
    return target / repository.root.relative_to(top)


def _adapt(params: Path, root: Path) -> None:
    """Disable tracking and make the archive's path absolute; no output depends on these."""
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
        raise PipelineError("a stage failed; see its output above")


def _explain(repository: Repository, revision: Revision, clone: Path, path: str, folder: Path) -> str:
    """Return how an output differs from the recorded one, in one line."""
    if repository.copy(revision, [path], folder / "recorded"):
        return f"{path}: hashes differ; the recorded file is in no cache, so details are unknown"
    old, new = folder / "recorded" / path, clone / path
    if old.is_dir():
        return _explain_folder(path, old, new)
    if path.endswith(".json"):
        return _explain_json(path, results.row(old.read_bytes()), results.row(new.read_bytes()))
    return f"{path}: {old.stat().st_size:,} bytes then, {new.stat().st_size:,} now, contents differ"


def _explain_folder(path: str, old: Path, new: Path) -> str:
    names = sorted(
        {file.relative_to(side).as_posix() for side in (old, new) for file in side.rglob("*") if file.is_file()}
    )
    for name in sorted(names, key=lambda name: not name.endswith(".safetensors")):  # weights first
        pair = old / name, new / name
        if not all(file.exists() for file in pair):
            return f"{path}/{name}: {'new' if pair[1].exists() else 'missing'}"
        if name.endswith(".safetensors"):
            then, now = (safetensors.numpy.load_file(file) for file in pair)
            if {k: v.shape for k, v in then.items()} != {k: v.shape for k, v in now.items()}:
                return f"{path}/{name}: other tensor names or shapes"
            worst = {key: float(np.abs(then[key].astype(float) - now[key].astype(float)).max()) for key in then}
            key = max(worst, key=lambda key: worst[key])
            if worst[key] > 0 or math.isnan(worst[key]):
                return f"{path}/{name}: {key} differs most, by up to {worst[key]:.3g}"
        if files.sha256(pair[0]) != files.sha256(pair[1]):
            return f"{path}/{name}: contents differ"
    return f"{path}: the same files now; the recorded hash differs"


def _explain_json(path: str, old: dict[str, Any], new: dict[str, Any]) -> str:
    changed = [f"{key} {old.get(key)} then, {new.get(key)} now" for key in old | new if old.get(key) != new.get(key)]
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return f"{path}: {'; '.join(changed[:3])}{more}"


def _machine(record: Results, key: str) -> str:
    return str(record.metrics.get(f"train/{key}", "unknown"))
