"""The architectures: each folder of pipeline/models that has a params.py, found by its name."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, create_model, model_validator
from pydantic_core import PydanticCustomError

from pipeline.config.section import Section

FOLDER = Path(__file__).parents[1] / "models"

NAMES = tuple(sorted(path.parent.name for path in FOLDER.glob("*/params.py")))
"""What `model.arch` can be."""


def params_of(arch: str) -> type[BaseModel]:
    """Return the model of an architecture's section of params.yaml: `Params` of its params.py."""
    params: type[BaseModel] = importlib.import_module(f"pipeline.models.{arch}.params").Params
    return params


class ModelParams(Section):
    """The architecture in use, and the settings of each: a field for every name in `NAMES`, None where absent."""

    arch: str

    if TYPE_CHECKING:  # the sections, whose types only their folders know

        def __getattr__(self, name: str) -> Any: ...

    @model_validator(mode="after")
    def _has_the_section_in_use(self) -> Self:
        if getattr(self, self.arch, None) is None:
            raise PydanticCustomError("no_section", "a section of this name: {arch}", {"arch": self.arch})
        return self

    @property
    def section(self) -> BaseModel:
        """The settings of the architecture in use."""
        section: BaseModel = getattr(self, self.arch)
        return section


def model_params() -> type[ModelParams]:
    """Return `ModelParams` with the architectures that there are; only the section in use must be there."""
    sections = {name: (params_of(name) | None, None) for name in NAMES}
    fields: dict[str, Any] = {"arch": (Literal[NAMES], ...), **sections}
    return create_model("ModelParams", __base__=ModelParams, **fields)
