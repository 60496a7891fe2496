"""`python -m pipeline`: ask questions of finished experiments, and use what came out of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline import files, stage
from pipeline.config.loading import load
from pipeline.serving.image_files import Filter

if TYPE_CHECKING:
    from pipeline.experiments.repository import Repository

console = Console()
FILE_WIDTH = 300
"""Columns of what is printed to a file or a pipe, which have room for lines of any length."""

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@app.callback()
def pipeline() -> None:
    """Ask questions of finished experiments, and use what came out of them."""


def here() -> "Repository":
    """Return the repository one is in."""
    from pipeline.experiments.repository import Repository  # imports dvc, which predict does without

    return Repository(Path.cwd())


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
    from pipeline.experiments import comparison, tables

    with here() as repository:
        against = repository.resolve(baseline)
        if revisions:
            chosen = [repository.resolve(rev) for rev in revisions]
        else:
            head = repository.resolve("HEAD")
            chosen = repository.experiments(None if everything else head.sha)
            chosen += [head] if repository.carries_results(head) else []
        found = comparison.compare(repository, chosen, baseline=against, sort=sort)
        if not console.is_terminal:
            console.width = FILE_WIDTH
        for table in tables.tables(found):
            console.print(tables.for_terminal(table, console.width))
        for line in tables.explanation(found):
            console.print(f"- {line}", style="dim", highlight=False)
        if md:
            tables.write_markdown(md, found)
            print(f"wrote {md}")
        if html:
            from pipeline.experiments import report

            files.write_text(html, report.render(repository, found))
            print(f"wrote {html}")


@app.command()
def preset(
    name: Annotated[str | None, typer.Argument(help="Which; none: list them.")] = None,
) -> None:
    """Print a preset as arguments for `dvc exp run $(python -m pipeline preset NAME)`."""
    from pipeline.config import presets

    if name:
        print(*(f"-S {assignment}" for assignment in presets.find(name).assignments))
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("preset", style="bold")
    table.add_column("what it is for")
    for found in presets.every():
        table.add_row(found.name, found.purpose)
    console.print(table)
    print("\ndvc exp run $(python -m pipeline preset NAME)    runs one, leaving params.yaml as it is")


@app.command()
def sync(
    rev: Annotated[list[str] | None, typer.Option(help="Only this revision; may be given several times.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them, which is the default.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
) -> None:
    """Bring MLflow into line with git and DVC: every experiment, and every commit of every branch and tag."""
    from pipeline.tracking import store, sync

    if rev and everything:
        raise typer.BadParameter("--rev and --all exclude one another")
    settings = load(Path("params.yaml")).tracking.model_dump()
    with here() as repository:
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
def promote(
    rev: Annotated[str | None, typer.Argument(help="A commit or experiment.")] = None,
    alias: Annotated[str, typer.Option(help="What the version is to be called in MLflow's registry.")] = "champion",
    force: Annotated[bool, typer.Option("--force", help="Whatever speaks against it; a tag records that.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Go back to the version before.")] = False,
) -> None:
    """Let an alias name REV's model, unless that is significantly worse than the one it names now."""
    from pipeline.tracking import promotion

    if undo == (rev is not None):
        raise typer.BadParameter("name either a revision or --undo")
    settings = load(Path("params.yaml"))
    tracking = settings.tracking.model_dump()
    with here() as repository:
        if rev is None:
            done = promotion.undo(repository, tracking, alias)
        else:
            done = promotion.promote(
                repository,
                tracking,
                repository.resolve(rev),
                alias,
                min_accuracy=settings.export.min_accuracy,
                force=force,
            )
    before = f" instead of {done.before}" if done.before and done.before != done.version else ""
    print(f"{alias} is version {done.version}{before}{': ' if done.comparison else ''}{done.comparison}")
    for objection in done.objections:
        print(f"forced, though {objection}")


@app.command()
def doctor() -> None:
    """Look for what needs a hand: versions, device, store, runs, queue, checkpoints, dvc.yaml; exit code 1 if any."""
    from pipeline import doctor as diagnosis

    settings = load(Path("params.yaml")).tracking
    with here() as repository:
        findings = diagnosis.examine(repository, settings)
        for finding in findings:
            mark = "needs a hand" if finding.mend else "ok"
            colour = "bold red" if finding.mend else "green"
            console.print(f"[{colour}]{mark:>12}[/]  {escape(finding.what)}", highlight=False, soft_wrap=True)
            if finding.mend:
                console.print(f"{'':>14}{escape(finding.mend)}", style="bold", highlight=False, soft_wrap=True)
    if any(finding.mend for finding in findings):
        raise typer.Exit(1)


