"""CIFAR-10's binary edition: fetch, verify and read the archive without unpickling or extracting.

Layout (https://www.cs.toronto.edu/~kriz/cifar.html): a .tar.gz with `cifar-10-batches-bin/` that holds the class
names, five training batches and one test batch. A record has 3073 bytes: the label (0..9), then the red, green and
blue planes of a 32x32 image, each row by row.
"""

import gzip
import shutil
import tarfile
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pooch
import requests
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from pipeline import files
from pipeline.config.section import CLASSES, IMAGE_SIDE
from pipeline.errors import ArchiveError

OFFICIAL_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
FOLDER = "cifar-10-batches-bin"
TRAIN_BATCHES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_BATCH = "test_batch.bin"
CLASS_NAMES = "batches.meta.txt"
MEMBERS = len(TRAIN_BATCHES) + 2
"""Files that an archive of this layout must have: the batches and the class names."""
CHANNELS = 3
RECORD_BYTES = 1 + CHANNELS * IMAGE_SIDE * IMAGE_SIDE
# Far larger than any batch of this layout and far smaller than memory: a guard against decompression bombs.
LARGEST_MEMBER_BYTES = 1 << 32

CONNECT_SECONDS, READ_SECONDS = 5, 30
ATTEMPTS = 3
CACHE = "cifar10-pipeline"
"""Folder in the user's cache for downloaded archives, so that another clone needs no download."""

ALTERNATIVES = (
    "Alternatives, in params.yaml: a local copy (data.archive: FILE, data.sha256: HASH), "
    "another URL (data.archive: URL), or the built-in dataset (data.dataset: shapes10)."
)


@dataclass(frozen=True)
class Archive:
    """A dataset read from an archive.

    Attributes:
        classes: the ten class names, in the order of the labels.
        train_images, test_images: (N, 32, 32, 3) uint8, RGB.
        train_labels, test_labels: (N,) uint8, 0..9.
    """

    classes: tuple[str, ...]
    train_images: npt.NDArray[np.uint8]
    train_labels: npt.NDArray[np.uint8]
    test_images: npt.NDArray[np.uint8]
    test_labels: npt.NDArray[np.uint8]


def fetch(sources: Sequence[str], sha256: str, out: Path) -> None:
    """Copy or download an archive to `out` from the first of several sources with the expected hash.

    A URL is tried up to three times with growing pauses if the server fails or breaks off, and once if there is no
    connection. `out` is created only if its hash is correct.

    Raises:
        ArchiveError: all sources failed; the message has the failure of each source and alternatives.
    """
    failures = []
    for source in sources:
        try:
            _fetch_from(source, sha256, out)
        except ArchiveError as error:
            failures.append(f"{source}: {error}")
        else:
            return
    raise ArchiveError(f"cannot fetch the archive from {'; '.join(failures)}. {ALTERNATIVES}")


def read(path: Path, on_member: Callable[[str], None] = lambda _: None) -> Archive:
    """Read an archive of this layout without extracting it.

    Args:
        path: the .tar.gz.
        on_member: called with the name of each member that was read (six batches and the class names).

    Raises:
        ArchiveError: the gzip or tar file is damaged, a member is missing, invalid or outside the archive's folder,
            a batch has another record size, or a label is above 9.
    """
    contents: dict[str, bytes] = {}
    required = {CLASS_NAMES, *TRAIN_BATCHES, TEST_BATCH}
    try:
        with gzip.open(path) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                name = _member_name(path, member)
                if name in required:
                    contents[name] = _member_bytes(path, tar, member)
                    on_member(name)
            while stream.read(1 << 20):  # tarfile stops before the end, where gzip verifies its checksum
                pass
    except FileNotFoundError:
        raise ArchiveError(f"{path}: no such file; run the download stage (dvc repro download)") from None
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ArchiveError(
            f"{path}: expected a complete .tar.gz, found a damaged or truncated file ({error}); "
            "delete it and run dvc repro download"
        ) from None
    missing = [name for name in (CLASS_NAMES, *TRAIN_BATCHES, TEST_BATCH) if name not in contents]
    if missing:
        raise ArchiveError(
            f"{path}: expected {FOLDER}/ with five training batches, a test batch and {CLASS_NAMES}, "
            f"found no {', '.join(missing)}"
        )
    train = [_records(path, name, contents[name]) for name in TRAIN_BATCHES]
    train_images = np.concatenate([images for images, _ in train])
    train_labels = np.concatenate([labels for _, labels in train])
    test_images, test_labels = _records(path, TEST_BATCH, contents[TEST_BATCH])
    classes = _class_names(path, contents[CLASS_NAMES])
    return Archive(classes, train_images, train_labels, test_images, test_labels)


def display_name(dataset: str, archive_sha256: str) -> str:
    """Return the dataset's name for reports; only the official archive is called "CIFAR-10"."""
    if dataset != "cifar10":
        return dataset
    return "CIFAR-10" if archive_sha256 == OFFICIAL_SHA256 else f"CIFAR-10 (other archive, {archive_sha256[:8]})"


def is_url(source: str) -> bool:
    """Return whether an archive's source is a URL rather than a file."""
    return source.startswith(("http://", "https://"))


