"""What first layers look for: known filters are recognised, and chance is told from skill."""

import struct

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.errors import InspectionError
from pipeline.inspection import filters, filters_figures
from pipeline.inspection.convolution import EDGE_FILTERS
from pipeline.inspection.filters import FirstLayer
from tests.models.test_networks import MEAN, STD, network, pictures

ISOTROPIC = {
    "Gauss": [[1, 2, 1], [2, 4, 2], [1, 2, 1]],
    "Laplace": [[0, 1, 0], [1, -4, 1], [0, 1, 0]],
    "pixel": [[0, 0, 0], [0, 1, 0], [0, 0, 0]],
}


def coloured(planes, colour=(1, 1, 1)) -> np.ndarray:
    """(F, k, k) filters on one axis of the colours: (F, 3, k, k)."""
    return np.asarray(colour, float)[:, None, None] * np.asarray(planes, float)[:, None]


def between(one: float, other: float) -> float:
    """Degrees between two orientations, which repeat after 180."""
    return abs((one - other + 90) % 180 - 90)


def planted(positions: dict[str, int], **changes) -> nn.Module:
    """A cnn whose first layer holds edge filters, on normalised pixels, at some places."""
    model = network("cnn", widths=(24, 8), **changes)
    with torch.no_grad():
        for name, position in positions.items():
            # The division by each channel's deviation comes first; with it the filter is the same on all channels.
            plane = torch.from_numpy(EDGE_FILTERS[name])[None] * torch.tensor(STD)[:, None, None]
            model.blocks[0][0].weight[position] = plane
    return model


def test_planted_edge_filters_are_found_with_cosine_1():
    """Wherever they stand in the layer; with the opposite sign the cosine is -1."""
    model = planted({"Sobel vertical": 7, "Prewitt horizontal": 20})
    with torch.no_grad():
        model.blocks[0][0].weight[20] *= -3
    found = {match.edge: match for match in filters.nearest(filters.first_layer(model).filters)}
    assert set(found) == set(EDGE_FILTERS)
    assert found["Sobel vertical"].filter == 7
    assert found["Sobel vertical"].cosine == pytest.approx(1)
    assert found["Prewitt horizontal"].filter == 20
    assert found["Prewitt horizontal"].cosine == pytest.approx(-1)
    assert abs(found["Sobel falling"].cosine) < 0.95


@pytest.mark.parametrize("side", [2, 3, 4, 5, 11])
def test_an_edge_filter_of_any_size_is_told_from_the_one_across(side):
    """Resampled about its centre it stays an edge filter: odd along its direction, and of no weight in all."""
    rows = np.arange(side) - (side - 1) / 2
    vertical = coloured([np.tile(rows, (side, 1)), np.tile(rows, (side, 1)).T])
    found = dict(zip(EDGE_FILTERS, filters.cosines(vertical).T, strict=True))
    assert found["Prewitt vertical"][0] == pytest.approx(1, abs=0.03)
    assert found["Prewitt vertical"][1] == pytest.approx(0, abs=1e-12)
    assert found["Sobel horizontal"][0] == pytest.approx(0, abs=1e-12)
    assert found["Sobel horizontal"][1] > 0.85


def test_a_filter_for_edges_between_colours_is_not_taken_for_sobels():
    """Red against green: on its brightness a faint rest of Sobel's filter is left, which says nothing."""
    opponent = coloured([EDGE_FILTERS["Sobel vertical"]], (1, -0.98, 0))
    assert abs(filters.cosines(opponent)).max() < 0.02
    assert filters.selectivity(opponent).index[0] == pytest.approx(
        filters.selectivity(coloured([EDGE_FILTERS["Sobel vertical"]])).index[0]
    )


def test_filters_of_zeros_match_nothing_and_prefer_nothing():
    """A filter that training has switched off is no error."""
    nothing = np.zeros((2, 3, 3, 3))
    assert not filters.cosines(nothing).any()
    assert not filters.selectivity(nothing).index.any()


