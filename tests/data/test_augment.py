"""Augmentation: held against a slow reference, pixel by pixel, and against torchvision."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as vision

from pipeline.config.schema import AugmentParams
from pipeline.data import augment

OFF = {"flip": "none", "translate": 0, "cutout": 0, "brightness": 0.0, "contrast": 0.0}
FILL = torch.tensor([120, 7, 255], dtype=torch.uint8)


def settings(**changes) -> AugmentParams:
    return AugmentParams(**(OFF | changes))


def pictures(count: int, height: int = 32, width: int = 32) -> torch.Tensor:
    """Random (N, H, W, 3) uint8: no two pixels alike in position and colour."""
    rng = np.random.default_rng(count + height + width)
    return torch.from_numpy(rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8))


def mirrored(index: int, size: int) -> int:
    """The pixel that a mirror standing on the edge pixels shows at `index`: -1 is 1, size is size - 2."""
    while not 0 <= index < size:
        index = -index if index < 0 else 2 * (size - 1) - index
    return index


def reference(params: AugmentParams, image: np.ndarray, decision: augment.Decisions) -> np.ndarray:
    """What is to come out for one image, before rounding: (H, W, 3) float64, one pixel at a time."""
    height, width, _ = image.shape
    down, right = decision.shift.tolist()
    moved = np.zeros(image.shape)
    for y in range(height):
        for x in range(width):
            source_y, source_x = mirrored(y - down, height), mirrored(x - right, width)
            moved[y, x] = image[source_y, width - 1 - source_x if decision.flip else source_x]
    mean = moved.sum() / moved.size
    coloured = mean + (moved - mean) * float(decision.contrast) + 255 * float(decision.brightness)
    coloured = np.minimum(np.maximum(coloured, 0), 255)
    top, left = decision.cutout.tolist()
    for y in range(max(top, 0), min(top + params.cutout, height)):
        for x in range(max(left, 0), min(left + params.cutout, width)):
            coloured[y, x] = FILL.numpy()
    return coloured


@pytest.mark.parametrize(
    "changes",
    [
        {"flip": "random"},
        {"flip": "alternating"},
        {"translate": 5},
        {"translate": 16},
        {"cutout": 8},
        {"cutout": 7},
        {"cutout": 32},
        {"brightness": 0.4},
        {"contrast": 0.6},
        {"brightness": 1.0, "contrast": 1.0},
        {"flip": "random", "translate": 4, "cutout": 9, "brightness": 0.3, "contrast": 0.5},
    ],
    ids=lambda changes: "+".join(changes),
)
def test_each_augmentation_alone_and_all_together_equal_the_slow_reference(changes):
    """Every pixel is the reference's, rounded; half a grey level is what rounding may move it."""
    params = settings(**changes)
    images = pictures(12)
    for epoch in range(2):
        decisions = augment.draw(params, 12, 32, seed=5, epoch=epoch)
        out = augment.apply(params, images, decisions, FILL)
        assert out.dtype == torch.uint8
        assert out.shape == images.shape
        for i in range(12):
            wanted = reference(params, images[i].numpy(), decisions[i])
            assert np.abs(out[i].numpy() - wanted).max() <= 0.5 + 1e-3
            assert changes.keys() & {"brightness", "contrast"} or np.array_equal(out[i].numpy(), wanted)


def test_originals_are_not_changed():
    """apply() returns copies: the next epoch starts from the images on disk."""
    params = settings(flip="random", translate=4, cutout=9, brightness=0.3, contrast=0.5)
    images = pictures(20)
    before = images.clone()
    augment.apply(params, images, augment.draw(params, 20, 32, seed=0, epoch=0), FILL)
    assert torch.equal(images, before)


def test_height_and_width_are_not_confused():
    """An image that is no square."""
    params = settings(flip="random", translate=3, cutout=4)
    images = pictures(8, height=12, width=20)
    decisions = augment.draw(params, 8, 12, seed=0, epoch=0)
    out = augment.apply(params, images, decisions, FILL)
    for i in range(8):
        assert np.array_equal(out[i].numpy(), reference(params, images[i].numpy(), decisions[i]))


def test_mirroring_is_torchvisions():
    """vision.horizontal_flip of those images that are to be mirrored."""
    params = settings(flip="random")
    images = pictures(40)
    decisions = augment.draw(params, 40, 32, seed=1, epoch=0)
    out = augment.apply(params, images, decisions, FILL).permute(0, 3, 1, 2)
    planes = images.permute(0, 3, 1, 2)
    assert 0 < decisions.flip.sum() < 40
    for i, flip in enumerate(decisions.flip):
        assert torch.equal(out[i], vision.horizontal_flip(planes[i]) if flip else planes[i])


@pytest.mark.parametrize("translate", [1, 4, 16])
def test_shifting_is_torchvisions_reflecting_pad_and_crop(translate):
    """The usual recipe for CIFAR-10: pad on all sides, then cut out 32x32 pixels."""
    params = settings(translate=translate)
    images = pictures(40)
    decisions = augment.draw(params, 40, 32, seed=1, epoch=0)
    out = augment.apply(params, images, decisions, FILL).permute(0, 3, 1, 2)
    padded = vision.pad(images.permute(0, 3, 1, 2), [translate], padding_mode="reflect")
    for i, (down, right) in enumerate(decisions.shift.tolist()):
        assert torch.equal(out[i], vision.crop(padded[i], translate - down, translate - right, 32, 32))


