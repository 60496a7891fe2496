"""Synchronise MLflow with git and DVC: create, complete, rename and tag runs, restore aliases."""

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import ResultsError
from pipeline.experiments.repository import Repository, Revision
from pipeline.experiments.results import Results
from pipeline.tracking import groups, publication, registry, runs, store
from pipeline.tracking.owner import Owner

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

REVISIONS_TAG = "revisions"
"""Tag with the commits that contain a run's results: the experiment's, and those of branches and tags."""

MOST_REVISIONS = 100  # within the size limit of a tag


@dataclass(frozen=True)
class Carried:
    """Results, their owner, and the commits that contain them; files are read from the first."""

    record: Results
    owner: Owner
    revisions: tuple[Revision, ...]

    @property
    def revisions_tag(self) -> str:
        """The commits as the value of a tag."""
        return " ".join(revision.sha for revision in self.revisions[:MOST_REVISIONS])


@dataclass(frozen=True)
class Change:
    """One change to make in MLflow.

    Attributes:
        verb: "create" or "complete" a run, "group" it with other seeds, "rename" it, "tag" it with its
            commits, tag it as "gone"; or "promote", restore an alias that the model registry lacks.
        name: of the experiment or commit, or the alias.
        run: the existing run; None if it must be created.
        carried: the results of the run; None for "gone" and "promote".
    """

    verb: str
    name: str
    run: "Run | None"
    carried: Carried | None


@dataclass(frozen=True)
class Plan:
    """The differences between MLflow and git with DVC.

    Attributes:
        changes: in the order of application, which registers model versions in the order of results.
        unchanged: number of results with an up-to-date run.
        skipped: name of a revision -> the reason why it gets no run.
    """

    changes: list[Change]
    unchanged: int
    skipped: dict[str, str]


def plan(repository: Repository, settings: Mapping[str, str], names: Iterable[str] = ()) -> Plan:
    """Compare MLflow with git and DVC.

    Args:
        settings: "experiment" and "model" of MLflow, for results whose track stage did not run.
        names: of revisions; none means all experiments, and every commit of every branch and tag.

    Raises:
        PipelineError: a revision does not exist, or the store cannot be reached.
    """
    revisions = [repository.resolve(name) for name in names]
    everything = not revisions
    experiments = repository.experiments()
    carried, skipped = collect(repository, revisions or [*experiments, *repository.commits()])
    alive = {Owner(found.experiment, found.baseline) for found in experiments}
    changes: list[Change] = []
    with store.errors(repository.root):
        named = [settings["experiment"], *(_settings(item, settings)["experiment"] for item in carried)]
        for experiment in dict.fromkeys(named):
            client, experiment_id = store.experiment(repository.root, experiment)
            known = runs.search(client, experiment_id)
            parents = {run.info.run_id for run in known if groups.is_parent(run)}
            for item in carried:
                if _settings(item, settings)["experiment"] == experiment:
                    run = _match(known, item, alive)
                    known = [other for other in known if run is None or other.info.run_id != run.info.run_id]
                    changes += _changes(repository, item, run, parents)
            if everything:
                changes += [Change("gone", run.info.run_name, run, None) for run in known if _is_gone(run, alive)]
        if everything:
            changes += _lost_aliases(repository, store.client(repository.root), settings["model"])
    concerned = sum(change.carried is not None for change in changes)
    return Plan(changes, len(carried) - concerned, skipped)


def apply(repository: Repository, settings: Mapping[str, str], change: Change) -> None:
    """Apply one change.

    Raises:
        TrackingError: the store cannot be reached or rejects a request; a new plan has the remaining changes.
    """
    with store.errors(repository.root):
        client = store.client(repository.root)
        if change.verb == "promote":
            _promote_again(repository, client, settings["model"], change.name)
            return
        if change.carried is None:
            assert change.run is not None
            client.set_tag(change.run.info.run_id, groups.GONE_TAG, "gone")
            groups.leave(repository.root, client, change.run)
            return
        carried, revision = change.carried, change.carried.revisions[0]
        if change.verb in ("create", "complete", "group"):
            with tempfile.TemporaryDirectory() as folder:
                repository.copy(revision, publication.needed(carried.record), Path(folder))
                run_id = publication.publish(
                    repository.root, _settings(carried, settings), carried.record, carried.owner, Path(folder)
                ).run_id
        else:
            assert change.run is not None
            run_id = change.run.info.run_id
            if change.verb == "rename":  # the description names the experiment
                publication.describe(repository.root, client, change.run, carried.record, carried.owner)
        for key, value in (carried.owner.tags | {REVISIONS_TAG: carried.revisions_tag}).items():
            client.set_tag(run_id, key, value)
        if carried.owner.experiment:
            client.set_tag(run_id, runs.NAME_TAG, carried.owner.experiment)
        if change.run and groups.GONE_TAG in change.run.data.tags:
            client.delete_tag(run_id, groups.GONE_TAG)


