"""Experiments of a study that already exist."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.errors import ResultsError
from pipeline.experiments.repository import Repository, Revision
from pipeline.experiments.results import Results
from pipeline.studies.plan import Planned, difference


@dataclass(frozen=True)
class Found:
    """An existing experiment and its results."""

    revision: Revision
    record: Results


def find(repository: Repository, planned: Planned, known: Mapping[str, list[Revision]]) -> Found | None:
    """Return the experiment of a planned name and parameters that has results; None: there is none.

    Args:
        known: all experiments by name; those of several commits may share a name.
    """
    for revision in known.get(planned.name, ()):
        try:
            record = repository.results(revision)
        except ResultsError:
            continue
        if difference(planned, record.params) is None:
            return Found(revision, record)
    return None


def by_name(repository: Repository) -> dict[str, list[Revision]]:
    """Return all experiments by name, the latest of each name first."""
    known: dict[str, list[Revision]] = {}
    for revision in reversed(repository.experiments()):
        known.setdefault(str(revision.experiment), []).append(revision)
    return known
