"""The processed dataset: a stratified split, exact statistics, duplicates, and files that are checked when read."""

import itertools
import json
import math
import pickle  # noqa: TID251  # to see it refused
import shutil
from fractions import Fraction

import numpy as np
import pytest

import stages.preprocess
from pipeline import files
from pipeline.data import dataset
from pipeline.errors import DatasetError
from tests.conftest import SMALL, write_params

PINNED_VAL = [2, 7, 28, 30, 38, 54, 71, 83, 85, 93, 101, 106, 110, 117, 124, 136, 142, 159, 169, 195]
PINNED_SUBSET = [3, 17, 38, 43, 60, 70, 75, 79, 84, 86, 92, 118, 119, 136, 155, 162, 164, 171, 181, 187]
LABELS = np.random.default_rng(0).choice(10, 1003, p=np.arange(1, 11) / 55).astype(np.uint8)


@pytest.mark.parametrize("val_images", [10, 100, 333, 992])
def test_split_is_complete_disjoint_and_of_the_size_asked_for(val_images):
    """Every training image is in exactly one part, each part in ascending order."""
    train, val = dataset.stratified_split(LABELS, val_images, seed=0)
    assert len(val) == val_images
    assert np.array_equal(np.sort(np.concatenate([train, val])), np.arange(len(LABELS)))
    assert (np.diff(train) > 0).all()
    assert (np.diff(val) > 0).all()


@pytest.mark.parametrize("val_images", [10, 100, 333, 992])
def test_every_class_has_its_share_of_the_validation_images(val_images):
    """Also where classes are of very different size, each gets its exact share to within one image."""
    _, val = dataset.stratified_split(LABELS, val_images, seed=0)
    exact = np.bincount(LABELS) * val_images / len(LABELS)
    assert (np.abs(np.bincount(LABELS[val], minlength=10) - exact) < 1).all()


@pytest.mark.parametrize(("images", "each"), [(3, 1), (10, 3), (1000, 4)])
def test_the_first_images_of_each_class_are_equally_many(images, each):
    """Of three classes of 9, 4 and 7 images; where one has too few, it decides for all."""
    labels = np.array([2, 0, 0, 1, 2, 2, 0, 0, 0, 1, 2, 0, 1, 0, 2, 1, 2, 2, 0, 0], np.uint8)
    images_of = np.arange(20, dtype=np.uint8).reshape(20, 1, 1, 1)
    chosen = dataset.first_of_each_class(dataset.Split(images_of, labels), images)
    expected = sorted(index for label in range(3) for index in np.flatnonzero(labels == label)[:each])
    assert chosen.images.ravel().tolist() == expected
    assert chosen.labels.tolist() == labels[expected].tolist()


def test_balanced_classes_are_split_equally():
    """What CIFAR-10 is: equally many of each class."""
    labels = np.tile(np.arange(10, dtype=np.uint8), 100)
    _, val = dataset.stratified_split(labels, 50, seed=3)
    assert np.bincount(labels[val]).tolist() == [5] * 10


