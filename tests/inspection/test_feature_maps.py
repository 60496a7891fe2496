"""Feature maps and what excites them: nothing but what the network computes, found where it was planted."""

import struct
from contextlib import suppress

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.data.dataset import Split
from pipeline.errors import InspectionError
from pipeline.inspection import feature_maps, feature_maps_figures, receptive_field
from pipeline.inspection.receptive_field import Field
from pipeline.models.common import features
from tests.models.test_networks import network, pictures

NETWORKS = {
    "max": ("cnn", {"convs_per_block": 2, "norm": "batch"}),
    "avg": ("cnn", {"pooling": "avg", "kernel_size": 5}),
    "stride": ("cnn", {"pooling": "stride", "convs_per_block": (1, 2)}),
    "none": ("cnn", {"pooling": "none", "dropout": 0.5, "convs_per_block": 2}),
    "resnet": ("resnet", {"depth": 14}),
    "speednet": ("speednet", {"patch": 3}),
    "learned speednet": ("speednet", {"whitening": False}),
}
NAMES = {
    "cnn": ["blocks.0", "blocks.1"],
    "resnet": ["stem", "stages.0", "stages.1", "stages.2"],
    "speednet": ["first", "groups.0", "groups.1"],
}

CHAINS = {
    "cnn": lambda model: [[block] for block in model.blocks],
    "resnet": lambda model: [[model.stem], *([stage] for stage in model.stages)],
    "speednet": lambda model: [[model.first, model.activation], *([group] for group in model.groups)],
}
"""The layers of each stage, that run one after the other."""


def trained(name: str) -> nn.Module:
    """One of `NETWORKS` as it is after training: with a first layer, and no two weights of a kind alike."""
    arch, changes = NETWORKS[name]
    model = network(arch, **changes).eval()
    if arch == "speednet":
        model.fit(pictures(20))
        with torch.no_grad():
            for parameter in model.groups.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("name", NETWORKS)
