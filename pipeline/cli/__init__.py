"""`python -m pipeline`: a module for each group of commands, each of which parses arguments and calls one package."""

import typer

from pipeline import stage
from pipeline.cli import models, results, search, setup

GROUPS = {
    "Results": (results.show, results.compare, results.verify, results.sync, results.promote, results.ui),
    "Models": (models.predict, models.serve, models.explain),
    "Searches and studies": (search.replicate, search.tune, search.study),
    "Setup": (setup.preset, setup.doctor),
}
"""The commands by the heading that --help shows them under."""

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def pipeline() -> None:
    """Compare and publish results, classify and explain images, run searches and studies."""


for heading, commands in GROUPS.items():
    for command in commands:
        app.command(rich_help_panel=heading)(command)


def main() -> None:
    """Run the command line; an error that a user can cause is printed in one line and ends in exit code 1."""
    stage.guard(app)
