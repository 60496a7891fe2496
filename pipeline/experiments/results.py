"""Read the results of a finished pipeline from dvc.lock and the metrics files that it lists.

dvc.lock records what ran: the parameters of each stage, its command with all paths, and the hash of every file. Unlike
params.yaml and dvc.yaml, it is right for old revisions and edited workspaces, too.
"""

import csv
import hashlib
import io
import json
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from pipeline.config.section import flatten
from pipeline.errors import ResultsError
from pipeline.experiments import lock
from pipeline.experiments.lock import Stage
from pipeline.headline import HEADLINE

REQUIRED_STAGES = ("preprocess", "train", "evaluate")
REQUIRED_METRICS = (
    "data/name",
    "model/parameters",
    "train/started",
    "train/fingerprint",
    "test/accuracy",
    "evaluate/ended",
)
REQUIRED_PARAMS = ("model.arch", "train.seed")
REQUIRED_OPTIONS = {"preprocess": ("out",), "train": ("params", "out", "history"), "evaluate": ("predictions", "card")}
REQUIRED_OUTPUTS = (("preprocess", "out"), ("train", "out"), ("evaluate", "predictions"))
NUMBERS = frozenset((*HEADLINE, "test/accuracy_low", "test/accuracy_high", "train/epochs"))

ORIGIN = ("data.archive", "data.cifar10.urls")
"""Parameters that name the source of the data; its content is identified by its hash."""


@dataclass(frozen=True)
class Results:
    """The record of a finished pipeline.

    Attributes:
        params: flat, as `{"train.epochs": 8, ...}`: those of all stages but track.
        metrics: flat, by name; some are text.
        outputs: path -> DVC's hash, of all outputs.
        paths: stage -> option of its command -> path.
        content: SHA-256 over parameters and reproducible outputs, which identifies a result. It does not include
            timings, memory and the source of the data.
        tracking: the parameters of the track stage; empty if it did not run.
    """

    params: Mapping[str, Any]
    metrics: Mapping[str, Any]
    outputs: Mapping[str, str]
    paths: Mapping[str, Mapping[str, str]]
    content: str
    tracking: Mapping[str, Any]

    @property
    def training(self) -> str:
        """The fingerprint of the training."""
        return str(self.metrics["train/fingerprint"])

    @property
    def headline(self) -> dict[str, float]:
        """The headline metrics that the results have, in their order."""
        return {key: self.metrics[key] for key in HEADLINE if key in self.metrics}

    @property
    def arch(self) -> str:
        """The architecture's name."""
        return str(self.params["model.arch"])

    @property
    def dataset_hash(self) -> str:
        """DVC's hash of the processed arrays."""
        return self.outputs[self.paths["preprocess"]["out"]]

    @property
    def decided(self) -> dict[str, str]:
        """The reproducible outputs with their hashes: all but timings and memory."""
        return _decided(self.outputs, self.paths)

    @property
    def started(self) -> datetime:
        """Start time of the training."""
        return datetime.fromisoformat(self.metrics["train/started"])

    @property
    def ended(self) -> datetime:
        """End time of the last stage."""
        return max(datetime.fromisoformat(value) for key, value in self.metrics.items() if key.endswith("/ended"))


Reader = Callable[[str], bytes]
"""Function that returns the bytes of a file in the workspace or in git, or raises FileNotFoundError."""


def reader(folder: Path) -> Reader:
    """Return a `Reader` of the files of a folder."""
    return lambda path: (folder / path).read_bytes()


def read(content_of: Reader) -> Results:
    """Read the results of a finished pipeline.

    Raises:
        ResultsError: there are none, a stage has not run, or files and stages are inconsistent.
    """
    try:
        stages = lock.read(content_of(lock.NAME))
    except FileNotFoundError:
        raise ResultsError(f"expected {lock.NAME}, found none") from None
    missing = [name for name in REQUIRED_STAGES if name not in stages]
    if missing:
        raise ResultsError(f"stage {missing[0]} has not run")
    tracked = _params([stages.pop(lock.TRACK)]) if lock.TRACK in stages else {}  # while track runs, its previous run
    _check_chain(stages)
    outputs = _outputs(stages)
    paths = {name: options(stage.cmd) for name, stage in stages.items()}
    recorded = dict(flatten(_params(stages.values())))
    metrics = _metrics(content_of, paths, outputs)
    _check_whole(recorded, paths, outputs, metrics)
    compared = {key: value for key, value in recorded.items() if key not in ORIGIN}
    return Results(
        params=recorded,
        metrics=metrics,
        outputs=outputs,
        paths=paths,
        content=_digest([compared, _decided(outputs, paths)]),
        tracking=tracked.get("tracking", {}),
    )


