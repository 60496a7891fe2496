"""Batches: every image once an epoch, with its own label, in an order that depends on seed and epoch alone."""

import numpy as np
import pytest
import torch

from pipeline.config.schema import AugmentParams
from pipeline.data.dataset import Split
from pipeline.data.loader import TrainLoader, batches, resize

OFF = AugmentParams(flip="none", translate=0, cutout=0, brightness=0.0, contrast=0.0)
ON = AugmentParams(flip="random", translate=3, cutout=9, brightness=0.2, contrast=0.3)
MEAN = (120.4, 99.6, 30.0)


def numbered(count: int) -> Split:
    """Random images whose first pixel is their number and whose label is its last digit."""
    images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.arange(count) % 256, np.arange(count) // 256
    return Split(images, (np.arange(count) % 10).astype(np.uint8))


def loader(
    count: int, params: AugmentParams = OFF, *, batch_size: int = 32, seed: int = 0, hardest: float = 1.0
) -> TrainLoader:
    device = torch.device("cpu")
    return TrainLoader(
        numbered(count), params, batch_size=batch_size, seed=seed, device=device, mean=MEAN, hardest=hardest
    )


def order(loader: TrainLoader, epoch: int) -> list[int]:
    """The numbers of an epoch's images, in the order in which they are fed."""
    return [
        int(n) for images, _ in loader.epoch(epoch) for n in images[:, 0, 0, 0].int() + 256 * images[:, 1, 0, 0].int()
    ]


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"), [(300, 100, {100}), (301, 100, {75, 76}), (9, 9, {9}), (7, 3, {2, 3})]
)
def test_every_image_comes_once_an_epoch_in_batches_of_nearly_one_size(count, batch_size, sizes):
    """None is dropped, none comes twice, and no batch is larger than asked for."""
    train = loader(count, batch_size=batch_size)
    assert sorted(order(train, 0)) == list(range(count))
    found = [len(labels) for _, labels in train.epoch(0)]
    assert set(found) == sizes
    assert len(found) == train.steps(0) == train.steps(1) == -(-count // batch_size)


def test_later_epochs_are_the_hardest_images_if_so_asked():
    """A share of 0.3 of 100: the 30 of highest loss when last seen, in an order of the seed's."""
    train = loader(100, hardest=0.3)
    assert sorted(order(train, 0)) == list(range(100))
    train.losses.copy_(torch.arange(100).float().roll(7))
    hardest = train.losses.topk(30).indices.tolist()
    assert sorted(order(train, 1)) == sorted(hardest)
    assert order(train, 1) == order(train, 1) != order(train, 2)
    assert (train.steps(0), train.steps(1), train.count(1), train.steps_before(3)) == (4, 1, 30, 6)


def test_images_never_seen_count_as_hardest():
    """An infinite loss."""
    train = loader(10, hardest=0.5)
    train.losses[:5] = 3.0
    assert sorted(order(train, 1)) == [5, 6, 7, 8, 9]


def test_smaller_images_are_averages_of_what_they_cover():
    """Half the side of a picture of one colour a 2x2 square: in the middle of each, that colour."""
    colours = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    images = torch.from_numpy(colours.repeat(4, axis=1).repeat(4, axis=2)).permute(0, 3, 1, 2)
    small = resize(images, 16)
    assert small.shape == (4, 3, 16, 16)
    assert small.dtype == torch.uint8
    assert torch.equal(resize(images, 32), images)
    reference = torch.nn.functional.interpolate(images.double(), (16, 16), mode="bilinear", antialias=True)
    assert (small.double() - reference).abs().max() <= 1.0


def test_an_epoch_can_be_fed_at_another_side():
    """Each as large as asked for, the next as on disk again."""
    train = loader(20)
    assert {images.shape[2:] for images, _ in train.epoch(0, 24)} == {(24, 24)}
    assert {images.shape[2:] for images, _ in train.epoch(0)} == {(32, 32)}


def test_labels_stay_with_their_images():
    """Shuffling moves both alike."""
    for images, labels in loader(300).epoch(2):
        numbers = images[:, 0, 0, 0].int() + 256 * images[:, 1, 0, 0].int()
        assert torch.equal(labels, numbers % 10)
        assert labels.dtype == torch.int64


def test_without_augmentation_images_are_those_on_disk():
    """Bit for bit, with the channels moved to where networks expect them."""
    split = numbered(100)
    for images, _ in loader(100).epoch(0):
        assert images.dtype == torch.uint8
        assert images.shape[1:] == (3, 32, 32)
        for image in images:
            original = split.images[int(image[0, 0, 0])]
            assert np.array_equal(image.numpy(), original.transpose(2, 0, 1))


def test_order_depends_on_seed_and_epoch_alone():
    """A resumed training goes on with any epoch without having seen those before."""
    first = order(loader(300), 3)
    train = loader(300)
    list(train.epoch(0))
    assert order(train, 3) == first
    assert order(train, 3) == first
    assert order(train, 4) != first
    assert order(loader(300, seed=1), 3) != first
    assert first != sorted(first)


def test_preview_is_what_an_epoch_feeds():
    """preprocess draws the very images that training will see."""
    train = loader(120, ON)
    for epoch in range(2):
        shown = {image.numpy().tobytes() for image in train.preview(epoch, torch.arange(120))}
        fed = [
            image.permute(1, 2, 0).contiguous().numpy().tobytes()
            for images, _ in train.epoch(epoch)
            for image in images
        ]
        assert set(fed) == shown
        assert len(shown) == len(fed) == 120


def test_preview_follows_its_indices():
    """The preview of image 7 is that of image 7, whatever else is asked for."""
    train = loader(50, ON)
    every = train.preview(1, torch.arange(50))
    assert torch.equal(train.preview(1, torch.tensor([7, 3])), every[[7, 3]])


def test_epochs_differ_in_their_augmentation():
    """The same image is fed differently in the next epoch."""
    train = loader(50, ON)
    one, two = (train.preview(epoch, torch.arange(50)) for epoch in range(2))
    assert (one != two).flatten(1).any(1).float().mean() > 0.9


def test_erased_squares_have_the_mean_colour():
    """Rounded to whole grey levels."""
    train = loader(20, OFF.model_copy(update={"cutout": 32}))
    pixels = train.preview(0, torch.arange(20)).reshape(20, -1, 3)
    assert ((pixels == torch.tensor([120, 100, 30], dtype=torch.uint8)).all(2).float().mean(1) > 0.2).all()


@pytest.mark.parametrize("params", [OFF, ON])
def test_batches_are_channels_last_in_memory(params):
    """What convolutions are fastest on; the permutation costs nothing."""
    for images, _ in loader(100, params).epoch(0):
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert images.stride() == (3072, 1, 96, 3)


def test_evaluation_batches_come_in_order_and_drop_nothing(cpu):
    """The last one is smaller."""
    split = numbered(25)
    out = list(batches(split, batch_size=10, device=cpu))
    assert [len(labels) for _, labels in out] == [10, 10, 5]
    assert torch.equal(torch.cat([labels for _, labels in out]), torch.from_numpy(split.labels).long())
    assert np.array_equal(torch.cat([images for images, _ in out]).permute(0, 2, 3, 1).numpy(), split.images)
    assert all(images.dtype == torch.uint8 and images.stride() == (3072, 1, 96, 3) for images, _ in out)
