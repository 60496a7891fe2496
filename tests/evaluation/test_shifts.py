"""Shifts: where pixels go, and consistency of networks that a shift cannot or must disturb."""

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.data.dataset import Split
from pipeline.evaluation import inference, shifts

SIDE = 12


class Pooled(nn.Module):
    """The mean colour decides, wherever it is: exactly invariant as long as nothing leaves the image."""

    def forward(self, images):
        return images.double().mean((2, 3)).float()


class OnePixel(nn.Module):
    """The colour of the pixel in row 6 and column 5 decides."""

    def forward(self, images):
        return images[:, :, 6, 5].float()


@pytest.fixture
def split() -> Split:
    """Fifty images, black but for 4 x 4 px of noise in the middle."""
    images = np.zeros((50, SIDE, SIDE, 3), np.uint8)
    images[:, 4:8, 4:8] = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 3))
    return Split(images, images.sum((1, 2), dtype=int).argmax(1).astype(np.uint8))


def measure(model, split, cpu, **grid):
    unmoved = inference.predict(model, split, batch_size=16, place=cpu)
    return shifts.measure(model, split, unmoved, batch_size=16, place=cpu, **grid)


@pytest.mark.parametrize("dx", [-5, 0, 3])
@pytest.mark.parametrize("dy", [-1, 0, 4])
def test_shifted_images_are_cut_out_of_padded_ones(dx, dy):
    """Numpy's padding in the mode of that name; positive shifts go right and down."""
    image = np.random.default_rng(0).integers(0, 256, (2, 3, SIDE, SIDE), np.uint8)
    inside = slice(5 - dy, 5 - dy + SIDE), slice(5 - dx, 5 - dx + SIDE)
    for fill, options in (("reflect", {"mode": "reflect"}), ("black", {"constant_values": 0})):
        padded = np.pad(image, ((0, 0), (0, 0), (5, 5), (5, 5)), **options)
        found = shifts.shifted(torch.from_numpy(image), dx, dy, fill)
        assert np.array_equal(found.numpy(), padded[:, :, inside[0], inside[1]]), fill


def test_an_invariant_network_is_consistent_under_every_shift(split, cpu):
    """Moved by at most 4 px, nothing leaves the image, and black moves in where black was."""
    rows = measure(Pooled(), split, cpu, largest=4, step=2)
    black = [row for row in rows if row["fill"] == "black"]
    assert len(black) == 25
    assert {(row["accuracy"], row["consistency"]) for row in black} == {(1.0, 1.0)}
    means = shifts.summary(rows)
    assert means["test/shift_consistency/black"] == means["test/shift_accuracy/black"] == 1


def test_a_network_of_one_pixel_sees_the_pixel_that_moves_there(split, cpu):
    """Its predictions for each shift are known from the images alone."""
    images = split.images
    told: list[int] = []
    rows = measure(OnePixel(), split, cpu, largest=3, step=1, advance=told.append)
    assert len(rows) == 2 * 7 * 7
    assert sum(told) == shifts.evaluations(3, 1) == 2 * 48  # the unmoved images are not looked at again
    unmoved = images[:, 6, 5].argmax(1)
    for row in rows:
        said = images[:, 6 - row["dy"], 5 - row["dx"]].argmax(1)
        assert row["consistency"] == (said == unmoved).mean(), row
        assert row["accuracy"] == (said == split.labels).mean(), row
    by_place = {(row["fill"], row["dx"], row["dy"]): row["consistency"] for row in rows}
    assert by_place["black", 0, 0] == by_place["reflect", 0, 0] == 1
    assert by_place["black", 1, 1] < 0.7


def test_means_leave_out_the_shift_by_nothing():
    """It is always consistent, and would flatter small grids."""
    rows = [
        {"fill": fill, "dx": dx, "dy": 0, "accuracy": value, "consistency": value / 2}
        for fill, values in (("reflect", (0.2, 0.9, 0.4)), ("black", (0.1, 0.9, 0.1)))
        for dx, value in zip((-1, 0, 1), values, strict=True)
    ]
    means = shifts.summary(rows)
    assert means["test/shift_accuracy/reflect"] == pytest.approx(0.3)
    assert means["test/shift_accuracy/black"] == pytest.approx(0.1)
    assert means["test/shift_accuracy"] == pytest.approx(0.2)
    assert means["test/shift_consistency"] == pytest.approx(0.1)


@pytest.mark.parametrize(("largest", "step", "along"), [(0, 1, [0]), (4, 2, [-4, -2, 0, 2, 4]), (3, 3, [-3, 0, 3])])
def test_the_grid_is_symmetrical_and_holds_no_shift(largest, step, along):
    """Multiples of the step, with the largest at both ends."""
    assert shifts.offsets(largest, step) == along