def test_split_is_a_function_of_the_seed():
    """The same seed gives the same images, another seed others: hardly more in common than chance."""
    one, same, other = (dataset.stratified_split(LABELS, 100, seed)[1] for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert len(np.intersect1d(one, other)) < 30  # 10 are expected


def test_split_of_a_seed_never_changes():
    """Pinned, as a new release of numpy must not change silently which images validate."""
    _, val = dataset.stratified_split(np.arange(200).astype(np.uint8) % 10, 20, seed=0)
    assert val.tolist() == PINNED_VAL


@pytest.mark.parametrize("labels", [LABELS, np.arange(1000).astype(np.uint8) % 10], ids=["unequal", "equal"])
def test_smaller_subsets_are_in_larger_ones_and_every_class_has_its_share(labels):
    """Of any two sizes; the whole is the whole."""
    sizes = [60, 61, 100, 333, 500, len(labels)]
    subsets = [dataset.stratified_subset(labels, size, seed=0) for size in sizes]
    for size, chosen in zip(sizes, subsets, strict=True):
        assert len(chosen) == size
        assert (np.diff(chosen) > 0).all()
        exact = np.bincount(labels) * size / len(labels)
        assert (np.abs(np.bincount(labels[chosen]) - exact) < 1).all()
    for smaller, larger in itertools.pairwise(subsets):
        assert np.isin(smaller, larger).all()
    assert np.array_equal(subsets[-1], np.arange(len(labels)))


def test_subset_is_a_function_of_the_seed_and_has_nothing_to_do_with_the_split():
    """The same seed gives the same images; those that would validate are as frequent among them as any others."""
    labels = np.arange(1000).astype(np.uint8) % 10
    one, same, other = (dataset.stratified_subset(labels, 200, seed) for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert 20 < len(np.intersect1d(one, other)) < 60  # 40 are expected
    _, val = dataset.stratified_split(labels, 200, seed=0)
    assert 20 < len(np.intersect1d(one, val)) < 60


def test_subset_of_a_seed_never_changes():
    """Pinned, as the images of a share are what results are compared on."""
    chosen = dataset.stratified_subset(np.arange(200).astype(np.uint8) % 10, 20, seed=0)
    assert chosen.tolist() == PINNED_SUBSET


def test_a_subset_without_a_class_is_refused():
    """Class 0 is a 55th of the images: the message names it."""
    with pytest.raises(DatasetError, match=r"data.train_share: found 10 of 1003 training images, none of"):
        dataset.stratified_subset(LABELS, 10, seed=0)


def preprocess(folder, archive, **changes) -> dataset.Dataset:
    """What the preprocess stage leaves of the small archive."""
    changes = {f"data.{key}": value for key, value in changes.items()}
    settings = write_params(folder / "params.yaml", SMALL | {"train.batch_size": 10} | changes)
    out = folder / f"share-{changes['data.train_share']}"
    others = {"preview": "preview.png", "details": "details.json", "runtime": "runtime.json"}
    stages.preprocess.main(settings, archive, out, **{key: folder / name for key, name in others.items()})
    return dataset.load(out, *dataset.SPLITS)


def test_a_share_of_the_training_images_leaves_validation_and_test_as_they_were(tmp_path, archive):
    """Equally many of each class; statistics and counts are of what is used; all images are those of the whole."""
    whole, part = (preprocess(tmp_path, archive, train_share=share) for share in (1.0, 0.1))
    assert (whole.metadata.train_images, part.metadata.train_images) == (500, 50)
    assert np.bincount(part["train"].labels).tolist() == [5] * 10
    for name in ("val", "test"):
        assert np.array_equal(part[name].images, whole[name].images)
        assert np.array_equal(part[name].labels, whole[name].labels)
    stored = {
        (image.tobytes(), label) for image, label in zip(whole["train"].images, whole["train"].labels, strict=True)
    }
    assert {(image.tobytes(), label) for image, label in zip(*vars(part["train"]).values(), strict=True)} < stored
    assert part.metadata.mean == dataset.channel_statistics(part["train"].images)[0] != whole.metadata.mean
    assert files.read_row(tmp_path / "details.json")["data/train_images"] == 50


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (3, 5, 4, 3), (2, 32, 32, 3)])
def test_statistics_are_exact(shape):
    """They equal the correctly rounded result of exact rational arithmetic."""
    images = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    mean, std = dataset.channel_statistics(images)
    for channel in range(3):
        values = [int(value) for value in images[..., channel].ravel()]
        expected = Fraction(sum(values), len(values))
        variance = Fraction(sum(value**2 for value in values), len(values)) - expected**2
        assert mean[channel] == float(expected)
        assert std[channel] == math.sqrt(variance)


def test_statistics_are_right_where_float32_sums_saturate():
    """Ones added up in float32 stop at 2^24 = 16,777,216; a channel here has 18,000,000 pixels."""
    images = np.ones((18, 1000, 1000, 3), np.uint8)
    images[0, 0, :9, 0] = 2
    assert np.cumsum(images[..., 1], dtype=np.float32)[-1] == 2**24  # what is guarded against
    mean, std = dataset.channel_statistics(images)
    assert mean == (1 + 9 / 18e6, 1.0, 1.0)
    assert std[0] == pytest.approx(math.sqrt(9 / 18e6 * (1 - 9 / 18e6)), rel=1e-15)
    assert std[1:] == (0.0, 0.0)


def test_duplicates_are_counted_across_splits_only():
    """An image twice within one split is none; the labels do not matter; one changed pixel is another image."""
    images = np.random.default_rng(2).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    almost = images[0].copy()
    almost[31, 31, 2] ^= 1

    def split(*chosen):
        return dataset.Split(np.stack(chosen), np.arange(len(chosen), dtype=np.uint8))

    splits = {
        "train": split(images[0], images[1], images[1]),
        "val": split(images[2], images[0], almost),
        "test": split(images[1], images[1], images[0], images[2], images[3]),
    }
    assert dataset.duplicates(splits) == {"train-val": 1, "train-test": 3, "val-test": 2}