@app.command()
def verify(rev: Annotated[str, typer.Argument(help="A commit or experiment.")] = "HEAD") -> None:
    """Run REV once more in a temporary workspace and compare every output with what was recorded, to the bit."""
    from pipeline.experiments import verification

    with here() as repository:
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
    with here() as repository:
        found = repository.results(repository.resolve(rev)).metrics
    table = Table(
        title=f"{rev}: {found['model/parameters']:,} parameters on {found['data/name']}", title_justify="left"
    )
    table.add_column("result")
    table.add_column("value", justify="right")
    interval = f"{found['test/accuracy_low']:.2%} to {found['test/accuracy_high']:.2%}"
    inspected = [  # results of before there was this stage, or with parts of it switched off, have fewer
        (name, f"{found[key]:.2%}")
        for name, key in (
            ("accuracy on corrupted images", "inspect/corruption_accuracy"),
            ("accuracy on shifted images", "inspect/shift_accuracy"),
            ("predictions that shifts leave", "inspect/shift_consistency"),
        )
        if key in found
    ]
    for name, value in (
        ("test accuracy", f"{found['test/accuracy']:.2%}"),
        ("  95 % interval", interval),
        ("test loss", f"{found['test/loss']:.4f}"),
        *inspected,
        ("val accuracy", f"{found['val/accuracy']:.2%}"),
        ("multiply-accumulates an image", f"{found['model/macs']:,}"),
        ("training", f"{found['train/loop_seconds']:.0f} s on {found['train/device_name']}"),
        ("training throughput", f"{found['train/images_per_second']:,.0f} images/s"),
        ("ONNX file", f"{found['export/onnx_bytes']:,} bytes"),
        ("ONNX latency, one image", f"{found['export/latency_ms']:.2f} ms"),
    ):
        table.add_row(name, value)
    console.print(table)


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
    from pipeline.serving import prediction_report

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


@app.command()
def explain(
    index: Annotated[int | None, typer.Option(help="Of a test image, from 0; the default is 0.")] = None,
    image: Annotated[Path | None, typer.Option(help="An image file, in place of a test image.")] = None,
    model: Annotated[Path, typer.Option(help="Folder of the trained network.")] = Path("model"),
    data: Annotated[Path, typer.Option(help="Folder of the processed images.")] = Path("data/processed"),
    out: Annotated[Path, typer.Option(help="Folder for the page and its pictures.")] = Path("explain"),
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of random networks and filters, and the map.")] = 0,
) -> None:
    """Show what the network's answer for an image rests on, and where it errs, on a page with pictures."""
    if index is not None and image is not None:
        raise typer.BadParameter("--index and --image exclude one another")
    from pipeline.explanation import command as command

    command.run(model, data, out, image if image is not None else index or 0, seed=seed)


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
    from pipeline.search import study
    from pipeline.search import tune as command  # optuna takes seconds to import, other commands don't need it

    plan = study.Plan(name, trials, jobs, sampler, seed, startup)
    if dry_run:
        command.preview(Path.cwd(), space, plan)
    elif not command.run(Path.cwd(), space, plan):
        raise typer.Exit(130)  # what shells say of a command that Ctrl-C ended


@app.command()
def study(
    name: Annotated[str | None, typer.Argument(help="Which; studies/NAME.yaml describes it.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Print the studies there are.")] = False,
    data: Annotated[
        Literal["cifar10", "shapes10"] | None, typer.Option(help="On which images; default: those of params.yaml.")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="In its large setting, for a GPU; default: the small one.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Experiments that run at once.")] = 1,
    given: Annotated[
        list[str] | None,
        typer.Option("--set", "-S", metavar="KEY=VALUE", help="A parameter for all experiments; several times."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the experiments and run nothing.")] = False,
) -> None:
    """Test a claim about CNNs: run those of its experiments that are missing, then write docs/studies/NAME.md.

    Ctrl-C loses nothing: the same command goes on.
    """
    if listed == (name is not None):
        raise typer.BadParameter("name either a study or --list")
    from pipeline.studies import run as command

    root = Path.cwd()
    if name is None:
        command.listing(root)
        return
    planned = command.plan(root, name, dataset=data, scale="full" if full else "small", given=given or ())
    if dry_run:
        command.preview(root, planned)
    elif not command.run(root, planned, jobs):
        raise typer.Exit(130)  # what shells say of a command that Ctrl-C ended


def main() -> None:
    """Run the command line; what a user can cause ends in one line and exit code 1."""
    stage.guard(app)
