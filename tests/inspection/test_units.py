"""Units of activation layers: dead and saturated ones made by hand are found, and no others."""

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.data.dataset import Split
from pipeline.inspection import units
from pipeline.models.cnn.params import Params as CnnParams
from pipeline.models.common.build import build
from pipeline.models.speednet.params import Params as SpeednetParams


@pytest.fixture
def split() -> Split:
    """Thirty images of noise, the last of them white."""
    images = np.random.default_rng(0).integers(0, 200, (30, 8, 8, 3)).astype(np.uint8)
    images[-1] = 255
    return Split(images, np.zeros(30, np.uint8))


class Handmade(nn.Module):
    """A convolution with the activation to be tested, then a linear layer with another."""

    def __init__(self, activation: nn.Module, biases: list[float]) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, len(biases), 1)
        self.activation = activation
        with torch.no_grad():
            self.convolution.weight.fill_(1 / 3)
            self.convolution.bias.copy_(torch.tensor(biases))

    def forward(self, images):
        return self.activation(self.convolution(images.float())).mean((2, 3))


@pytest.mark.parametrize("batch_size", [7, 30])
def test_a_dead_relu_is_found_also_if_one_image_of_the_last_batch_wakes_another(split, cpu, batch_size):
    """Of four channels one is always above 0, one for the white image only, one at most 0, one far below."""
    (row,) = units.measure(Handmade(nn.ReLU(), [0, -250, -255, -1000]), split, batch_size=batch_size, place=cpu)
    mean = split.images.mean()
    assert (row["layer"], row["activation"], row["units"]) == ("activation", "ReLU", 4)
    assert row["dead"] == 0.5
    assert row["saturated"] == ""
    woken = 5 / 30  # 255 - 250 in one of thirty images
    assert row["mean"] == pytest.approx((mean + woken) / 4, rel=1e-5)
    assert units.summary([row]) == {"inspect/dead_share": 0.5}


def test_a_saturated_tanh_is_found(split, cpu):
    """Two channels are at the ends of the range for every image, one is at 0 for the white image only."""
    (row,) = units.measure(Handmade(nn.Tanh(), [1000, -1000, -255]), split, batch_size=8, place=cpu)
    assert row["saturated"] == pytest.approx((30 + 30 + 29) / 90)
    assert row["dead"] == ""
    assert units.summary([row]) == {"inspect/saturated_share": row["saturated"]}


def test_the_share_of_dead_units_counts_units_and_not_layers():
    """One dead unit of ten and none of thirty: one of forty."""
    rows = [
        {"layer": "a", "activation": "ReLU", "units": 10, "mean": 0.1, "saturated": "", "dead": 0.1},
        {"layer": "b", "activation": "ReLU", "units": 30, "mean": 0.1, "saturated": "", "dead": 0.0},
    ]
    assert units.summary(rows) == {"inspect/dead_share": pytest.approx(1 / 40)}
    assert units.summary([]) == {}


def test_every_activation_layer_of_a_network_has_its_row(data, cpu):
    """In the order of the layers, with as many units as the layer has channels; no hook is left behind."""
    speednet = SpeednetParams(widths=(5, 6), convs_per_group=1, activation="silu", whitening=False, patch=2)
    cnn = CnnParams(
        widths=(4, 6),
        convs_per_block=(1, 2),
        kernel_size=3,
        activation="sigmoid",
        pooling="max",
        norm="batch",
        dropout=0.0,
        hidden=(7,),
        init="kaiming",
        init_scale=1.0,
    )
    part = Split(data["test"].images[:20], data["test"].labels[:20])
    for arch, params, expected in (("cnn", cnn, [4, 6, 6, 7]), ("speednet", speednet, [24, 5, 6])):
        torch.manual_seed(0)
        model = build(arch, params, mean=(128.0,) * 3, std=(60.0,) * 3, classes=10)
        rows = units.measure(model, part, batch_size=8, place=cpu)
        assert [row["units"] for row in rows] == expected
        assert not any(layer._forward_hooks for layer in model.modules())
        key = "saturated" if arch == "cnn" else "dead"
        assert all(0 <= row[key] <= 1 for row in rows)