def test_description_has_sizes_statistics_and_duplicates(data):
    """The content of metrics/details/preprocess.json, under readable names."""
    described = dataset.describe(data.metadata, data.splits)
    assert [described[f"data/{split}_images"] for split in dataset.SPLITS] == [500, 100, 1000]
    assert (described["data/name"], described["data/archive_sha256"]) == ("shapes10", data.metadata.archive_sha256)
    assert described["data/mean_green"] == data.metadata.mean[1]
    assert described["data/std_blue"] == data.metadata.std[2]
    assert described["data/duplicates_train-test"] == 0


def test_what_is_saved_is_loaded(tmp_path, data):
    """Arrays and metadata come back as they were, floats to the last bit; saving again gives the same bytes."""
    for folder in ("one", "two"):
        dataset.save(tmp_path / folder, data)
    loaded = dataset.load(tmp_path / "one", "train", "test")
    assert loaded.metadata == data.metadata
    assert list(loaded.splits) == ["train", "test"]
    for name, split in loaded.splits.items():
        assert np.array_equal(split.images, data[name].images)
        assert np.array_equal(split.labels, data[name].labels)
        assert split.images.dtype == split.labels.dtype == np.uint8
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(names) == 7
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.fixture
def folder(tmp_path, processed):
    """A copy of the processed arrays that a test may damage."""
    return shutil.copytree(processed, tmp_path / "processed")


def complaint(folder, *splits):
    with pytest.raises(DatasetError) as caught:
        dataset.load(folder, *(splits or dataset.SPLITS))
    assert "run dvc repro" in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["metadata.json", "val_images.npy", "test_labels.npy"])
def test_a_missing_file_is_named(folder, name):
    """The message says which file and which command makes it."""
    (folder / name).unlink()
    assert f"{folder / name}: no such file; run dvc repro preprocess" in complaint(folder)


def test_a_split_that_was_not_asked_for_need_not_be_there(folder):
    """Training never touches the test set."""
    (folder / "test_images.npy").unlink()
    assert len(dataset.load(folder, "train", "val")["val"]) == 100


@pytest.mark.parametrize("size", [0, 5, 100, 10_000])
def test_an_array_that_was_cut_short_is_refused(folder, size):
    """Cut within the magic string, the header, or the pixels."""
    path = folder / "train_images.npy"
    path.write_bytes(path.read_bytes()[:size])
    assert f"{path}: not a complete .npy file" in complaint(folder)


class Trap:
    """What a malicious pickle does when it is loaded."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was loaded",)


def test_a_pickle_is_refused_and_not_run(folder):
    """Neither an array of objects nor a bare pickle under an array's name gets to run code."""
    path = folder / "train_labels.npy"
    np.save(path, np.array([Trap()], dtype=object), allow_pickle=True)
    assert f"{path}: not a complete .npy file (Object arrays cannot be loaded" in complaint(folder)
    path.write_bytes(pickle.dumps(Trap()))
    assert f"{path}: not a complete .npy file" in complaint(folder)


def test_an_archive_of_arrays_is_refused(folder):
    """np.load would open a zip file under any name."""
    path = folder / "train_labels.npy"
    with path.open("wb") as file:
        np.savez(file, labels=np.zeros(500, np.uint8))
    assert f"{path}: not a complete .npy file" in complaint(folder)


@pytest.mark.parametrize(
    ("name", "array", "expected"),
    [
        ("train_images", np.zeros((500, 32, 32, 3), np.float32), "a uint8 array of 4 dimensions, found float32 of 4"),
        ("train_images", np.zeros((500, 3072), np.uint8), "a uint8 array of 4 dimensions, found uint8 of 2"),
        ("val_labels", np.zeros(100, np.int64), "a uint8 array of 1 dimensions, found int64 of 1"),
    ],
)
def test_an_array_of_another_kind_is_refused(folder, name, array, expected):
    """Floats would be normalised as if they were grey levels."""
    np.save(folder / f"{name}.npy", array)
    assert f"{folder / name}.npy: expected {expected}" in complaint(folder)


def test_labels_that_do_not_belong_to_the_images_are_refused(folder):
    """As many labels as images, in every split."""
    np.save(folder / "val_labels.npy", np.zeros(99, np.uint8))
    assert "expected as many val labels as images (100), found 99" in complaint(folder)


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "{}", '{"classes": 3, "mean": [], "std": []}', "\xff"])
def test_nonsense_metadata_is_refused(folder, text):
    """Whatever the file holds, it is one line that names it."""
    (folder / "metadata.json").write_text(text, encoding="latin-1")
    assert f"{folder / 'metadata.json'}: not a dataset's metadata" in complaint(folder)


def test_metadata_survives_json(data):
    """parse() is the inverse of vars() and JSON."""
    written = json.loads(json.dumps(vars(data.metadata)))
    assert dataset.Metadata.parse(written) == data.metadata
