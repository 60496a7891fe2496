"""Commands about finished experiments: print, compare, reproduce and publish their results."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def show(rev: Annotated[str, typer.Argument(metavar="REV", help="A commit, branch, tag or experiment.")]) -> None:
    """Print the results of one experiment."""
    from pipeline.experiments import command

    command.show(Path.cwd(), rev)


def compare(
    revisions: Annotated[list[str] | None, typer.Argument(metavar="[REV]...", help="Commits or experiments.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All experiments, of every commit.")] = False,
    baseline: Annotated[str, typer.Option(help="What the others are compared against.")] = "HEAD",
    sort: Annotated[str, typer.Option(help="The metric that decides which is best.")] = "val/accuracy",
    html: Annotated[Path | None, typer.Option(help="Also write a page with figures.")] = None,
    md: Annotated[Path | None, typer.Option(help="Also write the tables as Markdown.")] = None,
) -> None:
    """Rank experiments and test whether differences are significant; default: this commit and its experiments."""
    from pipeline.experiments import command

    command.compare(
        Path.cwd(), revisions or (), everything=everything, baseline=baseline, sort=sort, html=html, markdown=md
    )


def verify(rev: Annotated[str, typer.Argument(metavar="REV", help="A commit or experiment.")] = "HEAD") -> None:
    """Run REV again in a temporary workspace and compare every output with its recorded hash."""
    from pipeline.experiments import command

    if not command.verify(Path.cwd(), rev):
        raise typer.Exit(1)


def sync(
    rev: Annotated[list[str] | None, typer.Option(help="Only this revision; may be given several times.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All revisions, which is the default.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the changes without making them.")] = False,
) -> None:
    """Update MLflow from git and DVC: every experiment, and every commit of every branch and tag."""
    if rev and everything:
        raise typer.BadParameter("--rev and --all exclude one another")
    from pipeline.tracking import command

    command.sync(Path.cwd(), rev or (), dry_run=dry_run)


def ui(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 5000,
    browse: Annotated[bool, typer.Option(help="Open the page in a browser.")] = sys.stdout.isatty(),
) -> None:
    """Serve MLflow's UI at the table of configurations, best first, until Ctrl-C."""
    from pipeline.tracking import command

    command.ui(Path.cwd(), port, browse=browse)


def promote(
    rev: Annotated[str | None, typer.Argument(metavar="REV", help="A commit or experiment.")] = None,
    alias: Annotated[str, typer.Option(help="Alias in MLflow's model registry.")] = "champion",
    force: Annotated[bool, typer.Option("--force", help="Despite objections; a tag records them.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Go back to the previous version.")] = False,
) -> None:
    """Point a registry alias to REV's model, if that is as accurate as the best so far, within a margin."""
    if undo == (rev is not None):
        raise typer.BadParameter("name either a revision or --undo")
    from pipeline.tracking import command

    command.promote(Path.cwd(), rev, alias, force=force)
