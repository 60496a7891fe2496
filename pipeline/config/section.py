"""Base model and shared field types of the sections of params.yaml."""

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

IMAGE_SIDE = 32
CLASSES = 10

Seed = Annotated[int, Field(ge=0, lt=2**31)]
Share = Annotated[float, Field(ge=0, le=0.95)]
Rate = Annotated[float, Field(gt=0, le=1000)]
Momentum = Annotated[float, Field(ge=0, le=0.999)]
WeightDecay = Annotated[float, Field(ge=0, le=10)]
BatchSize = Annotated[int, Field(ge=1, le=65536)]
Activation = Literal["relu", "tanh", "sigmoid", "leaky_relu", "gelu", "silu"]
Norm = Literal["batch", "none"]
Init = Literal["kaiming", "xavier", "orthogonal"]
InitScale = Annotated[float, Field(ge=1e-4, le=1e4)]
Hidden = Annotated[tuple[Annotated[int, Field(ge=1, le=8192)], ...], Field(max_length=8)]


class Section(BaseModel):
    """Base of all sections: unknown keys, wrong types and values out of range are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Architecture(Section):
    """Base of an architecture's `Params`: its section of params.yaml and its requirements on the training.

    An architecture may use any pydantic model instead; for attributes that it lacks, these defaults apply.
    """

    @property
    def smallest_side(self) -> int:
        """Side in pixels of the smallest training images; the network accepts all sides from here to 32 px."""
        return IMAGE_SIDE

    @property
    def smallest_batch(self) -> int:
        """Smallest training batch: 2 if batch norm gets one value per image and channel."""
        return 1

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Yield (key, message) for invalid combinations of values that are each in range."""
        yield from ()


def is_section(annotation: Any) -> bool:
    """Return whether a field's annotation is a nested section, which may be optional."""
    return nested(annotation) is not None


def nested(annotation: Any) -> type[BaseModel] | None:
    """Return the model of a nested section from its field's annotation; None for a field that holds a value."""
    candidates = getattr(annotation, "__args__", (annotation,))
    models = [one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel)]
    return models[0] if len(models) == 1 else None


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings with their keys, e.g. ("train.epochs", 8)."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def assignments(values: Mapping[str, Any]) -> list[str]:
    """Return flat values as arguments of `dvc exp run -S`: ["train.epochs=4", "model.cnn.widths=[32,64]"]."""
    return [f"{key}={_text(value)}" for key, value in values.items()]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), default=str)
