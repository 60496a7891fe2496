"""What a network has learned, of networks and answers of which it is known."""

import struct

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.data.dataset import Split
from pipeline.errors import InspectionError
from pipeline.inspection import feature_maps, learned, receptive_field
from pipeline.inspection.network import Network
from tests.inspection.test_embedding import Means
from tests.models.test_networks import network as build

CLASSES = tuple(f"kind {number}" for number in range(3))


@pytest.fixture
def coloured() -> Split:
    """Twelve images each of red, green and blue, some bright, some dark, with the colour in one random place."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3, dtype=np.uint8), 12)
    images = np.zeros((36, 32, 32, 3), np.uint8)
    for image, label in zip(images, labels, strict=True):
        top, left = rng.integers(0, 24, 2)
        image[top : top + 8, left : left + 8, label] = rng.integers(100, 256)
    return Split(images, labels)


def looked_at(split: Split, cpu, *, model: nn.Module | None = None, probs: np.ndarray | None = None) -> Network:
    """A network that knows colours and is always right, unless told otherwise."""
    right = np.eye(3, dtype=np.float32)[split.labels]
    return Network(model or Means(), CLASSES, split, right if probs is None else probs, 10, cpu, 0)


def colour_detectors() -> nn.Module:
    """A cnn whose three channels answer to red, green and blue, each at single pixels."""
    model = build("cnn", widths=(3,), hidden=()).eval()
    (layer,) = (module for module in model.modules() if isinstance(module, nn.Conv2d))
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[range(3), range(3), 1, 1] = 1
        if layer.bias is not None:
            layer.bias.zero_()
    return model


def test_channels_that_answer_to_the_colour_of_a_class_agree_on_the_class(coloured, cpu, tmp_path):
    """All nine images of each channel are of one class; of images with labels at random fewer are."""
    found = learned.patches(looked_at(coloured, cpu, model=colour_detectors()), tmp_path / "patches.png")
    assert found.metrics["inspect/patch_agreement/first"] == found.metrics["inspect/patch_agreement/last"] == 1
    assert found.metrics["inspect/patch_agreement/random"] < 0.8
    (said,) = found.findings
    assert said.startswith("of the 9 of 36 images that activate a channel most, 9.0 (blocks.0) have the same label")
    assert (tmp_path / "patches.png").stat().st_size > 1000


def test_how_many_images_of_a_channel_are_of_one_class():
    """Two channels: three images of class 2, and one each of three classes."""
    labels = np.array([2, 2, 2, 0, 1], np.uint8)
    images = np.array([[0, 1, 2], [2, 3, 4]])
    nothing = np.zeros((2, 3))
    pixel = np.array([[0, 1]])
    field = receptive_field.Field(pixel, pixel)
    found = feature_maps.Exciting("blocks.0", field, nothing, images, np.zeros((2, 3, 2), int), np.zeros(2))
    assert learned.most_common(labels, found) == 2.0


def test_the_map_counts_neighbours_by_features_and_by_pixels(coloured, cpu, tmp_path):
    """A network that knows colours puts classes apart; pixels tell less, as places differ."""
    found = learned.map_of_classes(looked_at(coloured, cpu), tmp_path / "map.png")
    assert found.metrics["inspect/neighbour_accuracy"] == 1
    assert found.metrics["inspect/neighbour_accuracy/pixels"] < 0.9
    assert found.findings[0] == (
        "accuracy of a 10-nearest-neighbour classifier on 36 test images: 100.0% by the last layer's input, "
        f"{found.metrics['inspect/neighbour_accuracy/pixels']:.1%} by pixels"
    )


def test_an_image_of_ones_own_is_a_star_and_counts_for_nothing(coloured, cpu, tmp_path):
    """The numbers are those without it; the picture is another."""
    without = learned.map_of_classes(looked_at(coloured, cpu), tmp_path / "without.png")
    with_one = learned.map_of_classes(looked_at(coloured, cpu), tmp_path / "with.png", coloured.images[0])
    assert with_one == without
    assert (tmp_path / "with.png").read_bytes() != (tmp_path / "without.png").read_bytes()


def test_few_images_have_fewer_neighbours(coloured, cpu, tmp_path):
    """Six images: five others each."""
    few = Split(coloured.images[::6], coloured.labels[::6])
    (said,) = learned.map_of_classes(looked_at(few, cpu), tmp_path / "map.png").findings
    assert said.startswith("accuracy of a 5-nearest-neighbour classifier on 6 test images: ")


def test_mistakes_are_counted_by_pairs_of_classes(coloured, cpu, tmp_path):
    """Four images of kind 2 are taken for kind 0."""
    said = coloured.labels.copy()
    said[24:28] = 0
    subject = looked_at(coloured, cpu, probs=np.eye(3, dtype=np.float32)[said])
    found = learned.confused(subject, tmp_path / "confusions.png")
    expected = (
        "confused most: kind 2 predicted as kind 0 4 times, kind 0 as kind 2 0 times, of 4 errors on 36 test images"
    )
    assert found.findings == (expected,)


def test_a_network_without_mistakes_has_pictures_that_say_so(coloured, cpu, tmp_path):
    """No pair of classes, no suspicious label, and no crash."""
    subject = looked_at(coloured, cpu)
    assert learned.confused(subject, tmp_path / "confusions.png").findings == (
        "no two classes are confused on 36 test images",
    )
    found = learned.suspicious(subject, tmp_path / "labels.png")
    assert found.metrics == {"inspect/suspicious_labels": 0}
    for name in ("confusions", "labels"):
        width, height = struct.unpack(">II", (tmp_path / f"{name}.png").read_bytes()[16:24])
        assert (width > 500, height > 50) == (True, True), name


def test_suspicious_labels_are_a_share_of_the_images(coloured, cpu, tmp_path):
    """Three of 36 labels are changed, and the network still gives the right answers."""
    labels = coloured.labels.copy()
    labels[[0, 13, 30]] = [1, 2, 0]
    probs = np.float32(0.9) * np.eye(3, dtype=np.float32)[coloured.labels] + np.float32(0.1 / 3)
    found = learned.suspicious(looked_at(Split(coloured.images, labels), cpu, probs=probs), tmp_path / "labels.png")
    assert found.metrics["inspect/suspicious_labels"] == pytest.approx(3 / 36)
    assert found.findings[0].startswith("3 of 36 test labels are suspicious")


def test_what_a_network_cannot_give_is_left_out_with_the_reason(coloured, cpu, tmp_path, capsys):
    """An mlp has no filters and no feature maps, and all the rest."""
    subject = looked_at(coloured, cpu, model=build("mlp").eval())
    with pytest.raises(InspectionError, match="this network has no first-layer filters"):
        learned.first_layer(subject, tmp_path / "none.png")
    metrics = learned.draw(subject, tmp_path / "figures")
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {"embedding", "confusions", "label_errors"}
    assert not any("first_layer" in key or "patch" in key for key in metrics)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("left out")] == [
        "left out: first_layer: this network has no first-layer filters: no layer has weights (F, 3, k, k)",
        "left out: patches: this network has no feature maps: none of its parts has an output (N, C, H, W)",
    ]
