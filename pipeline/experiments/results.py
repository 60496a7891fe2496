"""Read the results of a finished pipeline from dvc.lock and the metrics files that it lists.

dvc.lock records what ran: the parameters of each stage, its command with all paths, and the hash of every file. Unlike
params.yaml and dvc.yaml, it is right for old revisions and edited workspaces, too.
"""

import csv
import hashlib
import io
import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.config.section import flatten
from pipeline.errors import ResultsError
from pipeline.headline import HEADLINE

LOCK = "dvc.lock"
TRACK = "track"
REQUIRED_STAGES = ("preprocess", "train", "evaluate")
REQUIRED_METRICS = (
    "data/name",
    "model/parameters",
    "train/started",
    "train/fingerprint",
    "test/accuracy",
    "evaluate/ended",
)

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
        stages: dict[str, Any] = YAML(typ="safe").load(content_of(LOCK))["stages"]
    except FileNotFoundError:
        raise ResultsError(f"expected {LOCK}, found none") from None
    except (YAMLError, KeyError, TypeError, UnicodeDecodeError):
        raise ResultsError(f"{LOCK} is damaged") from None
    missing = [name for name in REQUIRED_STAGES if name not in stages]
    if missing:
        raise ResultsError(f"stage {missing[0]} has not run")
    tracked = stages.pop(TRACK, {})  # while track runs, this is its previous run
    _check_chain(stages)
    outputs = _outputs(stages)
    paths = {name: options(stage["cmd"]) for name, stage in stages.items()}
    recorded = dict(flatten(_params(stages)))
    metrics = _metrics(content_of, paths, outputs)
    lacking = [name for name in REQUIRED_METRICS if name not in metrics]
    if lacking:
        raise ResultsError(f"expected the metric {lacking[0]}, found none: another version of the pipeline made them")
    compared = {key: value for key, value in recorded.items() if key not in ORIGIN}
    return Results(
        params=recorded,
        metrics=metrics,
        outputs=outputs,
        paths=paths,
        content=_digest([compared, _decided(outputs, paths)]),
        tracking=_params({TRACK: tracked}).get("tracking", {}),
    )


def options(command: str) -> dict[str, str]:
    """Return the options of a stage's command: {"out": "model", "seed": "1"} for `--out model --seed 1`."""
    words = shlex.split(command)
    return {word.removeprefix("--"): value for word, value in pairwise(words) if word.startswith("--")}


def parse_history(content: bytes) -> list[dict[str, float]]:
    """Read the history.csv of the train stage: one row per epoch."""
    lines = csv.DictReader(io.StringIO(content.decode()))
    return [{key: float(value) for key, value in line.items()} for line in lines]


def row(content: bytes) -> dict[str, Any]:
    """Read a metrics file: a mapping, or a table of one row as `files.write_row` writes it."""
    loaded = json.loads(content)
    return dict(loaded[0] if isinstance(loaded, list) else loaded)


def text_of(value: Any) -> str:
    """Return a parameter's value as text: strings unchanged, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=str)  # YAML has dates, which JSON lacks


def _params(stages: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for stage in stages.values()
        for values in stage.get("params", {}).values()
        for key, value in values.items()
    }


def _decided(outputs: Mapping[str, str], paths: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    timed = {arguments[key] for arguments in paths.values() for key in ("runtime", "time") if key in arguments}
    return {path: digest for path, digest in outputs.items() if path not in timed}


def _outputs(stages: Mapping[str, Any]) -> dict[str, str]:
    return {out["path"]: str(out["md5"]) for stage in stages.values() for out in stage.get("outs", [])}


def _check_chain(stages: dict[str, Any]) -> None:
    """Remove the stages that ran on other outputs or parameters than the recorded ones, such as a previous export.

    Raises:
        ResultsError: one of `REQUIRED_STAGES` ran on other outputs.
    """
    outputs = _outputs(stages)
    params = _params({name: stages[name] for name in REQUIRED_STAGES})
    for name, stage in list(stages.items()):
        used = {dep["path"]: dep.get("md5") for dep in stage.get("deps", [])}
        other = [path for path, digest in used.items() if outputs.get(path, digest) != digest]
        if name not in REQUIRED_STAGES:
            if other or any(params.get(key, value) != value for key, value in _params({name: stage}).items()):
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
                raise ResultsError(f"{path} is not the file that {LOCK} recorded")
            found |= row(content)
    return found


def _digest(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