def options(command: str) -> dict[str, str]:
    """Return the options of a stage's command: {"out": "model", "seed": "1"} for `--out model --seed 1`."""
    words = shlex.split(command)
    return {word.removeprefix("--"): value for word, value in pairwise(words) if word.startswith("--")}


def parse_history(content: bytes) -> list[dict[str, float]]:
    """Read the history.csv of the train stage: one row per epoch.

    Raises:
        ResultsError: it is not what the stage writes.
    """
    try:
        lines = csv.DictReader(io.StringIO(content.decode()))
        return [{key: float(value) for key, value in line.items()} for line in lines]
    except (ValueError, TypeError, csv.Error) as error:
        raise ResultsError(f"the history of the training is damaged: {error}") from None


def row(content: bytes) -> dict[str, Any]:
    """Read a metrics file: a mapping, or a table of one row as `files.write_row` writes it."""
    loaded = json.loads(content)
    return dict(loaded[0] if isinstance(loaded, list) else loaded)


def text_of(value: Any) -> str:
    """Return a parameter's value as text: strings unchanged, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=str)  # YAML has dates, which JSON lacks


def _params(stages: Iterable[Stage]) -> dict[str, Any]:
    return {key: value for stage in stages for values in stage.params.values() for key, value in values.items()}


def _decided(outputs: Mapping[str, str], paths: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    timed = {arguments[key] for arguments in paths.values() for key in ("runtime", "time") if key in arguments}
    return {path: digest for path, digest in outputs.items() if path not in timed}


def _outputs(stages: Mapping[str, Stage]) -> dict[str, str]:
    return {out.path: out.md5 for stage in stages.values() for out in stage.outs}


def _check_chain(stages: dict[str, Stage]) -> None:
    """Remove the stages that ran on other outputs or parameters than the recorded ones, such as a previous export.

    Raises:
        ResultsError: one of `REQUIRED_STAGES` ran on other outputs.
    """
    outputs = _outputs(stages)
    params = _params(stages[name] for name in REQUIRED_STAGES)
    for name, stage in list(stages.items()):
        used = {dep.path: dep.md5 for dep in stage.deps}
        other = [path for path, digest in used.items() if outputs.get(path, digest) != digest]
        if name not in REQUIRED_STAGES:
            if other or any(params.get(key, value) != value for key, value in _params([stage]).items()):
                del stages[name]
        elif other:
            raise ResultsError(f"stage {name} ran on another {other[0]} than the recorded one")


def _metrics(content_of: Reader, paths: Mapping[str, Mapping[str, str]], outputs: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for arguments in paths.values():
        for path in map(arguments.get, ("metrics", "time", "details", "runtime")):
            if path is None or path not in outputs:
                continue
            try:
                content = content_of(path)
            except FileNotFoundError:
                raise ResultsError(f"expected {path}, found none") from None
            if hashlib.md5(content, usedforsecurity=False).hexdigest() != outputs[path]:
                raise ResultsError(f"{path} is not the file that {lock.NAME} recorded")
            try:
                found |= row(content)
            except (ValueError, TypeError, IndexError):
                raise ResultsError(f"{path} is damaged") from None
    return found


def _check_whole(
    params: Mapping[str, Any],
    paths: Mapping[str, Mapping[str, str]],
    outputs: Mapping[str, str],
    metrics: Mapping[str, Any],
) -> None:
    """Raise a ResultsError if a part that all results have is missing, or is of another kind."""
    required = [(stage, name) for stage, names in REQUIRED_OPTIONS.items() for name in names]
    lacking = [
        *(f"the metric {name}" for name in REQUIRED_METRICS if name not in metrics),
        *(f"the parameter {name}" for name in REQUIRED_PARAMS if name not in params),
        *(f"--{name} of {stage}" for stage, name in required if name not in paths[stage]),
    ]
    lacking = lacking or [path for stage, name in REQUIRED_OUTPUTS if (path := paths[stage][name]) not in outputs]
    if lacking:
        raise ResultsError(f"expected {lacking[0]}, found none: another version of the pipeline made them")
    for name, value in metrics.items():
        expected = _expected(name, value)
        if expected:
            raise ResultsError(f"the metric {name}: expected {expected}, found {text_of(value)[:40]}")


def _expected(name: str, value: Any) -> str:
    """Return what a metric should be, if it is something else."""
    if name in NUMBERS:
        return "" if isinstance(value, int | float) and not isinstance(value, bool) else "a number"
    if name.endswith(("/started", "/ended")):
        return "" if _is_moment(value) else "a date and time with its time zone"
    return "" if isinstance(value, str | int | float | None) else "a number or text"


def _is_moment(value: Any) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except (TypeError, ValueError):
        return False


def _digest(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