def test_alternating_flip_shows_every_image_both_ways_in_two_epochs():
    """The half that is mirrored in one epoch is left alone in the next; which half, the seed decides."""
    params = settings(flip="alternating")
    flips = [augment.draw(params, 1000, 32, seed=3, epoch=epoch).flip for epoch in range(4)]
    assert torch.equal(flips[0], ~flips[1])
    assert torch.equal(flips[0], flips[2])
    assert torch.equal(flips[1], flips[3])
    assert 400 < flips[0].sum() < 600  # six standard deviations
    other = augment.draw(params, 1000, 32, seed=4, epoch=0).flip
    assert 400 < (flips[0] ^ other).sum() < 600


def test_random_flip_is_drawn_anew_in_every_epoch():
    """Half of the images, whatever happened to them before."""
    params = settings(flip="random")
    one, two = (augment.draw(params, 1000, 32, seed=3, epoch=epoch).flip for epoch in range(2))
    assert 400 < one.sum() < 600
    assert 400 < (one ^ two).sum() < 600


def test_with_everything_off_images_stay_as_they_are():
    """Whatever is decided."""
    images = pictures(10)
    decisions = augment.draw(
        settings(flip="random", translate=4, brightness=0.5, contrast=0.5), 10, 32, seed=0, epoch=0
    )
    assert torch.equal(augment.apply(settings(), images, decisions, FILL), images)
    assert torch.equal(
        augment.apply(settings(), images, augment.draw(settings(), 10, 32, seed=0, epoch=0), FILL), images
    )


def test_decisions_are_a_function_of_seed_and_epoch():
    """Not of torch's global generator, nor of what was drawn before."""
    params = settings(flip="random", translate=4, cutout=9, brightness=0.3, contrast=0.5)

    def drawn(seed, epoch):
        torch.manual_seed(seed + 100 * epoch)
        decisions = augment.draw(params, 50, 32, seed=seed, epoch=epoch)
        return {name: getattr(decisions, name) for name in vars(decisions)}

    first = drawn(0, 1)
    torch.rand(7)
    again = augment.draw(params, 50, 32, seed=0, epoch=1)
    for name, value in first.items():
        assert torch.equal(value, getattr(again, name)), name
        assert not torch.equal(value, drawn(0, 2)[name]), name
        assert not torch.equal(value, drawn(1, 1)[name]), name


def test_drawing_leaves_torchs_global_generator_alone():
    """Dropout and initial weights must not depend on the augmentation."""
    before = torch.get_rng_state()
    augment.draw(settings(flip="random", translate=4), 50, 32, seed=0, epoch=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_draws_use_their_whole_range_evenly():
    """Shifts -4..4, brightness and contrast up to the setting, the erased square's centre over the whole image."""
    params = settings(flip="random", translate=4, cutout=9, brightness=0.3, contrast=0.5)
    drawn = augment.draw(params, 20_000, 32, seed=0, epoch=0)
    for axis in range(2):
        values, counts = drawn.shift[:, axis].unique(return_counts=True)
        assert values.tolist() == list(range(-4, 5))
        assert counts.min() > 0.9 * 20_000 / 9
        values, counts = (drawn.cutout[:, axis] + 9 // 2).unique(return_counts=True)
        assert values.tolist() == list(range(32))
        assert counts.min() > 0.8 * 20_000 / 32
    for values, centre, reach in ((drawn.brightness, 0, 0.3), (drawn.contrast, 1, 0.5)):
        assert centre - reach <= values.min() < centre - 0.99 * reach
        assert centre + 0.99 * reach < values.max() <= centre + reach
        assert abs(values.mean() - centre) < 0.02 * reach
        assert values.std() == pytest.approx(reach / 3**0.5, rel=0.02)  # of a uniform distribution
    pairs = torch.stack([drawn.shift[:, 0], drawn.shift[:, 1], drawn.cutout[:, 0], drawn.cutout[:, 1], drawn.flip])
    assert (torch.corrcoef(pairs.float()) - torch.eye(5)).abs().max() < 0.03  # axes and kinds are independent


def test_no_two_purposes_share_a_stream():
    """Seed 1, epoch 11 is not seed 11, epoch 1."""
    keys = [(seed, epoch, purpose) for seed in (0, 1, 11) for epoch in (0, 1, 11) for purpose in ("order", "dropout")]
    seeds = {augment.generator(*key).initial_seed() for key in keys}
    assert len(seeds) == len(keys)


def test_decisions_can_be_picked_by_index():
    """A batch takes those of its images."""
    decisions = augment.draw(settings(flip="random", translate=4), 10, 32, seed=0, epoch=0)
    chosen = decisions[torch.tensor([7, 2])]
    assert chosen.shift.tolist() == [decisions.shift[7].tolist(), decisions.shift[2].tolist()]
    assert decisions[3:5].flip.tolist() == decisions.flip[3:5].tolist()
