"""A comparison as one self-contained HTML page."""

import contextlib
import io
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline import pages
from pipeline.errors import ResultsError
from pipeline.experiments import parallel_coordinates, report_figures, statistics, tables
from pipeline.experiments.comparison import Comparison, Contest
from pipeline.experiments.configuration import short_names
from pipeline.experiments.leaderboard import Row
from pipeline.experiments.repository import Repository
from pipeline.experiments.results import text_of
from pipeline.experiments.tables import Table

MOST_DETAILS = 6
"""Number of contests with figures, best rows first: each adds about 100 kB to the page."""

MOST_FOREST = 40
"""Number of rows in the figure of differences, best first."""

LEAST_PARALLEL = 3
"""Number of rows from which the page shows which parameters go with accuracy."""

SHOWN_IMAGES = 12
STYLES = {
    **{f"{prefix}{verdict}": verdict for verdict in ("better", "worse", "equivalent") for prefix in ("", "network ")},
    "undecided": "none",
}
"""Verdict -> style class."""
Images = Mapping[str, npt.NDArray[np.uint8]]
"""DVC's hash of a dataset -> its (N, H, W, 3) test images."""


def render(repository: Repository, comparison: Comparison) -> str:
    """Return the HTML page, which needs no network and no other file."""
    rows, reference, contests = comparison.rows, comparison.baseline, comparison.contests
    dataset = sorted({str(member.record.metrics["data/name"]) for row in rows for member in row.members})
    count = sum(len(row.members) for row in rows)
    shown = contests[:MOST_DETAILS]
    images = _test_images(repository, shown)
    return pages.render(
        "report.html",
        title=f"{count} result{'s' if count > 1 else ''} on {', '.join(dataset)}",
        subtitle=f"Commit {repository.resolve('HEAD').sha[:7]}; created by python -m pipeline compare --html.",
        summary=_summary(comparison),
        leaderboard=tables.leaderboard(comparison),
        explanation=tables.explanation(comparison),
        baseline=reference.name if reference else "",
        forest=_forest(comparison),
        costs=_costs(rows),
        parallel=_parallel(comparison),
        curves=_curves(repository, rows),
        contests_table=tables.contests(comparison) if contests else None,
        contests=[_details(reference, contest, images) for contest in shown if reference],
        omitted=", ".join(contest.row.name for contest in contests[MOST_DETAILS:]),
    )


def _summary(comparison: Comparison) -> str:
    best = comparison.rows[0]
    text = f"Best by {comparison.sort}: {best.name}, with {best.mean('test/accuracy') or 0:.2%} on the test images."
    if comparison.contests and comparison.baseline:
        verdicts = [contest.verdict for contest in comparison.contests]
        parts = [f"{verdicts.count(verdict)} {verdict}" for verdict in STYLES if verdict in verdicts]
        text += f" Against {comparison.baseline.name}: {', '.join(parts)}."
    return text


def _forest(comparison: Comparison) -> str:
    """Return the figure of the seeds of each row and its difference to the baseline."""
    rows = [row for row in comparison.rows if row.values("test/accuracy")][:MOST_FOREST]
    found = [comparison.contest(row) for row in rows]
    limits = [(each.difference.value, each.difference.low, each.difference.high) if each else None for each in found]
    verdicts = [tables.verdict(comparison, row) for row in rows]
    seeds = [row.values("test/accuracy") for row in rows]
    return report_figures.forest([row.name for row in rows], seeds, limits, verdicts, comparison.margin)


def _costs(rows: tuple[Row, ...]) -> list[str]:
    figures = []
    for metric, label in (
        ("model/macs", "MACs per image"),
        ("train/seconds", "training time, s"),
    ):
        known = [row for row in rows if row.mean(metric) is not None]
        if known:
            cost, accuracy = ([row.mean(name) or 0.0 for row in known] for name in (metric, "val/accuracy"))
            names, intervals = [row.name for row in known], [row.interval for row in known]
            figures.append(report_figures.accuracy_against(names, cost, accuracy, intervals, label))
    return figures


def _parallel(comparison: Comparison) -> list[str]:
    """Return the figure of which parameters go with accuracy; none for fewer than three rows."""
    keys, rows = comparison.differing, comparison.rows
    if len(rows) < LEAST_PARALLEL or not keys:
        return []
    values = {name: [row.params.get(key) for row in rows] for name, key in zip(short_names(keys), keys, strict=True)}
    return [parallel_coordinates.draw(values, [row.mean("val/accuracy") or 0.0 for row in rows])]


