"""studies/NAME.yaml as a checked `Study`: a claim, the experiments that test it, and the rule that judges it."""

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
"""Parameters with their values, or with labels and values; all combinations are meant."""


class Condition(Section):
    """One thing that the numbers must show: a quantity of the study's analysis, and where its limit is."""

    text: str
    """What it means, as a clause."""
    quantity: str
    at_least: float | None = None
    at_most: float | None = None
    essential: bool = True
    """Part of the claim itself; false: of what it should not cost."""

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("expected either at_least or at_most")
        return self

    def met(self, value: float) -> bool:
        """Say whether a value is on the right side; NaN is not."""
        return value >= self.at_least if self.at_least is not None else value <= (self.at_most or 0.0)


class Setting(Section):
    """How large the study is: what differs from the study's own parameters, variants and seeds."""

    about: str
    """For which machine, and how long it takes there."""
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
    """What is compared, for people."""
    params: Overrides = Field(default_factory=dict)
    """Of all experiments."""
    variants: dict[Slug, Overrides] = Field(default_factory=dict)
    grids: dict[Slug, Grid] = Field(default_factory=dict)
    """Instead of variants, which then have the grid's name and the labels of what varies in it."""
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
    """Return the names of the studies there are, in alphabetical order."""
    return sorted(path.stem for path in (root / FOLDER).glob("*.yaml"))


def find(root: Path, name: str) -> Study:
    """Read and check a study.

    Raises:
        StudyError: there is none of that name, or its file has mistakes; one line for each of them.
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
    """Yield what pydantic can't see: names that must be known elsewhere in the file."""
    if bool(study.variants) == bool(study.grids):
        yield f"variants: found {'both it and grids' if study.grids else 'neither it nor grids'}, expected one of them"
        return
    for scale in SCALES:
        setting = study.setting(scale)
        for kind, given, known in (
            ("variants", setting.variants, study.variants),
            ("grids", setting.grids, study.grids),
        ):
            for name in given.keys() - known.keys():
                yield f"{scale}.{kind}.{name}: expected a name that {kind} has: {', '.join(known) or 'it has none'}"
        for place, grids in (("", study.grids), (f"{scale}.", setting.grids)):
            for name, axes in grids.items():
                for key, values in axes.items():
                    if not values or len(_labels(values)) < len(values):
                        found = text_of(values)
                        yield f"{place}grids.{name}.{key}: found {found}, expected values that differ in their labels"
        if len(set(setting.seeds)) < len(setting.seeds):
            yield f"{scale}.seeds: found {list(setting.seeds)}, expected each seed once"