@pytest.mark.parametrize(
    ("name", "orientation"), [("vertical", 90), ("horizontal", 0), ("rising", 45), ("falling", 135)]
)
@pytest.mark.parametrize("family", ["Sobel", "Prewitt"])
def test_edge_filters_prefer_stripes_along_their_edges(family, name, orientation):
    """The orientation is exact, and the index that of something oriented."""
    found = filters.selectivity(coloured([EDGE_FILTERS[f"{family} {name}"]]))
    assert between(found.orientation[0], orientation) < 1e-6
    assert found.index[0] > 0.25


@pytest.mark.parametrize("name", ISOTROPIC)
def test_what_looks_the_same_from_all_sides_prefers_no_orientation(name):
    """A blur, a spot detector and a single pixel have selectivity 0."""
    assert filters.selectivity(coloured([ISOTROPIC[name]])).index[0] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("degrees", [0, 20, 70, 115])
def test_a_gabor_filter_prefers_its_own_grating(degrees):
    """Large enough to be sharp: selectivity close to 1, at the orientation and frequency it was made with."""
    across = np.radians(degrees + 90)
    rows, columns = np.mgrid[-8:9, -8:9]
    wave = np.cos(2 * np.pi * 0.25 * (columns * np.cos(across) - rows * np.sin(across)))
    found = filters.selectivity(coloured([wave * np.exp(-(rows**2 + columns**2) / 32)], (0.2, 0.9, -0.4)))
    assert found.index[0] > 0.9
    assert between(found.orientation[0], degrees) < 0.5
    assert found.frequency[0] == pytest.approx(0.25)


def test_a_cosines_tuning_curve_has_the_index_of_the_closed_form():
    """A difference of neighbouring pixels answers to coarse gratings like |cos|, whose index is 1/3."""
    difference = coloured([[[-1, 1], [-1, 1]]])
    amplitudes = np.abs(np.einsum("fyx,wayx->fwa", difference[:, 0], filters._gratings(2)))[0, 0]
    assert amplitudes == pytest.approx(amplitudes.max() * np.abs(np.sin(filters.ANGLES)), rel=0.02)
    curve = np.abs(np.sin(filters.ANGLES))
    assert abs(curve @ np.exp(2j * filters.ANGLES)) / curve.sum() == pytest.approx(1 / 3, abs=0.01)


def test_chance_is_the_same_for_the_same_seed_and_tells_random_layers_from_edge_detectors():
    """A layer of edge filters beats every random one; a random layer is one among them."""
    random = filters.chance(8, 3, draws=99, seed=0)
    assert random.index.shape == (99, 8)
    assert random.cosine.shape == (99, 8)
    again = filters.chance(8, 3, draws=99, seed=0)
    assert np.array_equal(random.index, again.index)
    assert np.array_equal(random.cosine, again.cosine)
    assert not np.array_equal(random.index, filters.chance(8, 3, draws=99, seed=1).index)

    edges = FirstLayer(coloured(list(EDGE_FILTERS.values())), np.zeros(3), learned=True)
    found = filters.summary(edges, random)
    assert found["first_layer/edge_cosine"] == pytest.approx(1)
    assert found["first_layer/edge_cosine_p"] == found["first_layer/selectivity_p"] == 0.01
    assert found["first_layer/selectivity"] > found["first_layer/selectivity_random"] + 0.1
    drawn = np.random.default_rng(5).normal(size=(8, 3, 3, 3))
    found = filters.summary(FirstLayer(drawn, np.zeros(3), learned=True), random)
    assert found["first_layer/selectivity_p"] > 0.05
    assert found["first_layer/edge_cosine_p"] > 0.05


def test_a_p_value_counts_what_is_at_least_as_high():
    """One of four is as high, and the value itself counts."""
    assert filters.p_value(0.5, np.array([0.1, 0.2, 0.5, 0.4])) == pytest.approx(2 / 5)