def _curves(repository: Repository, rows: tuple[Row, ...]) -> list[str]:
    histories = {}
    for row in rows:
        member = row.members[0]
        with contextlib.suppress(ResultsError):  # without a curve the table still has the last epoch
            histories[row.name] = repository.history(member.revision, member.record)
    if not histories:
        return []
    draw = report_figures.learning_curves
    return [
        draw(histories, "val/accuracy", "Validation accuracy", "%"),
        draw(histories, "val/loss", "Validation loss", "nats"),
    ]


def _test_images(repository: Repository, contests: Iterable[Contest]) -> Images:
    """Read the test images of each dataset once, without those that neither DVC's cache nor a remote has."""
    found: dict[str, npt.NDArray[np.uint8]] = {}
    for member in (contest.pair[1] for contest in contests):
        if member.record.dataset_hash not in found:
            path = f"{member.record.paths['preprocess']['out']}/test_images.npy"
            with contextlib.suppress(ResultsError):
                content = repository.output(member.revision, member.record, path)
                found[member.record.dataset_hash] = np.load(io.BytesIO(content), allow_pickle=False)
    return found


def _details(reference: Row, contest: Contest, images: Images) -> dict[str, Any]:
    baseline, candidate = contest.predictions
    difference = contest.difference
    p_values = f"p {statistics.p_text(difference.p_value)}, after Holm {statistics.p_text(contest.adjusted)}"
    sentence = (
        f"{difference.value * 100:+.2f} points of test accuracy (95 % interval {difference.low * 100:+.2f} to "
        f"{difference.high * 100:+.2f}; {contest.basis}, {p_values}). "
        f"{f'To settle it: {contest.plan}. ' if contest.plan else ''}"
        f"{contest.won:,} images are classified correctly only by {contest.row.name} (seed {contest.pair[1].seed}), "
        f"{contest.lost:,} only by {reference.name} (seed {contest.pair[0].seed})."
    )
    return {
        "name": contest.row.name,
        "verdict": contest.verdict,
        "style": STYLES[contest.verdict],
        "sentence": sentence,
        "parameters": _parameters(reference, contest.row),
        "recall": _recall(reference, contest),
        "confusion": report_figures.confusion_difference(baseline.confusion, candidate.confusion, baseline.classes),
        "strips": _strips(reference, contest, images),
    }


def _parameters(reference: Row, row: Row) -> Table:
    keys = [key for key in (reference.params | row.params) if reference.params.get(key) != row.params.get(key)]
    text = [(key, *(text_of(side.params.get(key, tables.ABSENT)) for side in (reference, row))) for key in keys]
    return Table("", ("parameter", reference.name, row.name), tuple(text) or (("none", "", ""),), text=3)


def _recall(reference: Row, contest: Contest) -> Table:
    rows = []
    for index, name in enumerate(contest.predictions[0].classes):
        shares = [float(side.correct[side.labels == index].mean()) for side in contest.predictions]
        rows.append((name, *(f"{share:.1%}" for share in shares), f"{(shares[1] - shares[0]) * 100:+.1f}"))
    return Table("", ("class", reference.name, contest.row.name, "points"), tuple(rows))


def _strips(reference: Row, contest: Contest, images: Images) -> list[dict[str, str]]:
    """Return the first images that only one of the two classifies correctly, for each; none without the images."""
    shown = images.get(contest.pair[1].record.dataset_hash)
    if shown is None:
        return []
    baseline, candidate = contest.predictions
    strips = []
    for winner, mask in (
        (contest.row.name, candidate.alone_right(baseline)),
        (reference.name, baseline.alone_right(candidate)),
    ):
        chosen = np.flatnonzero(mask)[:SHOWN_IMAGES]
        names = candidate.classes
        captions = [f"{names[candidate.predicted[i]]}\n{names[baseline.predicted[i]]}" for i in chosen]
        if len(chosen):
            title = f"Correct only with {winner}: {len(chosen)} of {int(mask.sum()):,} images"
            strips.append({"title": title, "image": report_figures.disagreements(shown[chosen], captions)})
    return strips
