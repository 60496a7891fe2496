"""What training a network costs, layer by layer, against closed forms and against a real backward pass."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pipeline.models.common import cost
from tests.models.test_networks import network


def costs(model, side=32, precision="fp32") -> dict[str, cost.LayerCost]:
    return {layer.name: layer for layer in cost.by_layer(model, side, precision)}


def test_nothing_before_the_first_trained_layer_has_a_backward_pass():
    """Whitening is fixed, the first trained convolution needs no gradient of its input, all after it need both."""
    layers = costs(network("speednet", widths=(4, 8), convs_per_group=2, patch=2), side=24)
    expected = {
        "first": (24 * 12 * 23 * 23, 0),
        "groups.0.0": (9 * 24 * 4 * 23 * 23, 1),
        "groups.0.4": (9 * 4 * 4 * 11 * 11, 2),
        "groups.1.0": (9 * 4 * 8 * 11 * 11, 2),
        "groups.1.4": (9 * 8 * 8 * 5 * 5, 2),
        "head": (8 * 10, 2),
    }
    found = {name: (layer.macs, layer.backward_macs) for name, layer in layers.items() if layer.macs}
    assert found == {name: (macs, macs * backward) for name, (macs, backward) in expected.items()}
    assert [layers[name].backward_bytes for name in ("normalize", "first", "activation")] == [0, 0, 0]


@pytest.mark.parametrize(
    ("arch", "changes"),
    [
        ("cnn", {"hidden": (12,)}),
        ("cnn", {"pooling": "stride", "convs_per_block": 2, "norm": "batch"}),
        ("mlp", {}),
        ("resnet", {}),
        ("speednet", {}),
        ("speednet", {"whitening": False}),
        ("vit", {"pooling": "token"}),
    ],
)
def test_forward_and_backward_are_as_many_operations_as_a_real_pass_makes(arch, changes):
    """Counted by PyTorch in a forward and a backward pass over two images."""
    model = network(arch, **changes)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).sum().backward()
    layers = cost.by_layer(model)
    assert 2 * 2 * sum(layer.macs + layer.backward_macs for layer in layers) == counter.get_total_flops()


def test_a_frozen_layer_hands_gradients_on_without_one_of_its_own():
    """One product backward instead of two."""
    model = network("mlp", hidden=(20, 30))
    model.classifier[2].requires_grad_(False)
    layers = costs(model)
    assert layers["classifier.0"].backward_macs == 3072 * 20
    assert layers["classifier.2"].backward_macs == 20 * 30
    assert layers["classifier.4"].backward_macs == 2 * 30 * 10


@pytest.mark.parametrize(("precision", "size"), [("fp32", 4), ("bf16", 2)])
def test_bytes_are_those_of_each_tensor_once(precision, size):
    """Input and output forward; gradient of the output, the input again and its gradient backward."""
    layers = costs(network("cnn", norm="batch"), precision=precision)
    first, second = 8 * 32 * 32 * size, 8 * 16 * 16 * size  # of a channel of the first and after pooling
    grey, normalised = 3 * 32 * 32, 4 * 3 * 32 * 32
    moved = {name: (layer.forward_bytes, layer.backward_bytes) for name, layer in layers.items()}
    assert moved["normalize"] == (grey + normalised, 0)
    assert moved["blocks.0.0"] == (normalised + first, first + normalised)
    assert moved["blocks.0.1"] == (2 * first, 3 * first)
    assert moved["blocks.0.3"] == (first + second, second + 2 * first)
    assert moved["blocks.1.0"] == (second + 2 * second, 2 * second + 2 * second)


def test_weights_move_once_forward_and_again_for_gradients():
    """4 bytes each: read, read again for the input's gradient, their own gradient written."""
    layers = costs(network("speednet", widths=(4, 8)), precision="bf16")
    assert layers["first"].weight_bytes == 4 * 24 * 12
    assert layers["groups.0.0"].weight_bytes == 2 * 4 * 9 * 24 * 4
    assert layers["groups.0.4"].weight_bytes == 3 * 4 * 9 * 4 * 4
    assert layers["head"].weight_bytes == 3 * 4 * 8 * 10


def test_a_shortcut_that_hands_on_costs_nothing_and_looking_changes_nothing():
    """No bytes for an identity; the network is as it was, also for who looks without gradients."""
    model = network("resnet").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        layers = costs(model)
    identity = layers["stages.0.0.shortcut"]
    assert (identity.kind, identity.forward_bytes, identity.backward_bytes) == ("Identity", 0, 0)
    assert layers["classifier"].backward_macs == 2 * layers["classifier"].macs
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