def collect(repository: Repository, revisions: Iterable[Revision]) -> tuple[list[Carried], dict[str, str]]:
    """Return the results of revisions, oldest first, and the reasons why others have none.

    A commit with the results of an experiment, as after `dvc exp apply`, is added to the commits of these results.
    """
    found: dict[tuple[str, Owner], Carried] = {}
    skipped: dict[str, str] = {}
    for revision in sorted(revisions, key=lambda revision: revision.experiment is None):
        try:
            record = repository.results(revision)
        except ResultsError as error:
            skipped[revision.name] = str(error)
            continue
        if not record.tracking.get("enabled", True):
            skipped[revision.name] = f"{revision.name}: tracking.enabled is false in its parameters"
            continue
        owner = Owner(revision.experiment, revision.baseline)
        same = [key for key in found if key[0] == record.content]
        key = same[0] if same and not owner.experiment else (record.content, owner)
        carried = found.setdefault(key, Carried(record, owner, ()))
        if revision.sha not in {known.sha for known in carried.revisions}:  # a branch can point to an experiment
            found[key] = replace(carried, revisions=(*carried.revisions, revision))
    by_time = sorted(found.values(), key=lambda item: (repository.time(item.revisions[0]), item.record.ended))
    return by_time, skipped


def _changes(repository: Repository, item: Carried, run: "Run | None", parents: set[str]) -> list[Change]:
    """Return the change that updates a run to these results, if any; `parents` are the runs of configurations."""
    name = item.revisions[0].name
    if run is None:
        return [Change("create", name, None, item)]
    tags = run.data.tags
    if not runs.is_complete(run) or _has_missing_files(repository, item, run):
        return [Change("complete", name, run, item)]
    if item.owner.experiment and not item.owner.owns(run):
        return [Change("rename", f"{run.info.run_name} to {name}", run, item)]
    if tags.get(REVISIONS_TAG) != item.revisions_tag or groups.GONE_TAG in tags:
        return [Change("tag", name, run, item)]
    if tags.get(runs.PARENT_TAG) not in parents:
        return [Change("group", name, run, item)]
    return []


def _match(known: list["Run"], item: Carried, alive: set[Owner]) -> "Run | None":
    """Return the run of these results, under the current or the former name of the experiment."""
    return (
        runs.shown(known, item.record, item.owner)
        or _renamed(known, item, alive)
        or runs.opened(known, item.record, item.owner)
    )


def _renamed(known: list["Run"], item: Carried, alive: set[Owner]) -> "Run | None":
    """Return the run with these results under the former name of a renamed experiment."""
    found = []
    for run in known:
        owner, same = Owner.of(run), run.data.tags.get(runs.CONTENT_TAG) == item.record.content
        if same and owner.experiment and owner not in alive and owner.baseline == item.owner.baseline:
            found.append(run)
    same_commit = [run for run in found if item.revisions[0].sha in run.data.tags.get(REVISIONS_TAG, "")]
    return next(iter([*same_commit, *found]), None)


def _is_gone(run: "Run", alive: set[Owner]) -> bool:
    """Return whether to tag a run as "gone"; an incomplete run may still be running."""
    owner = Owner.of(run)
    lost = bool(owner.experiment) and owner not in alive
    return lost and runs.is_complete(run) and groups.GONE_TAG not in run.data.tags


def _lost_aliases(repository: Repository, client: "MlflowClient", model: str) -> list[Change]:
    """Return the aliases that git has and the registry lacks; existing aliases are not changed."""
    known = registry.aliases(client, model)
    return [Change("promote", alias, None, None) for alias in repository.remembered() if alias not in known]


def _promote_again(repository: Repository, client: "MlflowClient", model: str, alias: str) -> None:
    revision = repository.resolve(repository.remembered()[alias])
    record = repository.results(revision)
    version = registry.of_content(client, model, record.content, revision.experiment)
    if version:
        registry.move(client, model, alias, str(version.version), revision=revision.sha)


def _has_missing_files(repository: Repository, item: Carried, run: "Run") -> bool:
    """Return whether files that the run lacks are available now."""
    missing = run.data.tags.get(runs.MISSING_TAG, "").split()
    if not missing:
        return False
    with tempfile.TemporaryDirectory() as folder:
        return len(repository.copy(item.revisions[0], missing, Path(folder))) < len(missing)


def _settings(item: Carried, defaults: Mapping[str, str]) -> dict[str, str]:
    """Return the MLflow experiment and model of these results, from their own parameters if recorded."""
    return {key: str(item.record.tracking.get(key, defaults[key])) for key in ("experiment", "model")}
