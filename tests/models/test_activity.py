"""Saturated outputs and dead units, counted on layers whose answer is known by construction."""

import pytest
import torch
from torch import nn

from pipeline.models.common import activity
from pipeline.models.common.activity import Activity
from pipeline.models.common.layers import ACTIVATIONS


def test_every_activation_is_known_and_found_by_name():
    """In the order of the network; other layers are none."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Sequential(*(make() for make in ACTIVATIONS.values())), nn.Linear(4, 1)
    )
    found = activity.activation_layers(model)
    assert list(found) == [f"1.{index}" for index in range(len(ACTIVATIONS))]
    assert list(found.values()) == list(model[1])


@pytest.mark.parametrize(
    ("layer", "inputs"),
    # tanh(1.8) is 0.947, tanh(1.9) 0.956; sigmoid(2.9) is 0.948, sigmoid(3.0) 0.953.
    [
        (nn.Tanh(), [-9.0, -1.9, -1.8, 0.0, 1.8, 1.9, 2.0, 9.0]),
        (nn.Sigmoid(), [-9.0, -3.0, -2.9, 0.0, 2.9, 3.0, 4.0, 9.0]),
    ],
)
def test_outputs_near_either_end_of_the_range_are_saturated(layer, inputs):
    """Five of eight are within 0.05 of an end, two are just not."""
    outputs = layer(torch.tensor(inputs).reshape(2, 4))
    found = activity.measure(outputs, layer)
    assert found == Activity(mean=pytest.approx(outputs.mean().item()), saturated=5 / 8, dead=None)


@pytest.mark.parametrize("layer", [nn.ReLU(), nn.LeakyReLU(), nn.GELU(), nn.SiLU()])
def test_a_unit_is_dead_if_no_image_makes_it_positive(layer):
    """Of four units one is never positive, one only for one image."""
    inputs = torch.tensor([[-1.0, -1.0, 1.0, 2.0], [-3.0, 0.5, 1.0, 2.0], [-0.1, -1.0, 1.0, -2.0]])
    outputs = layer(inputs)
    expected = Activity(mean=pytest.approx(outputs.mean().item()), saturated=None, dead=1 / 4)
    assert activity.measure(outputs, layer) == expected


def test_a_filter_is_dead_only_if_it_is_so_everywhere():
    """A bias of -1000 kills one filter of three; another fires at one position of one image."""
    convolution = nn.Conv2d(1, 3, 1)
    with torch.no_grad():
        convolution.weight.copy_(torch.tensor([1.0, 1.0, 1.0]).reshape(3, 1, 1, 1))
        convolution.bias.copy_(torch.tensor([0.5, -1000.0, -9.5]))
    images = torch.zeros(2, 1, 4, 4)
    images[1, 0, 2, 3] = 10
    assert activity.measure(torch.relu(convolution(images)), nn.ReLU()).dead == pytest.approx(1 / 3)


def test_a_unit_of_tokens_is_dead_only_if_it_is_so_for_all_of_them():
    """(N, tokens, C): of three units one is positive for one token of one image, one never."""
    outputs = torch.zeros(2, 5, 3)
    outputs[:, :, 0] = 1
    outputs[1, 4, 1] = 1
    assert activity.measure(outputs, nn.GELU()).dead == pytest.approx(1 / 3)


@pytest.mark.parametrize("layer", [nn.ReLU(), nn.Tanh()])
def test_batches_add_up(layer):
    """A unit that fires in another batch only is alive; unequal batches have their weight in the mean."""
    outputs = layer(2 * torch.randn(50, 30, 2, 2, generator=torch.Generator().manual_seed(0)) - 4)
    tally = activity.Tally(layer)
    for batch in outputs.split([7, 40, 3]):
        tally.add(batch)
    whole, found = activity.measure(outputs, layer), tally.activity()
    assert found.mean == pytest.approx(whole.mean)
    assert (found.saturated, found.dead) == (whole.saturated, whole.dead)
    share = whole.dead if whole.saturated is None else whole.saturated
    assert 0 < share < 1
