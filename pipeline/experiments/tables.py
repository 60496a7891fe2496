"""Tables of a comparison for the terminal, Markdown and the HTML report."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.cells import cell_len
from rich.table import Table as RichTable
from rich.text import Text

from pipeline import files
from pipeline.errors import PipelineError
from pipeline.experiments import statistics
from pipeline.experiments.comparison import Comparison, Contest
from pipeline.experiments.configuration import short_names
from pipeline.experiments.leaderboard import Row
from pipeline.experiments.results import text_of

BEST, FRONT, ABSENT = "★", "◆", "—"
LEGEND = f"{BEST} best by {{sort}}; {FRONT} on the Pareto front: no other is as accurate with as few MACs."
BEGIN, END = "<!-- comparison: begin -->", "<!-- comparison: end -->"
TEXT = ("verdict", "compared", "to settle it", "most changed classes, points")
"""Columns of the comparison with the baseline that are text."""
FOREST = 25
"""Width of the forest plot in characters."""
MARKDOWN_LIMIT = 60_000
"""Largest Markdown report in bytes: pull requests accept little more."""


@dataclass(frozen=True)
class Table:
    """A title, column heads and cells.

    Attributes:
        text: the number of columns at the beginning that are text; the others are numbers.
        words: other columns of text, by number.
        kept: the number of columns that are shown however narrow the terminal is.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text: int = 1
    words: frozenset[int] = frozenset()
    kept: int = 2

    def is_text(self, column: int) -> bool:
        """Return whether a column is text."""
        return column < self.text or column in self.words


def tables(comparison: Comparison, *, plot: bool = False) -> list[Table]:
    """Return the leaderboard and, if there is a baseline, the comparison with it, which may have a plot of text."""
    found = [leaderboard(comparison)]
    if comparison.contests:
        found.append(contests(comparison, plot=plot))
    return found


def leaderboard(comparison: Comparison) -> Table:
    """Return the leaderboard: for each row its accuracy, verdict, size, speed, and at the end its parameters."""
    names = short_names(comparison.differing)
    columns: list[tuple[str, Callable[[Row], str]]] = [
        ("experiment", _marked),
        ("val, %", lambda row: _with_spread(row, "val/accuracy", 100, 2)),
        ("test, %", lambda row: _with_spread(row, "test/accuracy", 100, 2)),
        ("verdict", lambda row: verdict(comparison, row)),
        ("n", lambda row: str(len(row.members))),
        ("95 % interval", _interval),
        ("params", lambda row: _count(row.mean("model/parameters"))),
        ("MACs", lambda row: _count(row.mean("model/macs"))),
        ("train, s", lambda row: _with_spread(row, "train/seconds", 1, 0)),
        ("images/s", lambda row: _number(row.mean("train/images_per_second"), 1, 0)),
        ("ONNX, kB", lambda row: _number(row.mean("export/onnx_bytes"), 1e-3, 0)),
        ("latency, ms", lambda row: _number(row.mean("export/latency_ms"), 1, 2)),
    ]
    head = (*(name for name, _ in columns), *names)
    rows = tuple(
        (*(f(row) for _, f in columns), *(text_of(row.params.get(key, ABSENT)) for key in comparison.differing))
        for row in comparison.rows
    )
    words = frozenset({3, *range(len(columns), len(head))})
    return Table(f"Leaderboard, best {comparison.sort} first", head, rows, words=words, kept=4)


def contests(comparison: Comparison, *, plot: bool = False) -> Table:
    """Return the comparison with the baseline: verdict, difference, interval, what would settle it, and details.

    Args:
        plot: add a forest plot of characters.
    """
    assert comparison.baseline is not None
    axis = _Axis.of(comparison.contests)
    columns: list[tuple[str, Callable[[Contest], str]]] = [
        ("experiment", lambda contest: contest.row.name),
        ("verdict", lambda contest: contest.verdict),
        ("difference, points", lambda contest: _points(contest.difference.value)),
        ("95 % interval", lambda contest: f"{_points(contest.difference.low)} to {_points(contest.difference.high)}"),
        *([(axis.head, axis.draw)] if plot else []),
        ("compared", lambda contest: contest.basis),
        ("to settle it", lambda contest: contest.plan or ABSENT),
        ("p", lambda contest: statistics.p_text(contest.difference.p_value)),
        ("p (Holm)", lambda contest: statistics.p_text(contest.adjusted)),
        ("alone right", lambda contest: f"{contest.won:,}"),
        ("baseline alone", lambda contest: f"{contest.lost:,}"),
        ("most changed classes, points", _most_changed),
    ]
    rows = tuple(tuple(cell(contest) for _, cell in columns) for contest in comparison.contests)
    head = tuple(name for name, _ in columns)
    title = f"Test accuracy against {comparison.baseline.name}"
    words = {number for number, name in enumerate(head) if name in TEXT or name == axis.head}
    return Table(title, head, rows, words=frozenset(words), kept=4)


def verdict(comparison: Comparison, row: Row) -> str:
    """Return the result of a row's test against the baseline."""
    if row is comparison.baseline:
        return "baseline"
    contest = comparison.contest(row)
    return contest.verdict if contest else ABSENT


def explanation(comparison: Comparison) -> list[str]:
    """Return the notes below the tables."""
    lines = [LEGEND.format(sort=comparison.sort)]
    lines.append(
        "n: seeds. Of several: mean ± standard deviation; of one: Wilson's 95 % interval over the test images."
    )
    if comparison.contests:
        lines.append(
            f"equivalent: the interval lies within ± {comparison.margin * 100:g} points (compare.margin); better and "
            "worse: p < 0.05 after Holm's correction for the number of rows; else undecided."
        )
    if any(not contest.over_seeds for contest in comparison.contests):
        lines.append(
            "network better, worse, equivalent: one seed on a side, McNemar's test on the images of two trainings; "
            "other seeds may differ."
        )
    if any(contest.over_seeds for contest in comparison.contests):
        lines.append("Several seeds on both sides: t-test with the variance between seeds and between images.")
    return [*lines, *comparison.notes]


