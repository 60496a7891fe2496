"""The processed dataset on disk: uint8 arrays of three splits and exact channel statistics."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline import files
from pipeline.errors import DatasetError

SPLITS = ("train", "val", "test")
_PIXELS_IN_CACHE = 1 << 16

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Split:
    """Images (N, 32, 32, 3) uint8 RGB, with labels (N,) uint8 of 0..9."""

    images: Images
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Metadata:
    """Metadata of a processed dataset.

    Attributes:
        name: e.g. "CIFAR-10" or "shapes10"; the name of a modified copy says so.
        archive_sha256: SHA-256 of the archive, 64 hexadecimal digits.
        classes: class names in the order of the labels.
        mean, std: of each channel over all pixels of the train split, in grey levels of 0..255.
        train_images: size of the train split.
    """

    name: str
    archive_sha256: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train_images: int

    @classmethod
    def parse(cls, content: Any) -> "Metadata":
        """Return the metadata from `vars` of it after a JSON round trip.

        Raises:
            KeyError, TypeError: a field is missing or has another type.
        """
        return cls(
            name=content["name"],
            archive_sha256=content["archive_sha256"],
            classes=tuple(content["classes"]),
            mean=tuple(content["mean"]),
            std=tuple(content["std"]),
            train_images=content["train_images"],
        )


@dataclass(frozen=True)
class Dataset:
    """The loaded splits and the metadata of the dataset."""

    metadata: Metadata
    splits: dict[str, Split]

    def __getitem__(self, split: str) -> Split:
        return self.splits[split]


def stratified_split(labels: Labels, val_images: int, seed: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Split off validation images, stratified by class to within one image.

    Args:
        labels: (N,) uint8 of the whole training set.
        val_images: size of the validation split, below N.
        seed: the same seed, labels and size give the same split.

    Returns:
        Indices of the train and of the val images, each in ascending order.
    """
    classes, counts = np.unique(labels, return_counts=True)
    exact = counts * val_images / len(labels)
    quota = np.floor(exact).astype(int)
    # Largest remainders, so that the sizes add up to val_images; a stable sort makes ties reproducible.
    quota[np.argsort(quota - exact, kind="stable")[: val_images - quota.sum()]] += 1
    # One generator per class: the PCG64 stream is the same in all numpy releases, shuffle()'s use of it may not be.
    chosen = []
    for label, size in zip(classes, quota, strict=True):
        members = np.flatnonzero(labels == label)
        keys = np.random.PCG64([seed, int(label)]).random_raw(len(members))
        chosen.append(members[np.argsort(keys, kind="stable")[:size]])
    val = np.sort(np.concatenate(chosen))
    return np.setdiff1d(np.arange(len(labels)), val), val


def share_of(images: int, share: float) -> int:
    """Return the number of images to train on, for a `data.train_share` in 0..1 of the images left by validation."""
    return round(share * images)


def stratified_subset(labels: Labels, images: int, seed: int) -> npt.NDArray[np.intp]:
    """Choose a stratified subset; smaller subsets of the same labels and seed are contained in larger ones.

    Args:
        labels: (N,) uint8.
        images: size of the subset, at most N.
        seed: the same seed, labels and size give the same subset.

    Returns:
        Indices of the chosen images in ascending order. Classes of equal size differ by at most one image.

    Raises:
        DatasetError: a class has no image in the subset.
    """
    classes, counts = np.unique(labels, return_counts=True)
    rank = np.empty(len(labels))
    for label, count in zip(classes, counts, strict=True):
        # The 1 selects another stream than that of the split (a 0 would not).
        keys = np.random.PCG64([seed, int(label), 1]).random_raw(count)
        rank[np.flatnonzero(labels == label)[np.argsort(keys, kind="stable")]] = (np.arange(count) + 0.5) / count
    # Every prefix of this order is stratified, so that subsets are nested.
    chosen = np.sort(np.argsort(rank, kind="stable")[:images])
    absent = np.setdiff1d(classes, labels[chosen])
    if len(absent):
        raise DatasetError(
            f"data.train_share: found {images} of {len(labels)} training images, none of class "
            f"{absent[0]}; expected at least one of each class; increase it"
        )
    return chosen


def first_of_each_class(split: Split, images: int) -> Split:
    """Return the first images of each class, the same number of each: `images` in total, fewer if a class has too few.

    Args:
        images: at least the number of classes; rounded down to a multiple of it.
    """
    chosen = first_indices(split.labels, images)
    return Split(split.images[chosen], split.labels[chosen])


