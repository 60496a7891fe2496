"""What a training tells a process that watches it from outside: JSON lines in a file, one for each epoch.

Who watches sets PIPELINE_REPORTS to a folder; the file in it is named after the DVC experiment. Nothing that a
training leaves depends on it.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import TrainingError

FOLDER_VARIABLE = "PIPELINE_REPORTS"


def path(folder: Path, experiment: str) -> Path:
    """Return the file in which the training of an experiment reports."""
    return folder / f"{experiment}.jsonl"


@contextmanager
def reporting(state: Path, epochs: int) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Report a training: its length at once, each epoch when told, why it failed at the end.

    Args:
        state: the folder of what it would need to go on, which is of no use if nobody wants it to.

    Yields:
        The function to be called with each epoch's row; it does nothing if nobody watches.
    """
    folder, experiment = os.environ.get(FOLDER_VARIABLE), os.environ.get("DVC_EXP_NAME")
    if not folder or not experiment:
        yield lambda _: None
        return
    target = path(Path(folder), experiment)

    def write(line: Mapping[str, Any]) -> None:
        with target.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(line)) + "\n")

    write({"state": str(state), "epochs": epochs})
    try:
        yield write
    except TrainingError as error:
        write({"failed": str(error)})
        raise


class Reader:
    """Reads a report while it grows: each line once, and none before it is whole."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.offset = 0

    def new(self) -> list[dict[str, Any]]:
        """Return the lines written since the last call; none as long as there is no file."""
        if not self.file.exists():
            return []
        with self.file.open("rb") as file:
            file.seek(self.offset)
            written = file.read()
        whole = written[: written.rfind(b"\n") + 1]
        self.offset += len(whole)
        return [json.loads(line) for line in whole.splitlines()]