class _BrokenOffError(Exception):
    """The server stopped sending; another attempt may succeed."""


class _Downloader:
    """pooch downloader that streams a URL to a file with a timeout and a progress bar."""

    def __call__(self, url: str, output_file: Any, _pooch: Any) -> None:
        bar = Progress(
            "[progress.description]{task.description}",
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            transient=True,
        )
        with requests.get(url, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS)) as response, bar:
            response.raise_for_status()
            total = int(response.headers.get("content-length", 0)) or None
            task = bar.add_task(url.rsplit("/", 1)[-1], total=total)
            with Path(output_file).open("wb") as file:
                try:
                    for chunk in response.iter_content(1 << 18):
                        file.write(chunk)
                        bar.advance(task, len(chunk))
                except requests.RequestException as error:  # a timeout here is a ConnectionError in requests
                    raise _BrokenOffError(f"the connection broke off ({_reason(error)})") from None


def _fetch_from(source: str, sha256: str, out: Path) -> None:
    if not is_url(source):
        _copy(Path(source), sha256, out)
        return
    print(f"fetching {source}", flush=True)
    pooch.get_logger().setLevel("WARNING")  # it would repeat these messages
    for attempt in range(1, ATTEMPTS + 1):
        try:
            cached = pooch.retrieve(
                source,
                f"sha256:{sha256}",
                fname=f"{sha256[:16]}.tar.gz",
                path=pooch.os_cache(CACHE),
                downloader=_Downloader(),
            )
            _copy(Path(cached), sha256, out)
            return
        except requests.HTTPError as error:
            failure = f"the server answered {error.response.status_code}"
            if error.response.status_code < 500:
                raise ArchiveError(failure) from None
        except _BrokenOffError as error:
            failure = str(error)
        except requests.RequestException as error:  # no connection: another attempt would only take time
            raise ArchiveError(f"no connection ({_reason(error)})") from None
        except ValueError:  # what pooch raises for a wrong hash
            raise ArchiveError(f"expected SHA-256 {sha256}, found other bytes") from None
        if attempt < ATTEMPTS:
            pause = 2**attempt
            print(f"  attempt {attempt} of {ATTEMPTS}: {failure}; retrying in {pause} s", flush=True)
            time.sleep(pause)
    raise ArchiveError(f"{failure}, {ATTEMPTS} times")


def _copy(source: Path, sha256: str, out: Path) -> None:
    if not source.is_file():
        raise ArchiveError("no such file")
    found = files.sha256(source)
    if found != sha256:
        raise ArchiveError(f"expected SHA-256 {sha256}, found {found}")
    with files.atomic(out) as temporary:
        shutil.copyfile(source, temporary)


def _reason(error: BaseException) -> str:
    """Return the innermost cause of a requests error without object addresses."""
    reason: Any = error
    while getattr(reason, "args", None):
        inner = getattr(reason.args[0], "reason", reason.args[0])
        if not isinstance(inner, BaseException):
            break
        reason = inner
    return str(reason).rsplit(": ", 1)[-1] or type(reason).__name__


def _member_name(path: Path, member: tarfile.TarInfo) -> str:
    """Return a member's name inside the archive's folder, "" for others; a path outside the archive is an error."""
    parts = Path(member.name).parts
    if member.name.startswith("/") or ".." in parts:
        raise ArchiveError(f"{path}: member {member.name!r} points outside the archive; do not trust this archive")
    return parts[1] if len(parts) == 2 and parts[0] == FOLDER else ""


def _member_bytes(path: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member) if member.isreg() else None
    if file is None:
        raise ArchiveError(f"{path}: expected {member.name} to be a regular file, found a link or folder")
    if member.size > LARGEST_MEMBER_BYTES:
        raise ArchiveError(f"{path}: {member.name} has {member.size} bytes, more than {LARGEST_MEMBER_BYTES}")
    return file.read()


def _records(path: Path, name: str, content: bytes) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Split a batch's bytes into (N, 32, 32, 3) uint8 images and (N,) uint8 labels."""
    if not content or len(content) % RECORD_BYTES:
        raise ArchiveError(
            f"{path}: {FOLDER}/{name}: expected a multiple of {RECORD_BYTES} bytes (a label and 3 x 32 x 32 pixels), "
            f"found {len(content)}"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD_BYTES)
    labels = records[:, 0]
    if labels.max() >= CLASSES:
        first = int(np.argmax(labels >= CLASSES))
        raise ArchiveError(
            f"{path}: {FOLDER}/{name}: record {first}: expected a label of 0..{CLASSES - 1}, found {labels[first]}"
        )
    planes = records[:, 1:].reshape(-1, CHANNELS, IMAGE_SIDE, IMAGE_SIDE)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels.copy()


def _class_names(path: Path, content: bytes) -> tuple[str, ...]:
    try:
        names = tuple(content.decode("utf-8").split())
    except UnicodeDecodeError:
        names = ()
    if len(names) != CLASSES or len(set(names)) != CLASSES:
        raise ArchiveError(f"{path}: {FOLDER}/{CLASS_NAMES}: expected ten different class names, found {len(names)}")
    return names
