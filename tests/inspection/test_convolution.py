"""A filter on its way over an image: every number is the one that others compute, and is what the pictures say."""

import itertools
import struct

import numpy as np
import pytest
import scipy.signal
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from pipeline.inspection import convolution, convolution_figures
from pipeline.inspection.convolution import EDGE_FILTERS
from pipeline.inspection.convolution_figures import TIMES


def levels(height: int, width: int) -> np.ndarray:
    """Random grey levels as floats."""
    return np.random.default_rng(0).integers(0, 256, (height, width)).astype(np.float32)


def ramp(side: int, *, down: int, right: int) -> np.ndarray:
    """Grey levels that rise evenly."""
    rows, columns = np.mgrid[:side, :side]
    return (down * rows + right * columns).astype(np.uint8)


@pytest.mark.parametrize("name", EDGE_FILTERS)
def test_the_walk_ends_with_scipys_correlation(name):
    """The feature map is what scipy.signal says, and each of its numbers the sum of the products at its place."""
    section, kernel = levels(7, 9), EDGE_FILTERS[name]
    found = convolution.walk(section, kernel)
    assert np.array_equal(found.sums, scipy.signal.correlate2d(section, kernel, mode="valid"))
    assert found.products.shape == (5 * 7, 3, 3)
    for step, (patch, products) in enumerate(zip(found.patches, found.products, strict=True)):
        row, column = found.place(step)
        assert np.array_equal(patch, section[row : row + 3, column : column + 3])
        assert np.array_equal(products, patch * kernel)
        assert products.sum() == found.sums[row, column]


def test_filters_over_colours_add_up_the_channels():
    """An image with channels is answered by filters with channels, as in a network's first layer."""
    rng = np.random.default_rng(0)
    image, kernels = rng.normal(size=(8, 10, 3)), rng.normal(size=(4, 3, 5, 5))
    expected = [
        sum(scipy.signal.correlate2d(image[..., c], kernel[c], mode="valid") for c in range(3)) for kernel in kernels
    ]
    assert np.allclose(convolution.convolve(image, kernels), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("edges", "down", "right", "answers"),
    [
        ("vertical", 0, 5, (1, 0)),
        ("vertical", 5, 0, (0, 1)),
        ("rising", 5, 5, (1, 0)),
        ("falling", 5, 5, (0, 1)),
    ],
)
@pytest.mark.parametrize("family", ["Sobel", "Prewitt"])
def test_an_edge_filter_answers_to_its_edges_and_not_to_those_across(family, edges, down, right, answers):
    """On an even slope: the filter along it answers alike everywhere, the one across it not at all."""
    across = {"vertical": "horizontal", "rising": "falling", "falling": "rising"}[edges]
    kernels = np.stack([EDGE_FILTERS[f"{family} {edges}"], EDGE_FILTERS[f"{family} {across}"]])
    along, other = convolution.convolve(ramp(9, down=down, right=right), kernels)
    assert np.ptp(along) == np.ptp(other) == 0
    assert ((along > 0).all(), (other > 0).all()) == answers or ((along == 0).all(), (other == 0).all()) == answers[
        ::-1
    ]
    assert (along == 0).all() or (other == 0).all()


def test_grey_levels_are_those_of_pillow():
    """Red, green and blue weigh as in ITU-R 601."""
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 90, 90]]], np.uint8)
    assert convolution.grey(colours).tolist() == [[76, 150, 29, 90]]


def test_the_liveliest_section_holds_the_only_edge():
    """Elsewhere in the image nothing changes."""
    image = np.full((32, 32), 100, np.uint8)
    image[20:24, 11:14] = 250
    section = convolution.liveliest(image, EDGE_FILTERS["Sobel vertical"], 7)
    assert section.shape == (7, 7)
    assert (section == 250).sum() == 12


def as_written(text: str) -> str:
    """With the minus sign of the pictures."""
    return text.replace("-", "\N{MINUS SIGN}")


def texts(draw, monkeypatch) -> set[str]:
    """Every text of a figure."""
    found: set[str] = set()
    savefig = Figure.savefig

    def note(self, *arguments, **options):
        savefig(self, *arguments, **options)
        found.update(text.get_text() for text in self.findobj(Text))

    monkeypatch.setattr(Figure, "savefig", note)
    draw()
    return found


def test_a_step_shows_nine_products_and_their_sum(tmp_path, monkeypatch):
    """Written out as one would do it by hand, with what came out before, and not what comes after."""
    section = np.arange(49).reshape(7, 7) ** 2 % 251
    walk = convolution.walk(section, EDGE_FILTERS["Sobel vertical"])
    path = tmp_path / "step.png"
    found = texts(lambda: convolution_figures.walk_step(path, walk, "Sobel vertical", 7), monkeypatch)
    assert struct.unpack(">II", path.read_bytes()[16:24]) == (1224, 468)
    for pixel, weight in zip(section[1:4, 2:5].flat, (-1, 0, 1, -2, 0, 2, -1, 0, 1), strict=True):
        assert as_written(f"{pixel} {TIMES} {weight}\n= {pixel * weight}") in found
    sums = [as_written(f"{value:g}") for value in walk.sums.flat]
    assert set(sums[:8]) <= found
    later = set(sums[8:]) - set(sums[:8]) - {str(pixel) for pixel in section.flat}
    assert len(later) > 5
    assert not later & found


def test_the_animation_fills_the_feature_map_position_by_position(tmp_path):
    """A frame for each position, the last the longest; below a megabyte; the same bytes when made again."""
    walk = convolution.walk(levels(7, 7), EDGE_FILTERS["Prewitt horizontal"])
    path = tmp_path / "walk.gif"
    convolution_figures.walk_animation(path, walk, "Prewitt horizontal")
    assert path.stat().st_size < 1_000_000
    with Image.open(path) as gif:
        assert gif.n_frames == 25
        assert gif.info["loop"] == 0
        frames, durations = [], []
        for number in range(25):
            gif.seek(number)
            frames.append(np.asarray(gif.convert("RGB")).astype(int))
            durations.append(gif.info["duration"])
    assert durations == [700] * 24 + [3000]
    assert all((a != b).any() for a, b in itertools.pairwise(frames))
    right = frames[0].shape[1] * 3 // 4  # the feature map is in the last quarter; what is filled stays
    blank = [(frame[:, right:] > 235).all(2).sum() for frame in frames]
    assert all(a > b for a, b in zip(blank[:-1:5], blank[5::5], strict=False))
    convolution_figures.walk_animation(tmp_path / "again.gif", walk, "Prewitt horizontal")
    assert (tmp_path / "again.gif").read_bytes() == path.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["again.gif", "walk.gif"]
