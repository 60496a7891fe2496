"""Print predictions batch by batch as a table, JSON lines or CSV."""

import csv
import io
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from pipeline.errors import PredictionError
from pipeline.serving import image_files, prediction
from pipeline.serving.image_files import Filter, Unreadable
from pipeline.serving.prediction import Prediction

Form = Literal["table", "json", "csv"]
Write = Callable[[Sequence[Prediction]], None]

DEFAULT_TOP = 3


def run(
    arguments: Sequence[str],
    model: str,
    root: Path,
    *,
    form: Form,
    top: int | None,
    resample: Filter,
    stretch: bool,
    batch_size: int,
) -> int:
    """Print predictions to stdout, batch by batch, and one line to stderr for each image that cannot be read.

    Args:
        arguments: image files, folders, "-" for an image on standard input.
        model, root: see `prediction.load`.
        form: "table"; "json", one object a line: {"image": ..., "predictions": [{"class": ..., "probability": ...}]},
            so that memory is bounded and an interrupted run leaves complete objects; or "csv" with the columns image,
            rank, class, probability for any `top`.
        top: number of classes to print for each image; None means three, or all if there are fewer.
        resample, stretch, batch_size: see `prediction.predict`.

    Returns:
        The number of images or folders that could not be read.

    Raises:
        PredictionError, TrackingError: see `prediction.load`; or the network has fewer than `top` classes.
    """
    console = Console(stderr=True)
    with console.status(f"loading {model}"):
        classifier = prediction.load(model, root)
    classes = len(classifier.classes)
    if top is not None and top > classes:
        raise PredictionError(f"--top: found {top}, expected 1..{classes}, as {model} has {classes} classes")
    top = top or min(DEFAULT_TOP, classes)
    with console.status("looking for images"):
        items = list(image_files.find(arguments))
    write = _writer(form, items, classifier.classes, top)
    unreadable = 0
    with warnings.catch_warnings(), _bar(console) as bar:
        warnings.simplefilter("ignore")  # Pillow's warnings about metadata
        task = bar.add_task("", total=len(items))
        for batch in prediction.predict(
            classifier, items, top=top, resample=resample, stretch=stretch, batch_size=batch_size
        ):
            bar.stop()  # stdout may be the same terminal
            write([item for item in batch if isinstance(item, Prediction)])
            sys.stdout.flush()
            for item in batch:
                if isinstance(item, Unreadable):
                    print(f"error: {_shown(item.name)}: {item.reason}", file=sys.stderr)
                    unreadable += 1
            bar.start()
            bar.advance(task, len(batch))
    return unreadable


def _bar(console: Console) -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("images"), TimeRemainingColumn())
    # With redirection, results would go to stderr like the bar.
    return Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def _writer(form: Form, items: Sequence[str | Unreadable], classes: Sequence[str], top: int) -> Write:
    if form == "json":
        return _write_json
    if form == "csv":
        return _csv_writer()
    return _table_writer([item for item in items if isinstance(item, str)], classes, top)


def _write_json(predictions: Sequence[Prediction]) -> None:
    for item in predictions:
        best = [{"class": label, "probability": probability} for label, probability in item.best]
        print(json.dumps({"image": item.image, "predictions": best}))  # escaped, so that any name of a file survives


def _csv_writer() -> Write:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # names of files need not be UTF-8
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(("image", "rank", "class", "probability"))

    def write(predictions: Sequence[Prediction]) -> None:
        for item in predictions:
            for rank, (label, probability) in enumerate(item.best, start=1):
                rows.writerow((item.image, rank, label, probability))

    return write


def _table_writer(names: Sequence[str], classes: Sequence[str], top: int) -> Write:
    """Return what prints a table in parts, whose columns are as wide in each: all names are known beforehand."""
    console = Console()
    image = max((cell_len(_shown(name)) for name in names), default=0)
    label = max(map(cell_len, (*classes, "class")))
    probability = len("probability")
    others = (top - 1) * (label + len(" 100.00%, "))
    if console.is_terminal:
        # Long names are broken before the classes are, and what is left goes to the other classes.
        left = console.width - label - probability - 6
        image = min(image, max(left - min(others, 30), 10))
        others = min(others, max(left - image, 10))
    else:
        console.width = image + label + probability + others + 20  # a file has room for lines of any length
    header = True

    def write(predictions: Sequence[Prediction]) -> None:
        nonlocal header
        if not predictions:
            return
        table = Table(box=box.SIMPLE_HEAD, show_header=header, show_edge=False, pad_edge=False)
        table.add_column("image", width=max(image, len("image")), overflow="fold")
        table.add_column("class", width=label, no_wrap=True)
        table.add_column("probability", width=probability, justify="right")
        if top > 1:
            table.add_column("others", width=others)
        for item in predictions:
            (best, value), *rest = item.best
            cells = [_shown(item.image), best, f"{value:.2%}", ", ".join(f"{name} {p:.2%}" for name, p in rest)]
            table.add_row(*map(Text, cells[: len(table.columns)]))  # as Text, nothing in it is markup
        console.print(table)
        header = False

    return write


def _shown(name: str) -> str:
    """Return a file's name without what would change lines, colours or encodings in a terminal."""
    return name if name.isprintable() else repr(name)[1:-1]
