"""`python -m pipeline`: questions to ask of finished experiments."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from pipeline import experiments, stage

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@app.callback()
def pipeline() -> None:
    """Ask questions of finished experiments."""


@app.command()
def show(rev: str) -> None:
    """Print the results of REV: a commit, branch, tag or experiment."""
    found = experiments.metrics(rev, Path.cwd())
    table = Table(
        title=f"{rev}: {found['model/parameters']:,} parameters on {found['data/name']}", title_justify="left"
    )
    table.add_column("result")
    table.add_column("value", justify="right")
    interval = f"{found['test/accuracy_low']:.2%} to {found['test/accuracy_high']:.2%}"
    for name, value in (
        ("test accuracy", f"{found['test/accuracy']:.2%}"),
        ("  95 % interval", interval),
        ("test loss", f"{found['test/loss']:.4f}"),
        ("val accuracy", f"{found['val/accuracy']:.2%}"),
        ("multiply-accumulates an image", f"{found['model/macs']:,}"),
        ("training", f"{found['train/loop_seconds']:.0f} s on {found['train/device_name']}"),
        ("training throughput", f"{found['train/images_per_second']:,.0f} images/s"),
        ("ONNX file", f"{found['export/onnx_bytes']:,} bytes"),
        ("ONNX latency, one image", f"{found['export/latency_ms']:.2f} ms"),
    ):
        table.add_row(name, value)
    Console().print(table)


@app.command()
def tune(
    space: Annotated[Path, typer.Option(help="YAML file: parameters and their ranges or choices.")],
    trials: Annotated[int, typer.Option(min=1, help="Trials to be finished, those of earlier starts included.")] = 20,
    name: Annotated[str, typer.Option(help="Of the search; its experiments are NAME-0000, NAME-0001, ...")] = "tune",
    jobs: Annotated[int, typer.Option(min=1, help="Trials that run at once.")] = 1,
    sampler: Annotated[Literal["tpe", "random", "grid"], typer.Option(help="How parameters are chosen.")] = "tpe",
    seed: Annotated[int, typer.Option(min=0, help="Of the sampler.")] = 0,
    startup: Annotated[int, typer.Option(min=1, help="Trials to complete before poor ones are given up early.")] = 5,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the first trials and run nothing.")] = False,
) -> None:
    """Search for the parameters of the best val accuracy; each trial is an experiment.

    Ctrl-C loses nothing: the same command goes on.
    """
    from pipeline.tuning import study
    from pipeline.tuning import tune as command  # optuna takes seconds to import, other commands don't need it

    plan = study.Plan(name, trials, jobs, sampler, seed, startup)
    if dry_run:
        command.preview(Path.cwd(), space, plan)
    elif not command.run(Path.cwd(), space, plan):
        raise typer.Exit(130)  # what shells say of a command that Ctrl-C ended


def main() -> None:
    """Run the command line; what a user can cause ends in one line and exit code 1."""
    stage.guard(app)
