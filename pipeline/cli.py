"""`python -m pipeline`: questions to ask of finished experiments."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pipeline import experiments, stage
from pipeline.image_files import Filter

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
def predict(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE|FOLDER|-", help="- reads one image from stdin.")],
    model: Annotated[
        str, typer.Option(help="An ONNX file, models:/NAME@ALIAS or models:/NAME/VERSION.")
    ] = "export/model.onnx",
    top: Annotated[int | None, typer.Option(min=1, help="Classes to name for each image, 3 by default.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Columns image, rank, class, probability.")] = False,
    resample: Annotated[Filter, typer.Option("--filter", help="How images are resized.")] = "lanczos",
    stretch: Annotated[bool, typer.Option("--stretch", help="Take the whole image, not its central square.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Images classified at once.")] = 64,
) -> None:
    """Name what images show; exit code 1 if any could not be read."""
    if json and csv:
        raise typer.BadParameter("--json and --csv exclude one another")
    from pipeline import prediction_report

    form: prediction_report.Form = "json" if json else "csv" if csv else "table"
    unreadable = prediction_report.run(
        images,
        model,
        stage.root(),
        form=form,
        top=top,
        resample=resample,
        stretch=stretch,
        batch_size=batch_size,
    )
    raise typer.Exit(min(unreadable, 1))


def main() -> None:
    """Run the command line; what a user can cause ends in one line and exit code 1."""
    stage.guard(app)
