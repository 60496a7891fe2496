"""shapes10: the same bytes everywhere, CIFAR-10's layout, balanced classes told apart by shape alone."""

import gzip
import hashlib
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from pipeline.archives import shapes10, stencils

PINNED = "24f7c32b2028e7d1164713b29b5e0a940528ed98873ae4875f0d53d9c6380e8f"


def archive(path: Path, *, train_images: int = 53, test_images: int = 17, noise: float = 15.0, seed: int = 7) -> Path:
    shapes10.write_archive(path, train_images=train_images, test_images=test_images, noise=noise, seed=seed)
    return path


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path, "r:gz") as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def test_archive_has_the_layout_of_cifar10s_binary_edition(tmp_path):
    """Meta file, five training batches split as np.array_split does, one test batch, 3073-byte records."""
    files = members(archive(tmp_path / "a.tar.gz"))
    folder = "cifar-10-batches-bin"
    batches = [f"{folder}/data_batch_{i}.bin" for i in range(1, 6)]
    assert list(files) == [f"{folder}/batches.meta.txt", *batches, f"{folder}/test_batch.bin"]
    assert files[f"{folder}/batches.meta.txt"].decode().splitlines() == list(shapes10.CLASSES)
    expected = [len(part) * 3073 for part in np.array_split(np.arange(53), 5)]
    assert [len(files[name]) for name in batches] == expected
    assert len(files[f"{folder}/test_batch.bin"]) == 17 * 3073


def test_classes_are_balanced_and_shuffled_over_the_whole_training_set(tmp_path):
    """Class counts differ by at most one within a set, also where 10 and 5 do not divide its size."""
    files = members(archive(tmp_path / "a.tar.gz", train_images=1234, test_images=123))
    labels = {
        name[21:]: np.frombuffer(data, np.uint8)[::3073] for name, data in files.items() if name.endswith(".bin")
    }
    test = next(labels.pop(name) for name in list(labels) if name.startswith("test"))
    for split in (np.concatenate(list(labels.values())), test):
        counts = np.bincount(split, minlength=10)
        assert len(counts) == 10
        assert counts.max() - counts.min() <= 1
        assert np.abs(np.diff(split.astype(int))).mean() > 2  # sorted labels would give nearly 0, independent ones 3.3


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path):
    """An archive is a function of its arguments alone: no clock, path or user name gets in."""
    first = archive(tmp_path / "a.tar.gz").read_bytes()
    assert archive(tmp_path / "other name.tar.gz").read_bytes() == first
    assert archive(tmp_path / "a.tar.gz", seed=8).read_bytes() != first


def test_archive_is_bit_identical_on_every_machine(tmp_path):
    """The pinned hash fails where a machine or a version of numpy or zlib changes a byte."""
    assert hashlib.sha256(archive(tmp_path / "a.tar.gz").read_bytes()).hexdigest() == PINNED


def test_images_do_not_depend_on_the_chunk_size(monkeypatch):
    """How many images are drawn at once is a matter of speed only."""
    whole = shapes10.generate(50, seed=3, noise=10, stream=1)
    monkeypatch.setattr(shapes10, "_CHUNK", 7)
    assert np.array_equal(shapes10.generate(50, seed=3, noise=10, stream=1), whole)


def test_train_and_test_images_are_disjoint(tmp_path):
    """No image occurs twice, in one batch or in two, even without noise to make copies differ."""
    files = members(archive(tmp_path / "a.tar.gz", train_images=500, test_images=200, noise=0))
    data = b"".join(content for name, content in files.items() if name.endswith(".bin"))
    images = np.frombuffer(data, np.uint8).reshape(700, 3073)[:, 1:]
    assert len(np.unique(images, axis=0)) == 700


def test_mean_colour_does_not_give_the_class_away():
    """The nearest class mean, of mean colours or of pixels, is hardly better than chance."""
    train, test = (shapes10.generate(3000, seed=0, noise=15, stream=stream) for stream in (1, 0))
    for features in (channel_means, lambda records: records[:, 1:].astype(np.float64)):
        x, y = features(train), train[:, 0]
        centres = np.stack([x[y == label].mean(axis=0) for label in range(10)])
        distances = ((features(test)[:, None] - centres) ** 2).sum(axis=2)
        assert (distances.argmin(axis=1) == test[:, 0]).mean() < 0.16  # chance is 0.1


def channel_means(records):
    return records[:, 1:].reshape(-1, 3, 1024).mean(axis=2)


def test_noise_has_the_standard_deviation_asked_for_over_unchanged_scenes():
    """The difference from the same scenes without noise has mean 0 and the standard deviation given."""
    clean, noisy = (shapes10.generate(300, seed=1, noise=noise, stream=1)[:, 1:].astype(int) for noise in (0, 8))
    unclipped = (clean > 40) & (clean < 215)
    difference = (noisy - clean)[unclipped]
    assert abs(difference.mean()) < 0.1
    assert difference.std() == pytest.approx(8, rel=0.02)


def test_every_class_has_its_own_outline_also_when_turned_or_flipped():
    """No quarter turn or mirror image of one class's stencil nearly coincides with another's."""
    covers = stencils.stencils()[:10].astype(int)
    for i, one in enumerate(covers):
        assert 0.08 < one.mean() / 128 < 0.6
        flips = [turned for k in range(4) for turned in (np.rot90(one, k), np.rot90(one, k).T)]
        for other in covers[i + 1 :]:
            overlap = max(np.minimum(flip, other).sum() / np.maximum(flip, other).sum() for flip in flips)
            assert overlap < 0.9


@pytest.mark.parametrize("name", shapes10.CLASSES)
def test_a_horizontal_flip_keeps_the_class(name):
    """Each outline is its own mirror image, so that augmentation may flip images."""
    stencil = stencils.stencils()[shapes10.CLASSES.index(name)].astype(int)
    assert np.abs(stencil - stencil[:, ::-1]).mean() < 1


def test_container_is_stored_blocks_that_zlib_and_gzip_read(tmp_path):
    """Every deflate block is of the stored kind, so that no compressor's version can show."""
    data = archive(tmp_path / "a.tar.gz").read_bytes()
    assert data[:10] == bytes([31, 139, 8, 0, 0, 0, 0, 0, 0, 255])
    content, at, final = b"", 10, 0
    while not final:
        final, length, inverse = struct.unpack_from("<BHH", data, at)
        assert final in (0, 1)
        assert length == inverse ^ 0xFFFF
        content += data[at + 5 : at + 5 + length]
        at += 5 + length
    assert struct.unpack("<II", data[at:]) == (zlib.crc32(content), len(content))
    assert gzip.decompress(data) == zlib.decompress(data, wbits=31) == content
    assert len(content) > 2 * 65535  # several blocks were needed


def test_progress_counts_every_image(tmp_path):
    """The callback's counts add up to the archive's images, for a progress bar's update()."""
    counts: list[int] = []
    path = tmp_path / "a.tar.gz"
    shapes10.write_archive(path, train_images=700, test_images=9, noise=1, seed=0, progress=counts.append)
    assert sum(counts) == 709
    assert len(counts) > 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"noise": -1.0},
        {"noise": 129.0},
        {"noise": float("nan")},
        {"seed": -1},
        {"images": -1},
        {"stream": -1},
    ],
)
def test_values_out_of_range_are_refused(wrong):
    """A value out of range raises ValueError, whose message names it."""
    arguments = {"images": 1, "seed": 0, "noise": 1.0, "stream": 1} | wrong
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}={next(iter(wrong.values()))}"):
        shapes10.generate(**arguments)
