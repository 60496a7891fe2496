"""dvc.lock: what ran, by the project's own stages; whatever else a pipeline has is its user's and is not looked at."""

from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.errors import ResultsError

NAME = "dvc.lock"
TRACK = "track"
STAGES = ("download", "preprocess", "train", "evaluate", "inspect", "export", TRACK)
"""The project's stages, in their order."""


class Dependency(BaseModel):
    """A file or folder that a stage read; `md5` is DVC's hash, or none for a dependency that DVC does not hash."""

    path: str
    md5: str | None = None


class Output(BaseModel):
    """A file or folder that a stage wrote, with DVC's hash."""

    path: str
    md5: str


class Stage(BaseModel):
    """What DVC recorded of a stage: its command, and the parameters by file."""

    cmd: str
    deps: list[Dependency] = []
    params: dict[str, dict[str, Any]] = {}
    outs: list[Output] = []


_Own = TypeAdapter(dict[str, Stage])


def read(content: bytes) -> dict[str, Stage]:
    """Return the project's stages that have run, by name.

    Raises:
        ResultsError: the content is not what DVC writes.
    """
    try:
        recorded = dict(YAML(typ="safe").load(content)["stages"])
        return _Own.validate_python({name: recorded[name] for name in STAGES if name in recorded})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ResultsError(f"{NAME} is damaged: {place}: {first['msg']}") from None
    except (YAMLError, KeyError, TypeError, ValueError):  # of other bytes, and of other things than mappings
        raise ResultsError(f"{NAME} is damaged") from None
