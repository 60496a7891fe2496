"""Where a convolutional network has feature maps, and which pixels of the image each of their numbers depends on."""

import functools
from dataclasses import dataclass

from torch import nn

from pipeline.errors import InspectionError
from pipeline.models.cnn.network import Network as Cnn
from pipeline.models.common.layers import ACTIVATIONS
from pipeline.models.resnet.network import Network as Resnet
from pipeline.models.resnet.network import ResidualBlock
from pipeline.models.speednet.network import Network as Speednet
from pipeline.models.speednet.network import Whitening

POINTWISE = (nn.BatchNorm2d, nn.Dropout, nn.Identity, *{type(make()) for make in ACTIVATIONS.values()})
"""Layers that leave every number at its place."""


@dataclass(frozen=True)
class Field:
    """The square of pixels that one number of a feature map depends on, as a function of its row and column.

    Attributes:
        size: of the square's side in pixels.
        stride: pixels from one square to the next.
        start: first row and column of the square of the map's first number; below 0 where it begins in the padding.
    """

    size: int
    stride: int
    start: int

    def box(self, row: int, column: int) -> tuple[int, int, int, int]:
        """Return first row, first column, and the row and column after the last; they may lie outside the image."""
        top, left = (self.start + self.stride * place for place in (row, column))
        return top, left, top + self.size, left + self.size


PIXEL = Field(size=1, stride=1, start=0)


@dataclass(frozen=True)
class Stage:
    """A part of a network that ends with a feature map, those before it included in `field`.

    Attributes:
        name: as in the network's `named_modules`; of the first if there are several.
        layers: that run one after the other; the last one's output is the feature map.
    """

    name: str
    layers: tuple[nn.Module, ...]
    field: Field


def stages(model: nn.Module) -> tuple[Stage, ...]:
    """Return a network's stages from the image to the last feature map: its blocks, stages or groups.

    Raises:
        InspectionError: it is no convolutional network, or none that is known here.
    """
    parts: list[tuple[nn.Module, ...]]
    match model:
        case Cnn():
            parts = [(block,) for block in model.blocks]
        case Resnet():
            parts = [(model.stem,), *((stage,) for stage in model.stages)]
        case Speednet():
            parts = [(model.first, model.activation), *((group,) for group in model.groups)]
        case _:
            name = type(model).__name__.lower()
            raise InspectionError(
                f"model.arch: found {name}, which has no feature maps; expected cnn, resnet or speednet"
            )
    names = {module: name for name, module in model.named_modules()}
    found, field = [], PIXEL
    for layers in parts:
        field = functools.reduce(through, layers, field)
        found.append(Stage(names[layers[0]], layers, field))
    return tuple(found)


def through(field: Field, module: nn.Module) -> Field:
    """Return the receptive field after a module, given the one before it.

    The rules are those of Araujo, Norris & Sim 2019 (https://distill.pub/2019/computing-receptive-fields).
    """
    match module:
        case nn.Sequential():
            return functools.reduce(through, module, field)
        case ResidualBlock():
            paths = (through(field, module.residual), through(field, module.shortcut))
            start = min(path.start for path in paths)
            end = max(path.start + path.size for path in paths)
            return Field(end - start, paths[0].stride, start)
        case Whitening():
            return _slid(field, module.filters.shape[-1])
        case nn.Conv2d():
            return _slid(field, module.kernel_size[0], module.stride[0], int(module.padding[0]))
        case nn.MaxPool2d() | nn.AvgPool2d():
            return _slid(field, *(_one(value) for value in (module.kernel_size, module.stride, module.padding)))
    assert isinstance(module, POINTWISE), f"unknown receptive field: {type(module).__name__}"
    return field


def _slid(field: Field, kernel: int, stride: int = 1, padding: int = 0) -> Field:
    return Field(field.size + (kernel - 1) * field.stride, field.stride * stride, field.start - padding * field.stride)


def _one(value: int | tuple[int, int]) -> int:
    """Return the side of a window that is square."""
    return value if isinstance(value, int) else value[0]
