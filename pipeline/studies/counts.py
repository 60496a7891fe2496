"""Weights and multiply-accumulates of networks, counted on PyTorch's meta device without allocating weights.

torch is imported inside functions: it takes seconds, which printing a plan does not need.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.config.schema import ModelParams
from pipeline.config.section import CLASSES, IMAGE_SIDE

if TYPE_CHECKING:
    from torch import nn

CHANNELS = 3


@dataclass(frozen=True)
class Count:
    """Trainable parameters and multiply-accumulates for one image; parameters also of two kinds of layers."""

    parameters: int
    macs: int
    conv_parameters: int
    dense_parameters: int


def network(params: ModelParams) -> Count:
    """Count the weights of a network and its multiply-accumulates for an image of 32 x 32 px."""
    from pipeline.models.common.build import build

    section = params.section
    mean, std = (0.0,) * CHANNELS, (1.0,) * CHANNELS
    return _count(lambda: build(params.arch, section, mean=mean, std=std, classes=CLASSES), IMAGE_SIDE)


def dense_layer(side: int, units: int) -> Count:
    """Count a fully connected layer without bias on a colour image of side x side px."""
    from torch import nn

    return _count(lambda: _on_images(nn.Flatten(), nn.Linear(CHANNELS * side * side, units, bias=False)), side)


def conv_layer(side: int, filters: int) -> Count:
    """Count a 3x3 convolution without bias on a colour image of side x side px, with padding."""
    from torch import nn

    return _count(lambda: _on_images(nn.Conv2d(CHANNELS, filters, 3, padding=1, bias=False)), side)


def _count(build: "Callable[[], nn.Module]", side: int) -> Count:
    import torch
    from torch import nn

    from pipeline.models.common import cost

    with torch.device("meta"):
        model = build()
    parameters, macs = cost.cost(model, side)
    return Count(parameters, macs, _parameters(model, nn.Conv2d), _parameters(model, nn.Linear))


def _on_images(*layers: "nn.Module") -> "nn.Sequential":
    """Put the normalisation of grey levels before layers."""
    import torch
    from torch import nn

    from pipeline.models.common.layers import Normalize

    return nn.Sequential(Normalize(torch.zeros(CHANNELS), torch.ones(CHANNELS)), *layers)


def _parameters(model: "nn.Module", kind: "type[nn.Module]") -> int:
    layers = (module for module in model.modules() if isinstance(module, kind))
    return sum(weights.numel() for layer in layers for weights in layer.parameters() if weights.requires_grad)
