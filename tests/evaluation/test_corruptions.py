"""Corruptions against Pillow, scipy and arithmetic; accuracy under them on networks whose answer is known."""

import io

import numpy as np
import pytest
import scipy.ndimage
import torch
from PIL import Image
from torch import nn

from pipeline.data.dataset import Split
from pipeline.evaluation import corruptions
from pipeline.evaluation.corruptions import CORRUPTIONS


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """(12, 32, 32, 3) uint8: smooth colours with edges, as photographs have, some of them at the ends of the scale."""
    rng = np.random.default_rng(0)
    drawn = scipy.ndimage.gaussian_filter(rng.normal(size=(12, 32, 32, 3)), (0, 2, 2, 0)) * 600 + 128
    drawn[:, 10:20, 12:28] += rng.choice([-90, 90], (12, 1, 1, 3))
    return drawn.round().clip(0, 255).astype(np.uint8)


def tensor(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images.copy()).permute(0, 3, 1, 2)


def array(images: torch.Tensor) -> np.ndarray:
    return images.permute(0, 2, 3, 1).numpy()


def difference(ours: torch.Tensor, theirs: np.ndarray) -> np.ndarray:
    return np.abs(array(ours).astype(float) - theirs)


def by_pillow(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


@pytest.mark.parametrize("quality", [40, 80])
def test_jpeg_is_pillows_round_trip_of_each_image(images, quality):
    """Every image of a batch on its own, in its place."""
    theirs = np.stack([by_pillow(image, quality) for image in images])
    assert np.array_equal(array(corruptions.jpeg(tensor(images), quality)), theirs)


@pytest.mark.parametrize("sigma", [0.4, 0.7, 1.0, 2.0])
def test_blur_is_scipys(images, sigma):
    """But for the rounding of halves."""
    theirs = scipy.ndimage.gaussian_filter(images.astype(float), (0, sigma, sigma, 0), mode="nearest", truncate=4)
    found = difference(corruptions.blur(tensor(images), sigma), theirs)
    assert found.max() <= 0.5 + 1e-3


@pytest.mark.parametrize("degrees", [5, 30, 90, -15])
def test_rotation_is_scipys(images, degrees):
    """Linear between pixels, mirrored about the edge pixels; positive angles to the left."""
    theirs = scipy.ndimage.rotate(
        images.astype(float), degrees, axes=(1, 2), reshape=False, order=1, mode="mirror", prefilter=False
    )
    found = difference(corruptions.rotate(tensor(images), torch.full((12,), degrees)), theirs)
    assert found.max() <= 0.5 + 1e-2


def test_a_quarter_turn_to_the_left_is_numpys():
    """Of an image as people see it: what was at the right edge is at the top."""
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    turned = array(corruptions.rotate(tensor(image), torch.tensor([90])))[0]
    assert np.array_equal(turned, np.rot90(image[0]))


def test_contrast_keeps_the_mean_colour_and_a_share_of_the_distance_from_it(images):
    """Of each image on its own, each channel on its own."""
    mean = images.mean((1, 2), keepdims=True)
    theirs = mean + 0.3 * (images - mean)
    assert difference(corruptions.contrast(tensor(images), 0.3), theirs).max() <= 0.5 + 1e-3


def test_noise_has_the_deviation_that_is_stated():
    """Measured on grey images, where nothing is clipped: no mean, a normal distribution's share beyond two sigma."""
    grey = torch.full((200, 3, 32, 32), 128, dtype=torch.uint8)
    noisy = corruptions.noise(grey, 0.08, torch.Generator().manual_seed(0)).double() - 128
    assert noisy.mean().abs() < 0.1
    assert noisy.std().item() == pytest.approx(0.08 * 255, rel=0.01)
    assert (noisy.abs() > 2 * 0.08 * 255).double().mean().item() == pytest.approx(0.0455, abs=0.003)


def test_half_of_the_images_turn_left_and_half_right():
    """Each by the same angle; so a network that only knows one direction gains nothing."""
    image = np.zeros((1, 32, 32, 3), np.uint8)
    image[:, :8, 14:18] = 255
    many = tensor(image).expand(400, -1, -1, -1)
    turned = corruptions.rotation(many, 30, torch.Generator().manual_seed(0))
    left = corruptions.rotate(many[:1], torch.tensor([30]))
    right = corruptions.rotate(many[:1], torch.tensor([-30]))
    lefts, rights = ((turned == one).flatten(1).all(1) for one in (left, right))
    assert (lefts ^ rights).all()
    assert 160 < lefts.sum() < 240


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_is_decided_by_its_seed_and_not_by_the_batches(images, name):
    """The same bytes for the same seed in one batch or several; uint8 of the same shape; the input is left alone."""
    given = tensor(images)
    before = given.clone()
    whole = corruptions.damaging(name, 3, seed=1)(given)
    change = corruptions.damaging(name, 3, seed=1)
    parts = torch.cat([change(part) for part in given.split([5, 4, 3])])
    other = corruptions.damaging(name, 3, seed=2)(given)
    assert whole.dtype == torch.uint8
    assert whole.shape == given.shape
    assert torch.equal(whole, parts)
    assert torch.equal(given, before)
    assert torch.equal(whole, other) == (name in ("blur", "contrast", "jpeg"))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_higher_severity_changes_images_more(images, name):
    """By mean absolute difference; also between what severity 1 leaves and the original."""
    changes = [
        difference(corruptions.damaging(name, severity, seed=0)(tensor(images)), images).mean()
        for severity in range(1, 6)
    ]
    assert changes[0] > 0.2
    assert changes == sorted(changes)


class BrightestSide(nn.Module):
    """Says 1 if the right half of an image is brighter than the left, else 0."""

    def forward(self, images):
        values = images.float()
        right = values[..., 16:].mean((1, 2, 3)) - values[..., :16].mean((1, 2, 3))
        return torch.stack([-right, right], 1)


class Extreme(nn.Module):
    """Says 1 as long as some pixel is fully white."""

    def forward(self, images):
        white = (images.amax((1, 2, 3)) == 255).float()
        return torch.stack([1 - white, white], 1)


def two_sides() -> Split:
    """Forty images, black on the left and white on the right or the other way round."""
    images = np.zeros((40, 32, 32, 3), np.uint8)
    images[::2, :, 16:] = 255
    images[1::2, :, :16] = 255
    return Split(images, (np.arange(40) % 2 == 0).astype(np.uint8))


def test_accuracy_of_a_network_that_no_corruption_disturbs_is_one(cpu):
    """Which half is brighter survives all of them."""
    told: list[int] = []
    rows = corruptions.measure(BrightestSide(), two_sides(), seed=0, batch_size=7, place=cpu, advance=told.append)
    assert [(row["corruption"], row["severity"]) for row in rows] == [
        (name, severity) for name in CORRUPTIONS for severity in range(1, 6)
    ]
    assert {row["accuracy"] for row in rows} == {1.0}
    assert sum(told) == corruptions.EVALUATIONS == 25
    assert set(corruptions.summary(rows).values()) == {1.0}


def test_accuracy_of_a_network_that_looks_for_full_white(cpu):
    """Loss of contrast takes it away at all severities; what else happens leaves it somewhere in a white half."""
    split = Split(two_sides().images, np.ones(40, np.uint8))
    rows = corruptions.measure(Extreme(), split, seed=0, batch_size=7, place=cpu)
    found = {row["corruption"]: row["accuracy"] for row in rows}
    assert found == {"noise": 1, "blur": 1, "contrast": 0, "jpeg": 1, "rotation": 1}
    means = corruptions.summary(rows)
    assert means["test/corruption_accuracy"] == pytest.approx(0.8)
    assert means["test/corruption_accuracy/contrast"] == 0


def test_examples_show_what_the_network_is_shown(images):
    """The first image alone: the same noise as if it were first among many."""
    shown = corruptions.examples(images[0], seed=4)
    assert shown.shape == (5, 5, 32, 32, 3)
    expected = array(corruptions.damaging("noise", 2, seed=4)(tensor(images)))[0]
    assert np.array_equal(shown[list(CORRUPTIONS).index("noise"), 1], expected)
