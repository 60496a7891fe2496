"""Rank results and test whether their differences from a baseline are significant."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from pipeline.errors import ResultsError
from pipeline.experiments import statistics
from pipeline.experiments.leaderboard import Member, Row, differing, group, rank, split_names
from pipeline.experiments.predictions import Predictions
from pipeline.experiments.repository import Repository, Revision
from pipeline.experiments.statistics import Difference


@dataclass(frozen=True)
class Contest:
    """The comparison of a row with the baseline on the same test images.

    Attributes:
        baseline, row: the two sides.
        pair: the two trainings whose predictions are shown image by image, baseline first, with the same seed if
            possible.
        predictions: of the two trainings.
        difference: in accuracy: of the configurations if both sides have several seeds, else of the two networks.
        margin: difference in accuracy, as a fraction, up to which two rows are equivalent in practice.
        adjusted: the p-value after Holm's correction for all contests of the comparison.
    """

    baseline: Row
    row: Row
    pair: tuple[Member, Member]
    predictions: tuple[Predictions, Predictions]
    difference: Difference
    margin: float
    adjusted: float

    @property
    def over_seeds(self) -> bool:
        """Whether configurations are compared, not two networks."""
        return min(len(self.baseline.members), len(self.row.members)) > 1

    @property
    def won(self) -> int:
        """Number of images that only the candidate of the pair classifies correctly."""
        base, candidate = self.predictions
        return int(candidate.alone_right(base).sum())

    @property
    def lost(self) -> int:
        """Number of images that only the baseline classifies correctly."""
        base, candidate = self.predictions
        return int(base.alone_right(candidate).sum())

    @property
    def recall(self) -> dict[str, float]:
        """Class -> change in recall."""
        base, candidate = self.predictions
        images = np.maximum(base.confusion.sum(1), 1)
        change = (np.diag(candidate.confusion) - np.diag(base.confusion)) / images
        return {name: float(value) for name, value in zip(base.classes, change, strict=True)}

    @property
    def basis(self) -> str:
        """The data of the test: the number of seeds of the row and of the baseline, or the seed of each network."""
        if self.over_seeds:
            return f"{len(self.row.members)} against {len(self.baseline.members)} seeds"
        base, candidate = (member.seed for member in self.pair)
        return f"seed {base}" if base == candidate else f"seed {candidate} against {base}"

    @property
    def verdict(self) -> str:
        """Result of the test: better, worse, equivalent or undecided, of one seed with "network" before it."""
        low, high = self.difference.low, self.difference.high
        if -self.margin < low and high < self.margin:
            found = "equivalent"
        elif self.adjusted < statistics.SIGNIFICANT:
            found = "better" if self.difference.value > 0 else "worse"
        else:
            return "undecided"
        return found if self.over_seeds else f"network {found}"

    @property
    def settled(self) -> bool:
        """Whether the configurations are known to be better, worse or equivalent."""
        return self.over_seeds and self.verdict != "undecided"

    @cached_property
    def seeds(self) -> int | None:
        """The seeds on each side that would show this difference, or equivalence; None if no number would."""
        effect = abs(self.difference.value)
        planned = statistics.seeds_to_show(max(effect, self.margin - effect), self.difference)
        more = min(len(self.baseline.members), len(self.row.members)) + 1
        return None if planned is None else max(planned, more)

    @property
    def plan(self) -> str:
        """What would settle the comparison, and the time it takes; "" if it is settled."""
        if self.settled:
            return ""
        if self.seeds is None:
            return f"more than {statistics.MOST_SEEDS} seeds, or more test images"
        more = [max(0, self.seeds - len(row.members)) for row in (self.baseline, self.row)]
        seconds = sum(row.seconds * count for row, count in zip((self.baseline, self.row), more, strict=True))
        return f"{self.seeds} seeds on each side: {sum(more)} more, about {duration(seconds)}"


@dataclass(frozen=True)
class Comparison:
    """All rows, and the comparison of each with the baseline.

    Attributes:
        rows: best first.
        sort: the metric they are sorted by.
        differing: parameters that differ between rows.
        baseline: the row with which others are compared; None if it has no results.
        contests: one for each other row with the same test images.
        margin: difference in accuracy up to which two rows are equivalent in practice.
        notes: further remarks, one line each.
    """

    rows: tuple[Row, ...]
    sort: str
    differing: tuple[str, ...]
    baseline: Row | None
    contests: tuple[Contest, ...]
    margin: float
    notes: tuple[str, ...]

    def contest(self, row: Row) -> Contest | None:
        """Return the comparison of a row with the baseline; None for the baseline itself and rows not compared."""
        return next((contest for contest in self.contests if contest.row is row), None)


def compare(
    repository: Repository, revisions: Sequence[Revision], *, baseline: Revision, sort: str, margin: float
) -> Comparison:
    """Rank the results of revisions and compare them with a baseline.

    Args:
        revisions: the notes list those without results.
        baseline: included even if it is not among the revisions.
        sort: the metric to rank by.
        margin: difference in accuracy, as a fraction, up to which two rows are equivalent in practice.

    Raises:
        ResultsError: none of the revisions has results.
        PipelineError: no result has the metric.
    """
    found, notes = collected(repository, [*revisions, baseline])
    if not found:
        raise ResultsError("\n".join(notes) or "no results to compare")
    rows = rank(found, sort)
    reference = next((row for row in rows if row.has(baseline)), None)
    if reference is None:
        notes = [note for note in notes if not note.startswith(f"{baseline.name}:")]
        notes.append(f"{baseline.name} has no results to compare with; choose another revision with --baseline")
    contests: list[Contest] = []
    known: dict[str, Predictions] = {}

    def predicted(member: Member) -> Predictions:
        if member.identity not in known:
            known[member.identity] = predictions(repository, member)
        return known[member.identity]

    for row in rows if reference else ():
        assert reference is not None
        if row is not reference:
            try:
                contests.append(_contest(reference, row, margin, predicted))
            except ResultsError as error:
                notes.append(str(error))
    adjusted = statistics.holm([contest.difference.p_value for contest in contests])
    notes += [
        f"{', '.join(member.aliases)}: the same result as {member.revision.name}"
        for row in rows
        for member in row.members
        if member.aliases
    ]
    notes += split_names(rows)
    if any(len(row.members) == 1 for row in rows):
        notes.append("n = 1: no estimate of the variation between seeds; python -m pipeline replicate queues more")
    return Comparison(
        tuple(rows),
        sort,
        differing(rows),
        reference,
        tuple(replace(contest, adjusted=p) for contest, p in zip(contests, adjusted, strict=True)),
        margin,
        tuple(notes),
    )


def collected(repository: Repository, revisions: Iterable[Revision]) -> tuple[list[Row], list[str]]:
    """Return the results of revisions in rows, and the reasons why revisions have none."""
    members, notes = _members(repository, _unique(revisions))
    return group(members), notes


def predictions(repository: Repository, member: Member) -> Predictions:
    """Return the predictions of a result for the test images.

    Raises:
        ResultsError: neither DVC's cache nor a remote has its predictions.
    """
    path = member.record.paths["evaluate"]["predictions"]
    return Predictions.parse(repository.output(member.revision, member.record, path))


def _members(repository: Repository, revisions: Iterable[Revision]) -> tuple[list[Member], list[str]]:
    """Return one member for each distinct result, and the reasons why revisions have none."""
    found: dict[str, Member] = {}
    notes = []
    for revision in revisions:
        try:
            member = Member(revision, repository.results(revision))
        except ResultsError as error:
            notes.append(str(error))
            continue
        known = found.setdefault(member.identity, member)
        if known is not member:
            found[member.identity] = replace(known, aliases=(*known.aliases, revision.name))
    return list(found.values()), notes


def _unique(revisions: Iterable[Revision]) -> list[Revision]:
    """Return each revision once, experiments before commits."""
    unique = {(revision.sha, revision.experiment): revision for revision in revisions}.values()
    return sorted(unique, key=lambda revision: revision.experiment is None)


def duration(seconds: float) -> str:
    """Return a duration in its largest unit."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _contest(reference: Row, row: Row, margin: float, predicted: Callable[[Member], Predictions]) -> Contest:
    """Compare a row with the baseline."""
    by_seed = {member.seed: member for member in reference.members}
    candidate = next((member for member in row.members if member.seed in by_seed), row.members[0])
    pair = by_seed.get(candidate.seed, reference.members[0]), candidate
    several = min(len(row.members), len(reference.members)) > 1
    sides = [side.members if several else (one,) for side, one in zip((reference, row), pair, strict=True)]
    found = [[predicted(member) for member in members] for members in sides]
    first = predicted(pair[0])
    if not all(first.same_images(other) for other in (*found[0], *found[1])):
        raise ResultsError(f"{row.name}: other test images than those of {reference.name}, so they cannot be compared")
    correct = [np.stack([each.correct for each in side]) for side in found]
    difference = statistics.over_seeds(*correct) if several else statistics.paired(correct[0][0], correct[1][0])
    return Contest(reference, row, pair, (first, predicted(candidate)), difference, margin, difference.p_value)
