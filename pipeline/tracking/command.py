"""The commands sync and promote: bring MLflow up to date, and print what was changed."""

from collections.abc import Sequence
from pathlib import Path

from pipeline import stage
from pipeline.config import loading
from pipeline.errors import PipelineError
from pipeline.experiments.repository import Repository
from pipeline.tracking import promotion, store
from pipeline.tracking import sync as synchronisation

GIVE_UP = 3
"""Failed changes in a row after which sync ends: each can take as long as a server's timeout."""


def sync(root: Path, revisions: Sequence[str], *, dry_run: bool) -> None:
    """Publish what MLflow lacks and print a line for each change.

    A change that fails does not stop the others; several in a row do, as when the store has gone.

    Args:
        root: the repository.
        revisions: none: all experiments, and all commits of branches and tags.
        dry_run: print the changes without making them.

    Raises:
        PipelineError: there is no such revision, the store cannot be reached, or changes failed.
    """
    settings = loading.load(root / "params.yaml").tracking.model_dump()
    failed: list[str] = []
    with Repository(root) as repository:
        found = synchronisation.plan(repository, settings, revisions)
        with stage.bar("publishing", len(found.changes)) as advance:
            in_a_row = 0
            for change in found.changes:
                try:
                    if not dry_run:
                        synchronisation.apply(repository, settings, change)
                except PipelineError as error:
                    failed.append(f"{change.verb} {change.name}: {error}")
                    in_a_row += 1
                    if in_a_row == GIVE_UP:
                        failed.append(f"{GIVE_UP} changes in a row failed, so the rest was not tried")
                        break
                else:
                    in_a_row = 0
                    print(f"{'would ' if dry_run else ''}{change.verb} {change.name}", flush=True)
                advance(1)
        where = store.uri(repository.root)
    for reason in found.skipped.values():
        print(f"skipped {reason}")
    if failed:
        raise PipelineError("\n".join(failed))
    if not found.changes:
        print(f"nothing to do: {found.unchanged} results have their run in {where}")


def ui(root: Path, port: int, *, browse: bool) -> None:
    """Serve MLflow's UI, see `pipeline.tracking.ui.serve`."""
    from pipeline.tracking import ui as interface

    interface.serve(root, loading.load(root / "params.yaml").tracking.experiment, port, browse=browse)


def promote(root: Path, rev: str | None, alias: str, *, force: bool) -> None:
    """Point an alias to the model of a revision and print its version; None: to the previous version.

    Args:
        root: the repository.
        force: do so despite objections.

    Raises:
        PromotionError: the model is not published or there are objections.
        PipelineError: there is no such revision, it has no results, or the store cannot be reached.
    """
    params = loading.load(root / "params.yaml")
    settings = params.tracking.model_dump()
    with Repository(root) as repository:
        if rev is None:
            done = promotion.undo(repository, settings, alias)
        else:
            revision = repository.resolve(rev)
            done = promotion.promote(repository, settings, revision, alias, requirements=params.export, force=force)
    before = f" instead of {done.before}" if done.before and done.before != done.version else ""
    print(f"{alias} is version {done.version}{before}{': ' if done.comparison else ''}{done.comparison}")
    for objection in done.objections:
        print(f"forced despite an objection: {objection}")
