"""Commands to start with: named sets of parameters, a check of the installation."""

from pathlib import Path
from typing import Annotated

import typer


def preset(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A preset; default: list them.")] = None,
) -> None:
    """Print a preset as arguments for `dvc exp run --temp -n NAME $(python -m pipeline preset NAME)`."""
    from pipeline.config import presets

    if name is None:
        presets.listing()
    else:
        print(presets.find(name).arguments)


def doctor() -> None:
    """Check the installation and the repository; report problems and the command that fixes each.

    Exit code 1 if there are problems.
    """
    from pipeline import doctor as diagnosis

    if not diagnosis.report(Path.cwd()):
        raise typer.Exit(1)