def first_indices(labels: Labels, images: int) -> npt.NDArray[np.int64]:
    """Return the ascending indices of the images that `first_of_each_class` returns."""
    classes, counts = np.unique(labels, return_counts=True)
    each = min(images // len(classes), counts.min())
    return np.sort(np.concatenate([np.flatnonzero(labels == label)[:each] for label in classes]))


def channel_statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the exact mean and standard deviation of each channel in grey levels (0..255).

    Sums are 64-bit integers from histograms; only the last division is in floating point. (A float32 mean over
    CIFAR-10's 51 million pixels per channel saturates and is wrong in the first digit.)

    Args:
        images: (N, 32, 32, 3) uint8, N > 0.
    """
    channels = images.shape[-1]
    levels = np.arange(256, dtype=np.int64)
    pixels = images.reshape(-1, channels)
    histograms = np.zeros((channels, 256), np.int64)
    for start in range(0, len(pixels), _PIXELS_IN_CACHE):  # three times as fast as one pass
        part = pixels[start : start + _PIXELS_IN_CACHE]
        histograms += [np.bincount(part[:, channel], minlength=256) for channel in range(channels)]
    mean, std = [], []
    for histogram in histograms:
        count, total = int(histogram.sum()), int(histogram @ levels)
        squares = int(histogram @ levels**2)
        mean.append(total / count)
        std.append(float(np.sqrt((count * squares - total * total) / count**2)))  # Python integers: no overflow
    return tuple(mean), tuple(std)


def duplicates(splits: dict[str, Split]) -> dict[str, int]:
    """Count images of a later split that are also in an earlier one, byte for byte.

    Returns:
        `{"train-val": n, "train-test": n, "val-test": n}`: how many images of the second are in the first.
    """
    digests = {name: [hashlib.sha256(image).digest() for image in split.images] for name, split in splits.items()}
    pairs = [(a, b) for i, a in enumerate(splits) for b in list(splits)[i + 1 :]]
    return {f"{a}-{b}": sum(digest in seen for digest in digests[b]) for a, b in pairs for seen in [set(digests[a])]}


def describe(metadata: Metadata, splits: dict[str, Split]) -> dict[str, Any]:
    """Return the metrics of a dataset: counts, channel statistics, duplicates across splits."""
    result: dict[str, Any] = {"data/name": metadata.name, "data/archive_sha256": metadata.archive_sha256}
    for name, split in splits.items():
        result[f"data/{name}_images"] = len(split)
    for channel, mean, std in zip(("red", "green", "blue"), metadata.mean, metadata.std, strict=True):
        result |= {f"data/mean_{channel}": mean, f"data/std_{channel}": std}
    return result | {f"data/duplicates_{pair}": count for pair, count in duplicates(splits).items()}


def save(folder: Path, dataset: Dataset) -> None:
    """Write `metadata.json` and `{split}_images.npy`, `{split}_labels.npy` for every split."""
    for name, split in dataset.splits.items():
        for kind, array in (("images", split.images), ("labels", split.labels)):
            with files.atomic(folder / f"{name}_{kind}.npy") as temporary, temporary.open("wb") as file:
                np.save(file, array, allow_pickle=False)
    files.write_json(folder / "metadata.json", vars(dataset.metadata))


def load(folder: Path, *splits: str) -> Dataset:
    """Read the named splits of a processed dataset.

    Raises:
        DatasetError: a file is missing or invalid, or images and labels don't match.
    """
    return Dataset(load_metadata(folder), {name: _load_split(folder, name) for name in splits})


def load_metadata(folder: Path) -> Metadata:
    """Read the metadata of a processed dataset.

    Raises:
        DatasetError: the file is missing or invalid.
    """
    path = folder / "metadata.json"
    try:
        return Metadata.parse(files.read_json(path))
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file; run dvc repro preprocess") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path}: not a dataset's metadata ({error!r}); run dvc repro -f preprocess") from None


def _load_split(folder: Path, name: str) -> Split:
    images = _load_array(folder / f"{name}_images.npy", 4)
    labels = _load_array(folder / f"{name}_labels.npy", 1)
    if len(images) != len(labels):
        raise DatasetError(
            f"{folder}: expected as many {name} labels as images ({len(images)}), found {len(labels)}; "
            "run dvc repro -f preprocess"
        )
    return Split(images, labels)


def _load_array(path: Path, dimensions: int) -> Any:
    try:
        with path.open("rb") as file:  # np.load would also open zip files, whatever their name
            array = np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file; run dvc repro preprocess") from None
    except (ValueError, EOFError, OSError) as error:
        raise DatasetError(f"{path}: not a complete .npy file ({error}); run dvc repro -f preprocess") from None
    if array.dtype != np.uint8 or array.ndim != dimensions:
        raise DatasetError(
            f"{path}: expected a uint8 array of {dimensions} dimensions, found {array.dtype} of {array.ndim}; "
            "run dvc repro -f preprocess"
        )
    return array
