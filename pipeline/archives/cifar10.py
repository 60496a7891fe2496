"""CIFAR-10's binary edition: read the archive without unpickling or extracting.

Layout (https://www.cs.toronto.edu/~kriz/cifar.html): a .tar.gz with `cifar-10-batches-bin/` that holds the class
names, five training batches and one test batch. A record has 3073 bytes: the label (0..9), then the red, green and
blue planes of a 32x32 image, each row by row.
"""

import gzip
import re
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

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
LARGEST_BYTES = 2_000_000 * RECORD_BYTES + (1 << 20)
"""Of all members together, the largest built-in dataset: a guard against decompression bombs."""
CLASS_NAME = re.compile(r"\w[\w.+-]{0,39}")
"""What a class may be called: ONNX metadata, tables, file names and pages can all hold it as it is."""


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


def read(path: Path, on_member: Callable[[str], None] = lambda _: None) -> Archive:
    """Read an archive of this layout without extracting it.

    Args:
        path: the .tar.gz.
        on_member: called with the name of each member that was read (six batches and the class names).

    Raises:
        ArchiveError: the gzip or tar file is damaged, a member is missing, invalid, there twice or outside the
            archive's folder, all are too large together, a batch has another record size, a label is above 9, or a
            class has a name that later formats cannot hold.
    """
    contents: dict[str, bytes] = {}
    total = 0
    required = {CLASS_NAMES, *TRAIN_BATCHES, TEST_BATCH}
    try:
        with gzip.open(path) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                name = _member_name(path, member)
                total += member.size
                if total > LARGEST_BYTES:
                    raise ArchiveError(f"{path}: expected at most {LARGEST_BYTES:,} bytes, found {total:,} or more")
                if name in contents:
                    raise ArchiveError(f"{path}: {member.name}: found twice, expected once")
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
    for name in names:
        if not CLASS_NAME.fullmatch(name):
            raise ArchiveError(
                f"{path}: {FOLDER}/{CLASS_NAMES}: expected names of at most 40 letters, digits and _ . + -, "
                f"found {name!r}"
            )
    return names
