"""studies/NAME.yaml as a checked `Study`: a claim, the experiments that test it, and the rule for the verdict."""

import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pipeline.config import loading
from pipeline.config.section import Section, Seed
from pipeline.errors import ParamsError, StudyError
from pipeline.experiments.results import text_of

FOLDER = "studies"
Scale = Literal["small", "full"]
SCALES: tuple[Scale, ...] = ("small", "full")
NAME = "^[a-z0-9]+(-[a-z0-9]+)*$"
Slug = Annotated[str, Field(pattern=NAME)]
Overrides = dict[str, Any]
"""Values of params.yaml by their full names: `{"train.epochs": 4}`."""

Grid = dict[str, dict[Slug, Any] | list[Any]]
"""Parameters with their values, or with labels and values; the variants are all combinations."""


class Condition(Section):
    """A requirement of the rule: a quantity of the study's analysis, and its limit."""

    text: str
    """The requirement in words."""
    quantity: str
    at_least: float | None = None
    at_most: float | None = None
    essential: bool = True
    """Whether it is part of the claim itself, rather than a cost that should be small."""

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("expected either at_least or at_most")
        return self

    def met(self, value: float) -> bool:
        """Return whether a value is within the limit; NaN is not."""
        return value >= self.at_least if self.at_least is not None else value <= (self.at_most or 0.0)


class Setting(Section):
    """The size of the study: seeds, and values that differ from the study's own parameters and variants."""

    about: str
    """The machine that it is meant for, and the time that it takes there."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    params: Overrides = Field(default_factory=dict)
    variants: dict[str, Overrides] = Field(default_factory=dict)
    """Values that replace or join those of the variants of these names."""
    grids: dict[str, Grid] = Field(default_factory=dict)
    """Parameters whose values replace or join those of the grids of these names."""


class Study(Section):
    """A claim and the experiments that test it."""

    claim: str
    source: str
    measure: str
    """What is compared, in words."""
    params: Overrides = Field(default_factory=dict)
    """Of all experiments."""
    variants: dict[Slug, Overrides] = Field(default_factory=dict)
    grids: dict[Slug, Grid] = Field(default_factory=dict)
    """In place of variants, which are then named by the grid and the labels of the parameters that vary."""
    rule: Annotated[tuple[Condition, ...], Field(min_length=1)]
    notes: tuple[str, ...] = ()
    small: Setting
    full: Setting

    def points(self, scale: Scale) -> dict[str, Overrides]:
        """Return the variants, those of the grids included, with their parameters."""
        setting = self.setting(scale)
        found = {name: own | setting.variants.get(name, {}) for name, own in self.variants.items()}
        for name, axes in self.grids.items():
            combined = axes | setting.grids.get(name, {})
            labelled = [
                [(label, key, value) for label, value in _labels(values).items()] for key, values in combined.items()
            ]
            for point in itertools.product(*labelled):
                words = [label for (label, _, _), axis in zip(point, labelled, strict=True) if len(axis) > 1]
                found["-".join([name, *words])] = {key: value for _, key, value in point}
        return found

    def setting(self, scale: Scale) -> Setting:
        """Return one of the two settings."""
        return self.small if scale == "small" else self.full


def names(root: Path) -> list[str]:
    """Return the names of all studies in alphabetical order."""
    return sorted(path.stem for path in (root / FOLDER).glob("*.yaml"))


def find(root: Path, name: str) -> Study:
    """Read and validate a study.

    Raises:
        StudyError: there is no study of that name, or its file has mistakes; one line for each of them.
    """
    if name not in names(root):
        raise StudyError(f"study: found {name}, expected one of {', '.join(names(root)) or 'none: studies/ is empty'}")
    path = root / FOLDER / f"{name}.yaml"
    where = path.relative_to(root).as_posix()
    try:
        study = loading.parse(Study, loading.read(path), where)
    except ParamsError as error:
        raise StudyError(str(error)) from None
    mistakes = list(_mistakes(study))
    if mistakes:
        raise StudyError("\n".join(f"{where}: {mistake}" for mistake in mistakes))
    return study


def _labels(values: Mapping[str, Any] | list[Any]) -> dict[str, Any]:
    if isinstance(values, Mapping):
        return dict(values)
    return {re.sub("[^a-z0-9]+", "-", text_of(value).lower()).strip("-"): value for value in values}


def _mistakes(study: Study) -> Iterator[str]:
    """Yield mistakes that pydantic cannot see: relations between parts of the file."""
    if bool(study.variants) == bool(study.grids):
        yield f"variants: found {'both it and grids' if study.grids else 'neither it nor grids'}, expected one of them"
        return
    yield from _label_mistakes("", study.grids)
    for scale in SCALES:
        setting = study.setting(scale)
        for kind, own, known in (
            ("variants", setting.variants, study.variants),
            ("grids", setting.grids, study.grids),
        ):
            for name in own.keys() - known.keys():
                yield f"{scale}.{kind}.{name}: expected a name that {kind} has: {', '.join(known) or 'it has none'}"
        yield from _label_mistakes(f"{scale}.", setting.grids)
        if len(set(setting.seeds)) < len(setting.seeds):
            yield f"{scale}.seeds: found {list(setting.seeds)}, expected each seed once"


def _label_mistakes(section: str, grids: Mapping[str, Grid]) -> Iterator[str]:
    """Yield a line for each parameter of grids whose values are absent or have equal labels."""
    for name, axes in grids.items():
        for key, values in axes.items():
            if not values or len(_labels(values)) < len(values):
                found = text_of(values)
                yield f"{section}grids.{name}.{key}: found {found}, expected values that differ in their labels"