def test_receptive_fields_are_where_gradients_arrive(name):
    """The pixels with a gradient at one place of a map are those of its box: none beyond, each edge reached."""
    model = trained(name)
    x = torch.randn(24, 3, 96, 96, requires_grad=True)  # so large that no box below touches the padding
    maps: dict[str, torch.Tensor] = {}
    watched = features.watched(features.stages(model), lambda name, output: maps.update({name: output}))
    with watched, suppress(RuntimeError):  # a classifier may take images of 32 px only
        model(x)
    for stage, field in receptive_field.fields(model).items():
        row, column = len(field.rows) // 2, min(len(field.columns) // 2 + 1, len(field.columns) - 1)
        further = (maps[stage].shape[2] - len(field.rows)) // 2  # numbers for the 32 px before the middle 32
        middle = maps[stage][:, :, row + further, column + further]
        (gradient,) = torch.autograd.grad(middle.sum(), x, retain_graph=True)
        rows, columns = (gradient.abs().sum((0, 1)).sum(dim).nonzero().flatten() - 32 for dim in (1, 0))
        found = (int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
        assert found == field.box(row, column)


def test_a_receptive_field_is_that_of_the_closed_form():
    """Two 3 x 3 convolutions see 5 px, pooling one more, and after it each px counts double (Simonyan & Zisserman)."""
    first, second = receptive_field.fields(network("cnn", convs_per_block=2)).values()
    for spans in (first.rows, first.columns):
        assert np.array_equal(spans, evenly(16, size=6, stride=2, start=-2))
    for spans in (second.rows, second.columns):
        assert np.array_equal(spans, evenly(8, size=6 + 4 * 2 + 2, stride=4, start=-2 - 2 * 2))
    assert (first.size, second.size) == ((6, 6), (16, 16))
    assert first.box(0, 3) == (-2, 4, 4, 10)


@pytest.mark.parametrize(
    ("arch", "changes", "sizes"),
    [
        ("cnn", {"widths": (2, 3, 4), "convs_per_block": (1, 2, 2)}, [4, 14, 34]),
        ("resnet", {"depth": 20}, [3, 15, 37, 81]),
        ("speednet", {"widths": (2, 3, 4)}, [2, 9, 23, 51]),
    ],
)
def test_sizes_are_known_beyond_the_image(arch, changes, sizes):
    """A box may reach further than the image on all sides; then each number of the map sees the whole image."""
    fields = list(receptive_field.fields(network(arch, **changes)).values())
    assert [field.size for field in fields] == [(size, size) for size in sizes]
    assert [field.is_whole(32) for field in fields] == [size > 60 for size in sizes]


def evenly(count: int, *, size: int, stride: int, start: int) -> np.ndarray:
    """Spans of one size at equal distances: (count, 2)."""
    starts = start + stride * np.arange(count)
    return np.stack([starts, starts + size], 1)


@pytest.mark.parametrize("name", NETWORKS)
def test_feature_maps_are_what_the_network_passes_on(name):
    """Named as in the network, in the order of depth, the last being what its classifier is given."""
    model = trained(name)
    image = pictures(1)
    found = feature_maps.feature_maps(model, image[0].permute(1, 2, 0).numpy())
    assert [stage.name for stage in found] == NAMES[NETWORKS[name][0]]
    with torch.inference_mode():
        x = model.normalize(image)
        for layers, stage in zip(CHAINS[NETWORKS[name][0]](model), found, strict=True):
            for layer in layers:
                x = layer(x)
            assert stage.maps.dtype == np.float32
            assert np.allclose(stage.maps, x[0].numpy(), atol=1e-4)
    assert not any(module._forward_hooks for module in model.modules())


def test_the_strongest_channels_come_first():
    """By their mean distance from 0; of equals the first."""
    maps = np.zeros((4, 2, 2), np.float32)
    maps[1], maps[2, 0, 0], maps[3] = -2, 4, 2
    spans = evenly(2, size=3, stride=1, start=-1)
    found = feature_maps.FeatureMaps("blocks.0", Field(spans, spans), maps)
    assert found.strongest(3).tolist() == [1, 3, 2]


def spotter() -> nn.Module:
    """A cnn whose channels 0, 1, 2 answer to a bright pixel in red, green, blue, channel 3 to nothing."""
    model = network("cnn", widths=(4,), kernel_size=3)
    with torch.no_grad():
        model.blocks[0][0].weight.zero_()
        for channel in range(3):
            model.blocks[0][0].weight[channel, channel, 1, 1] = 1
    return model.eval()


def planted() -> tuple[Split, list[tuple[int, int, int]]]:
    """60 dark images, twelve with one red pixel, each brighter than the one before; where these are."""
    images = np.zeros((60, 32, 32, 3), np.uint8)
    places = [(5 * number, 2 * number + 1, 30 - number) for number in range(12)]
    for brightness, (image, row, column) in enumerate(places):
        images[image, row, column, 0] = 130 + 10 * brightness
    return Split(images, np.zeros(60, np.uint8)), places


@pytest.mark.parametrize("batch_size", [1, 7, 60, 1000])
def test_the_images_found_are_those_planted(cpu, batch_size):
    """The nine brightest red pixels, the brightest first, at their places, whatever the size of the batches."""
    split, places = planted()
    (found,) = feature_maps.exciting(spotter(), split, batch_size=batch_size, place=cpu)
    expected = places[:2:-1]
    assert found.images[0].tolist() == [image for image, _, _ in expected]
    assert found.places[0].tolist() == [[row // 2, column // 2] for _, row, column in expected]
    assert (np.diff(found.answers[0]) < 0).all()
    for (image, row, column), place in zip(expected, found.places[0], strict=True):
        top, left, bottom, right = found.field.box(*place)
        assert top <= row < bottom
        assert left <= column < right
        patch = feature_maps.seen(split.images[image], (top, left, bottom, right))
        assert patch.shape == (4, 4, 3)
        assert patch[row - top, column - left, 0] == split.images[image, row, column, 0]


def test_of_equals_the_first_image_and_the_first_place_win(cpu):
    """Blue never changes: the same answer everywhere, so images 0 to 8, each at its first place."""
    split, _ = planted()
    for batch_size in (4, 60):
        (found,) = feature_maps.exciting(spotter(), split, batch_size=batch_size, place=cpu)
        for channel in (2, 3):
            assert found.images[channel].tolist() == list(range(9))
            assert not found.places[channel].any()


def test_channels_that_stand_out_come_first(cpu):
    """Red does; those that answer to all images alike have distinctness 0."""
    split, _ = planted()
    (found,) = feature_maps.exciting(spotter(), split, batch_size=16, place=cpu)
    assert found.most_distinct(2).tolist() == [0, 1]
    maxima = split.images[..., 0].reshape(60, -1).max(1) / 63.0
    maxima = np.maximum(maxima - 125.3 / 63.0, 0)  # normalised, then rectified
    expected = (np.sort(maxima)[-9:].mean() - maxima.mean()) / maxima.std()
    assert found.distinctness[0] == pytest.approx(expected, rel=1e-4)
    assert found.distinctness[1:].tolist() == [0, 0, 0]


def test_fewer_images_than_asked_for_are_all_there_are(cpu):
    """Three images, three patches."""
    split, _ = planted()
    few = Split(split.images[:3], split.labels[:3])
    (found,) = feature_maps.exciting(spotter(), few, batch_size=2, place=cpu)
    assert found.images.shape == (4, 3)


def test_what_is_seen_is_cut_and_filled():
    """Inside the image, over its edge, and larger than the image."""
    image = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    assert np.array_equal(feature_maps.seen(image, (1, 2, 3, 4)), image[1:3, 2:4])
    corner = feature_maps.seen(image, (-1, 2, 2, 5), fill=200)
    assert corner.shape == (3, 3, 3)
    assert (corner[0] == 200).all()
    assert (corner[:, 2] == 200).all()
    assert np.array_equal(corner[1:, :2], image[:2, 2:])
    large = feature_maps.seen(image, (-5, 1, 3, 9), fill=200)
    assert large.shape == image.shape
    assert np.array_equal(large[:3, 1:], image[:3, 1:])
    assert (large[3] == 200).all()
    assert (large[:, 0] == 200).all()


def test_a_network_without_feature_maps_is_an_error():
    """In one line that names no other architecture."""
    message = r"^this network has no feature maps: none of its parts has an output \(N, C, H, W\)$"
    with pytest.raises(InspectionError, match=message):
        feature_maps.feature_maps(network("mlp"), np.zeros((32, 32, 3), np.uint8))


def test_the_figures_show_each_stage_and_are_the_same_bytes_when_drawn_again(tmp_path, data, cpu):
    """A row a stage; images whose channels are fewer than the columns leave room."""
    model, split = trained("resnet"), data["test"]
    few = Split(split.images[:40], split.labels[:40])
    maps = feature_maps.feature_maps(model, split.images[0])
    best = feature_maps.exciting(model, few, batch_size=16, place=cpu)
    for name in ("a", "b"):
        feature_maps_figures.by_depth(tmp_path / f"{name}1.png", split.images[0], maps)
        feature_maps_figures.patches_by_depth(tmp_path / f"{name}2.png", few.images, best)
    for kind, height in ((1, 1.15 * 4 + 0.9), (2, 1.55 * 4 + 0.8)):
        content = (tmp_path / f"a{kind}.png").read_bytes()
        assert content == (tmp_path / f"b{kind}.png").read_bytes()
        assert struct.unpack(">II", content[16:24]) == (1200, pytest.approx(height * 120, abs=1))


def test_a_mosaic_has_the_strongest_in_its_upper_left(cpu):
    """Nine patches of 4 px, three times as large, with gaps of one pixel between them, white in the gaps."""
    split, places = planted()
    (found,) = feature_maps.exciting(spotter(), split, batch_size=60, place=cpu)
    picture = feature_maps_figures.mosaic(split.images, found, 0)
    assert picture.shape == (38, 38, 3)
    assert (picture[12] == 255).all()
    assert (picture[:, 25] == 255).all()
    image, row, column = places[-1]
    assert picture[:12, :12, 0].max() == split.images[image, row, column, 0] == 240