def for_terminal(table: Table, width: int) -> RichTable:
    """Return a rich table; if the terminal is too narrow, the last columns are omitted and listed.

    Nothing is truncated: the columns that are always kept can be wider than the terminal, which then wraps lines.
    """
    columns = list(zip(table.head, *table.rows, strict=True))
    widths = [max(map(cell_len, column)) + 2 for column in columns]
    shown = len(columns)
    while 1 + sum(widths[:shown]) > width and shown > table.kept:
        shown -= 1
    hidden = ", ".join(table.head[shown:])
    caption = f"columns omitted: {hidden}; --md and --html have all" if hidden else None
    drawn = RichTable(
        title=table.title,
        title_justify="left",
        caption=caption,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        width=1 + max(sum(widths[:shown]), cell_len(table.title)),
    )
    for number, name in enumerate(table.head[:shown]):
        drawn.add_column(name, justify="left" if table.is_text(number) else "right", no_wrap=True)
    for row in table.rows:
        drawn.add_row(*map(Text, row[:shown]))  # Text is not parsed as markup
    return drawn


def to_markdown(comparison: Comparison) -> str:
    """Return the tables and notes as Markdown, shortened to `MARKDOWN_LIMIT`."""
    parts = [markdown(table) for table in tables(comparison)]
    tail = "\n".join(f"- {line}" for line in explanation(comparison))
    room = MARKDOWN_LIMIT - len(tail.encode()) - 100
    while sum(len(part.encode()) for part in parts) > room:
        longest = max(range(len(parts)), key=lambda number: len(parts[number]))
        lines = [line for line in parts[longest].splitlines() if not line.startswith("| …")]
        parts[longest] = "\n".join([*lines[: len(lines) * 3 // 4], "| … |"])
    return "\n\n".join([*parts, tail]) + "\n"


def write_markdown(path: Path, comparison: Comparison) -> None:
    """Write a Markdown report; in a file with the two marker lines, replace only the text between them.

    Raises:
        PipelineError: the file has only one of the markers, or has them in the wrong order.
    """
    text = to_markdown(comparison)
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    if (BEGIN in old) != (END in old) or old.find(BEGIN) > old.find(END):
        raise PipelineError(f"{path}: expected both of the lines '{BEGIN}' and '{END}', in this order, or neither")
    if BEGIN in old:
        text = f"{old[: old.index(BEGIN)]}{BEGIN}\n{text}{old[old.index(END) :]}"
    files.write_text(path, text)


def markdown(table: Table) -> str:
    """Return a table as Markdown with a bold title."""
    rule = ["---" if table.is_text(number) else "---:" for number in range(len(table.head))]
    lines = [table.head, rule, *table.rows]
    return f"**{table.title}**\n\n" + "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines)


@dataclass(frozen=True)
class _Axis:
    """The axis of a forest plot in characters: intervals as lines, differences as dots, zero as a bar.

    Attributes:
        low, high: differences at its ends.
    """

    low: float
    high: float

    @classmethod
    def of(cls, contests: Sequence[Contest]) -> "_Axis":
        """Return an axis from the lowest to the highest limit of the intervals, zero included."""
        limits = [limit for contest in contests for limit in (contest.difference.low, contest.difference.high)]
        return cls(min(0.0, *limits), max(0.0, *limits))

    @property
    def head(self) -> str:
        """The values at both ends."""
        left, right = _points(self.low, 1), _points(self.high, 1)
        return left + right.rjust(FOREST - len(left))

    def draw(self, contest: Contest) -> str:
        """Return the line of a contest."""
        difference = contest.difference
        cells = [" "] * FOREST
        first, last = self._cell(difference.low), self._cell(difference.high)
        cells[first : last + 1] = "─" * (last + 1 - first)
        cells[self._cell(0)] = "┼" if first <= self._cell(0) <= last else "│"
        cells[self._cell(difference.value)] = "●"
        return "".join(cells)

    def _cell(self, value: float) -> int:
        return round((value - self.low) / ((self.high - self.low) or 1) * (FOREST - 1))


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def _marked(row: Row) -> str:
    return " ".join([row.name, *([BEST] if row.best else []), *([FRONT] if row.on_front else [])])


def _interval(row: Row) -> str:
    """Return Wilson's interval of a row with one training."""
    if len(row.members) > 1:
        return ABSENT
    low, high = (_number(row.mean(f"test/accuracy_{side}"), 100, 2) for side in ("low", "high"))
    return f"{low} to {high}"


def _with_spread(row: Row, metric: str, factor: float, digits: int) -> str:
    spread = row.spread(metric)
    middle = _number(row.mean(metric), factor, digits)
    return middle if spread is None else f"{middle} ± {spread * factor:.{digits}f}"


def _most_changed(contest: Contest) -> str:
    ordered = sorted(contest.recall.items(), key=lambda item: -abs(item[1]))
    return ", ".join(f"{name} {_points(change, 1)}" for name, change in ordered[:2] if change) or ABSENT


def _points(value: float, digits: int = 2) -> str:
    return f"{value * 100:+.{digits}f}"


def _number(value: float | None, factor: float, digits: int) -> str:
    return ABSENT if value is None else f"{value * factor:,.{digits}f}"


def _count(value: float | None) -> str:
    if value is None:
        return ABSENT
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.0f}"
