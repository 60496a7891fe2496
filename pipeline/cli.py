"""`python -m pipeline`: questions to ask of finished experiments."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pipeline import experiments, files, stage
from pipeline.params import load

console = Console()
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@app.callback()
def pipeline() -> None:
    """Ask questions of finished experiments."""


@app.command()
def compare(
    revisions: Annotated[list[str] | None, typer.Argument(metavar="[REV]...", help="Commits or experiments.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All experiments, of whatever commit.")] = False,
    baseline: Annotated[str, typer.Option(help="What the others are compared against.")] = "HEAD",
    sort: Annotated[str, typer.Option(help="The metric that decides which is best.")] = "val/accuracy",
    html: Annotated[Path | None, typer.Option(help="Write a page with figures, too.")] = None,
    md: Annotated[Path | None, typer.Option(help="Write the tables as Markdown, too.")] = None,
) -> None:
    """Say which is better, by how much, and whether that is luck; default: this commit and its experiments."""
    from pipeline import comparison, tables

    with experiments.Repository(Path.cwd()) as repository:
        head = repository.resolve(baseline)
        if revisions:
            chosen = [repository.resolve(rev) for rev in revisions]
        else:
            here = repository.resolve("HEAD")
            chosen = [*repository.experiments(None if everything else here.sha), here]
        found = comparison.compare(repository, chosen, baseline=head, sort=sort)
        for table in tables.tables(found):
            console.print(tables.for_terminal(table))
        for line in tables.explanation(found):
            console.print(f"- {line}", style="dim", highlight=False)
        if md:
            tables.write_markdown(md, found)
            print(f"wrote {md}")
        if html:
            from pipeline import report

            files.write_text(html, report.render(repository, found))
            print(f"wrote {html}")


@app.command()
def sync(
    rev: Annotated[list[str] | None, typer.Option(help="Only this revision; may be given several times.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
) -> None:
    """Bring MLflow into line with git and DVC: every experiment, and every commit of every branch and tag."""
    from pipeline.tracking import store, sync

    settings = load(Path("params.yaml")).tracking.model_dump()
    with experiments.Repository(Path.cwd()) as repository:
        found = sync.plan(repository, settings, rev or ())
        with stage.bar("publishing", len(found.changes)) as advance:
            for change in found.changes:
                if not dry_run:
                    sync.apply(repository, settings, change)
                advance(1)
                print(f"{'would ' if dry_run else ''}{change.verb} {change.name}", flush=True)
        where = store.uri(repository.root)
    for reason in found.skipped.values():
        print(f"skipped {reason}")
    if not found.changes:
        print(f"nothing to do: {found.unchanged} results have their run in {where}")


@app.command()
def verify(rev: Annotated[str, typer.Argument(help="A commit or experiment.")] = "HEAD") -> None:
    """Run REV once more in a temporary workspace and compare every output with what was recorded, to the bit."""
    from pipeline import verification

    with experiments.Repository(Path.cwd()) as repository:
        found = verification.verify(repository, repository.resolve(rev))
    if not found.differing:
        print(f"{rev}: bit-identical: all {found.compared} outputs have the hashes that dvc.lock recorded")
        return
    print(f"{rev}: {len(found.differing)} of {found.compared} outputs differ: {', '.join(found.differing)}")
    for line in found.details:
        print(f"first {line}")
    for key, (then, now) in found.environment.items():
        print(f"{key}: {then} then, {now} now")
    if not found.environment:
        print("device, threads and library versions are those of then")
    raise typer.Exit(1)


@app.command()
def show(rev: str) -> None:
    """Print the results of REV: a commit, branch, tag or experiment."""
    with experiments.Repository(Path.cwd()) as repository:
        found = repository.results(repository.resolve(rev)).metrics
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
    console.print(table)


def main() -> None:
    """Run the command line; what a user can cause ends in one line and exit code 1."""
    stage.guard(app)
