"""The registry of architectures: the folders of pipeline/models that have a params.py."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, create_model, model_validator
from pydantic_core import PydanticCustomError

from pipeline.config.section import Section

FOLDER = Path(__file__).parents[1] / "models"

NAMES = tuple(sorted(path.parent.name for path in FOLDER.glob("*/params.py")))
"""Allowed values of `model.arch`."""


def params_of(arch: str) -> type[BaseModel]:
    """Return the model of an architecture's section of params.yaml: `Params` of its params.py."""
    params: type[BaseModel] = importlib.import_module(f"pipeline.models.{arch}.params").Params
    return params


class ModelParams(Section):
    """The selected architecture and the settings of each: one field for every name in `NAMES`, None if absent."""

    arch: str

    if TYPE_CHECKING:  # the sections, whose types are defined in their folders

        def __getattr__(self, name: str) -> Any: ...

    @model_validator(mode="after")
    def _has_the_section_in_use(self) -> Self:
        if getattr(self, self.arch, None) is None:
            raise PydanticCustomError("no_section", "a section of this name: {arch}", {"arch": self.arch})
        return self

    @property
    def section(self) -> BaseModel:
        """Settings of the selected architecture."""
        section: BaseModel = getattr(self, self.arch)
        return section


def model_params(module: str) -> type[ModelParams]:
    """Return `ModelParams` with a field for each architecture; only the selected section is required.

    Args:
        module: the one that holds the result under this name, so that other processes find it.
    """
    sections = {name: (params_of(name) | None, None) for name in NAMES}
    fields: dict[str, Any] = {"arch": (Literal[NAMES], ...), **sections}
    return create_model("ModelParams", __base__=ModelParams, __module__=module, **fields)
