"""Presets: named sets of parameters for speed or accuracy, one file each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.config.loading import changed, read, validate
from pipeline.config.schema import Params
from pipeline.config.section import assignments, flatten
from pipeline.errors import PresetError

FOLDER = Path(__file__).parents[2] / "presets"

DEFAULT = FOLDER / "0-default.yaml"
"""Names every parameter that a preset changes, with the value that it has in presets that do not name it."""


@dataclass(frozen=True)
class Preset:
    """Values for some parameters of params.yaml, the same ones in every preset; the others keep the values they have.

    Attributes:
        name: the file's name without its number.
        purpose: the first line of the file.
        values: flat: those of the file, and the defaults of all others that any preset changes, so that a preset does
            not inherit from the one that ran before.
    """

    name: str
    purpose: str
    values: dict[str, Any]

    def applied(self, path: Path) -> Params:
        """Return the parameters of a params.yaml with the values of this preset.

        Raises:
            ParamsError: the result has mistakes.
        """
        return validate(changed(read(path), self.values), f"{path} with preset {self.name}")

    @property
    def arguments(self) -> str:
        """The values as words of a `dvc exp run` command line: "-S train.epochs=4"."""
        return " ".join(f"-S {assignment}" for assignment in assignments(self.values))


def every() -> list[Preset]:
    """Return all presets, shortest training first, ordered by the numbers in their file names."""
    return [_load(path) for path in sorted(FOLDER.glob("*.yaml"))]


def find(name: str) -> Preset:
    """Return a preset.

    Raises:
        PresetError: there is no preset of that name.
    """
    presets = {preset.name: preset for preset in every()}
    if name not in presets:
        raise PresetError(f"preset: found {name}, expected one of {', '.join(presets)}")
    return presets[name]


def listing() -> None:
    """Print the presets and what each is for."""
    table = Table(box=None, pad_edge=False)
    table.add_column("preset", style="bold")
    table.add_column("what it is for")
    for preset in every():
        table.add_row(preset.name, preset.purpose)
    Console().print(table)
    print("\ndvc exp run --temp -n NAME $(python -m pipeline preset NAME)    runs one without changing params.yaml")


def _load(path: Path) -> Preset:
    first = path.read_text().splitlines()[0]
    values = dict(flatten(read(DEFAULT)))
    own = dict(flatten(read(path)))
    missing = [key for key in own if key not in values]
    if missing:
        raise PresetError(f"{path}: {missing[0]}: expected in {DEFAULT.name}, too, which gives its default")
    return Preset(path.stem.split("-", 1)[1], first.removeprefix("#").strip(), values | own)
