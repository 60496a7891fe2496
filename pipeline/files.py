"""Atomic file writing, hashes, JSON and CSV."""

import contextlib
import csv
import errno
import fcntl
import glob
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it there if the block succeeds, else remove it.

    Content and folder are synced to disk, so neither a crash nor a power failure leaves an incomplete file under the
    final name, or loses one that was there. What a killed process has left is removed by the next one.

    Raises:
        OSError: the file cannot be written; it names `path`, whatever the block said.
    """
    temporary = path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        try:
            with contextlib.suppress(OSError):  # some network file systems have no locks: nothing is removed there
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield temporary
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)  # mkstemp creates files that only their owner can read
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
        finally:
            os.close(handle)
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error


def _remove_abandoned(path: Path) -> None:
    """Remove the temporary files of `atomic` for this path whose processes, which would lock them, are gone."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        with contextlib.suppress(OSError), left.open("rb") as file:  # it is locked, or gone by now
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


def _sync(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot do this
            raise
    finally:
        os.close(handle)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content`, atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically; line ends stay as they are."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, atomically; NaN and infinity, which JSON lacks, raise ValueError."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
    """Write rows with the same keys as a CSV table, atomically; floats round-trip.

    Args:
        rows: values by column; None is written as an empty cell.
        columns: column names; required only if there may be no rows.
    """
    text = io.StringIO()
    rows = list(rows)
    writer = csv.DictWriter(text, columns or list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_row(path: Path, row: Mapping[str, Any]) -> None:
    """Write a table of one row as JSON: `[{"name": value, ...}]`, which DVC does not take for metrics to show."""
    write_json(path, [row])


def read_row(path: Path) -> dict[str, Any]:
    """Read a table of one row written by `write_row`."""
    (row,) = read_json(path)
    return dict(row)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read the rows of a CSV table written by `write_csv`; all values are text."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_json(path: Path) -> Any:
    """Read a JSON file written by `write_json`."""
    return json.loads(path.read_text(encoding="utf-8"))


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_all(paths: Iterable[Path], *, root: Path) -> str:
    """Return one SHA-256 over the names (relative to `root`) and bytes of several files, in any order."""
    lines = sorted(f"{path.relative_to(root).as_posix()} {sha256(path)}" for path in paths)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
