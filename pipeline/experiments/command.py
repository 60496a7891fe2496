"""The commands show, compare and verify: what they print of results that git and DVC hold."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline import files
from pipeline.config import loading
from pipeline.config.section import assignments
from pipeline.errors import ResultsError
from pipeline.experiments import comparison, tables, verification
from pipeline.experiments.repository import Repository
from pipeline.headline import HEADLINE

FILE_WIDTH = 300
"""Columns of what is printed to a file or a pipe, where lines may have any length."""


def show(root: Path, rev: str) -> None:
    """Print what the parameters of a revision differ in from its baseline's, and its headline metrics.

    Stages and parts of them that are switched off have no metrics.

    Raises:
        PipelineError: there is no such revision.
        ResultsError: it has no results.
    """
    with Repository(root) as repository:
        revision = repository.resolve(rev)
        record = repository.results(revision)
        changed = assignments(repository.differing(revision, record))
    metrics = record.metrics
    title = f"{rev}: {metrics['data/name']}, trained on {metrics['train/device_name']}"
    table = Table(title=title, title_justify="left")
    table.add_column("result")
    table.add_column("value", justify="right")
    if revision.baseline or not revision.sha:
        against = revision.baseline[:7] if revision.baseline else "HEAD"
        table.add_row(f"differs from {against}", "\n".join(changed) or "no parameter")
    for name, (label, form) in HEADLINE.items():
        if name in metrics:
            table.add_row(label, form.format(metrics[name]))
        if name == "test/accuracy":
            low, high = metrics["test/accuracy_low"], metrics["test/accuracy_high"]
            table.add_row("  95 % interval", f"{low:.2%} to {high:.2%}")
    Console().print(table)


def compare(
    root: Path,
    revisions: Sequence[str],
    *,
    everything: bool,
    baseline: str,
    sort: str,
    html: Path | None,
    markdown: Path | None,
) -> None:
    """Print the leaderboard and the tests against the baseline; write them to files if requested.

    Args:
        revisions: none: the experiments of HEAD, and HEAD itself if it has results.
        everything: without revisions, the experiments of every commit.
        baseline: a revision.
        sort: the metric that decides which is best.
        html, markdown: files to write.

    Raises:
        PipelineError: there is no such revision, or nothing to compare.
    """
    console = Console()
    if not console.is_terminal:
        console.width = FILE_WIDTH
    with Repository(root) as repository:
        margin = loading.load(root / "params.yaml").compare.margin
        against = repository.resolve(baseline)
        chosen = [repository.resolve(rev) for rev in revisions] or repository.current(everything=everything)
        elsewhere = [] if revisions or everything else _elsewhere(repository)
        try:
            found = comparison.compare(repository, chosen, baseline=against, sort=sort, margin=margin)
        except ResultsError as error:
            raise ResultsError("\n".join([str(error), *elsewhere])) from None
        for table in tables.tables(found, plot=True):
            console.print(tables.for_terminal(table, console.width), crop=False)
        for line in (*elsewhere, *tables.explanation(found)):
            console.print(f"- {line}", style="dim", highlight=False)
        if markdown:
            tables.write_markdown(markdown, found)
            print(f"wrote {markdown}")
        if html:
            from pipeline.experiments import report  # imports matplotlib

            files.write_text(html, report.render(repository, found))
            print(f"wrote {html}")


def verify(root: Path, rev: str) -> bool:
    """Run a revision again and print which outputs differ; return whether all are bit-identical.

    Raises:
        PipelineError: there is no such revision, it has no results, or a stage fails.
    """
    with Repository(root) as repository:
        found = verification.verify(repository, repository.resolve(rev))
    if not found.differing:
        print(f"{rev}: bit-identical: all {found.compared} outputs have the hashes that dvc.lock recorded")
        return True
    print(f"{rev}: {len(found.differing)} of {found.compared} outputs differ: {', '.join(found.differing)}")
    for line in found.details:
        print(f"first {line}")
    for key, (then, now) in found.environment.items():
        print(f"{key}: {then} then, {now} now")
    if not found.environment:
        print("device, threads and library versions have not changed")
    return False


def _elsewhere(repository: Repository) -> list[str]:
    """Return a line if HEAD has no experiments, but other commits do, as after a commit."""
    everywhere, head = repository.experiments(), repository.resolve("HEAD").sha
    if not everywhere or any(found.baseline == head for found in everywhere):
        return []
    count = f"{len(everywhere)} experiment{'s' if len(everywhere) > 1 else ''}"
    return [f"HEAD has no experiments; earlier commits have {count}, which --all shows"]