@pytest.mark.parametrize(
    ("arch", "changes", "layer"),
    [
        ("cnn", {}, lambda model: model.blocks[0][0]),
        ("cnn", {"kernel_size": 5, "norm": "batch"}, lambda model: model.blocks[0][0]),
        ("resnet", {}, lambda model: model.stem[0]),
        ("speednet", {"whitening": False, "patch": 3}, lambda model: model.first),
        ("speednet", {"whitening": True}, lambda model: model.first),
    ],
)
def test_a_first_layer_answers_as_in_its_network(arch, changes, layer):
    """On grey levels, with the normalisation inside: the same numbers, but for padding and bias."""
    model = network(arch, **changes).eval()
    if arch == "speednet":
        model.fit(pictures(20))
    found = filters.first_layer(model)
    assert found.learned == (changes.get("whitening") is not True)
    image = pictures(1)
    with torch.inference_mode():
        expected = layer(model)(model.normalize(image))[0].numpy()
    bias = getattr(layer(model), "bias", None)
    expected -= 0 if bias is None else bias.detach().numpy()[:, None, None]
    answers = found.answers(image[0].permute(1, 2, 0).numpy())
    edge = (expected.shape[1] - answers.shape[1]) // 2
    assert answers.shape[0] == expected.shape[0]
    inner = expected[:, edge : expected.shape[1] - edge, edge : expected.shape[2] - edge]
    assert np.allclose(answers, inner, atol=1e-3)


@pytest.mark.parametrize(
    ("arch", "changes", "message"),
    [
        ("mlp", {}, r"this network has no first-layer filters: no layer has weights \(F, 3, k, k\)"),
        ("cnn", {"kernel_size": 1}, "found 1 x 1 px, which cannot detect edges; expected at least 2 x 2 px$"),
    ],
)
def test_a_network_without_filters_to_see_is_an_error(arch, changes, message):
    """In one line that says what is missing, and names no other architecture."""
    with pytest.raises(InspectionError, match=message) as error:
        filters.first_layer(network(arch, **changes))
    assert "\n" not in str(error.value)


def drawn(count: int) -> FirstLayer:
    """A layer as at the start of training."""
    return FirstLayer(np.random.default_rng(0).normal(size=(count, 3, 3, 3)), np.array(MEAN), learned=True)


@pytest.mark.parametrize(("count", "height"), [(5, 432), (600, 806)])
def test_the_figure_of_a_first_layer_has_room_for_few_filters_and_for_many(tmp_path, count, height):
    """It is the same bytes when drawn again, and no longer than a screen."""
    layer = drawn(count)
    measured, random = filters.selectivity(layer.filters), filters.chance(count, 3, draws=5, seed=0)
    for name in ("a.png", "b.png"):
        filters_figures.first_layer(tmp_path / name, layer, measured, random)
    content = (tmp_path / "a.png").read_bytes()
    assert content == (tmp_path / "b.png").read_bytes()
    assert struct.unpack(">II", content[16:24]) == (1200, height)


def test_the_figure_of_edges_is_the_same_bytes_when_drawn_again(tmp_path, data):
    """And others for another image."""
    layer = drawn(8)
    for name, index in (("a.png", 0), ("b.png", 0), ("c.png", 1)):
        image = data["test"].images[index]
        filters_figures.edges(tmp_path / name, image, layer, filters.nearest(layer.filters))
    first, again, other = ((tmp_path / name).read_bytes() for name in ("a.png", "b.png", "c.png"))
    assert first == again != other


def test_a_filter_as_a_picture_is_grey_where_it_weighs_nothing():
    """The largest weight reaches the end of the scale, whatever its sign."""
    kernel = np.zeros((3, 2, 2))
    kernel[0, 0, 1], kernel[2, 1, 0] = -4, 2
    shown = filters_figures.as_colours(kernel)
    assert shown[0, 0].tolist() == [0.5, 0.5, 0.5]
    assert shown[0, 1].tolist() == [0, 0.5, 0.5]
    assert shown[1, 0].tolist() == [0.5, 0.5, 0.75]
    assert (filters_figures.as_colours(np.zeros((3, 2, 2))) == 0.5).all()
