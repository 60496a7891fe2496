"""`python -m pipeline`: questions to ask of finished experiments."""

from pathlib import Path

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


def main() -> None:
    """Run the command line; what a user can cause ends in one line and exit code 1."""
    stage.guard(app)
