"""torchvision's models: their own sizes, a stem that keeps the side, messages for those that cannot take 32 px.

Most networks are on the meta device: shapes and counts without the arithmetic.
"""

import pytest
import torch
import torchvision
from torch import nn

from pipeline.errors import ParamsError
from pipeline.models.common.build import head
from tests.models.test_networks import network, pictures

SIDES = {
    "resnet18": (1, 4),
    "mobilenet_v3_small": (1, 2),
    "efficientnet_b0": (1, 2),
    "densenet121": (1, 4),
    "convnext_tiny": (1, 4),
    "vgg11_bn": (2, 2),
    "googlenet": (1, 4),
}
"""Side of the last convolution's maps, with the original stem and with the small one."""


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", SIDES)
def test_models_are_torchvisions_own(name):
    """With ten classes, and without the auxiliary classifiers of googlenet."""
    options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    with torch.device("meta"):
        own = torchvision.models.get_model(name, num_classes=10, **options)
        model = network("torchvision", name=name, stem="original")
    shapes = [{key: value.shape for key, value in one.state_dict().items()} for one in (own, model.model)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("stem", ["original", "small"])
@pytest.mark.parametrize("name", SIDES)
def test_a_small_stem_keeps_the_side_of_the_image(name, stem):
    """Only VGG, whose first convolution has no stride, is as it was; scores are plain, also in training."""
    sides = []
    with torch.device("meta"):
        model = network("torchvision", name=name, stem=stem).train()
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_hook(lambda _, __, output: sides.append(output.shape[-1]))
        scores = model(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    assert scores.shape == (2, 10)
    assert sides[-1] == SIDES[name][stem == "small"]
    assert name == "vgg11_bn" or (sides[0] == 32) == (stem == "small")


def test_a_small_stem_of_resnet_is_that_of_the_cifar_papers():
    """A 3x3 convolution with stride 1 instead of 7x7 with stride 2, no max pool; all else is the same."""
    with torch.device("meta"):
        small, original = (network("torchvision", name="resnet18", stem=stem) for stem in ("small", "original"))
    stem = small.model.conv1
    assert (stem.kernel_size, stem.stride, stem.padding, stem.bias) == ((3, 3), (1, 1), (1, 1), None)
    assert isinstance(small.model.maxpool, nn.Identity)
    assert count(original) - count(small) == 3 * 64 * (7 * 7 - 3 * 3)


def test_activations_do_not_overwrite_their_inputs():
    """What a hook sees of the layer before is what it gave."""
    model = network("torchvision")
    kept = []
    for layer in model.modules():
        if isinstance(layer, nn.ReLU | nn.Hardswish):
            layer.register_forward_hook(lambda _, inputs, output: kept.append(inputs[0] is not output))
    model(pictures(2))
    assert len(kept) > 10
    assert all(kept)


def test_the_head_is_the_last_linear_layer():
    """As Muon and the inspection need."""
    model = network("torchvision")
    assert head(model) is model.model.classifier[-1]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet19", r"found resnet19, expected a classification model of torchvision: (resnet\d+, )+resnet\d+$"),
        ("xyz", "expected a classification model of torchvision: alexnet, convnext_base, "),
        (
            "vit_b_16",
            r"does not take images of 32 px \(Wrong image height!.*\); expected one that does, e\.g\. ",
        ),
        (
            "inception_v3",
            r"found inception_v3, which with model\.torchvision\.stem original does not take ",
        ),
        ("alexnet", "with stem small; a vision transformer is model.arch vit$"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(name, message):
    """It names models that work."""
    with torch.device("meta"), pytest.raises(ParamsError, match=message) as caught:
        network("torchvision", name=name, stem="original")
    assert str(caught.value).startswith("params.yaml: model.torchvision.name: found ")
    assert "\n" not in str(caught.value)
