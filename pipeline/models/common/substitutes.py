"""Substitutes for layers of PyTorch that crash, return wrong gradients or are not deterministic on some device."""

from functools import partial

import torch
from torch import Tensor, nn


def apply(model: nn.Module) -> None:
    """Change a network's layers, whoever wrote it, to what computes the same; weights and their names stay."""
    subsample_before_pointwise(model)
    pool_by_products(model)


def subsample_before_pointwise(model: nn.Module) -> None:
    """Let every 1x1 convolution with a stride be given only the pixels that it uses.

    On CPUs the backward pass of such a convolution, channels last and with few input channels, crashes or returns
    wrong gradients in oneDNN as of torch 2.14 (https://github.com/uxlfoundation/oneDNN/issues/6035); this can go when
    torch ships a oneDNN without that fault.
    """
    for layer in model.modules():
        if not isinstance(layer, nn.Conv2d) or layer.kernel_size != (1, 1) or layer.padding != (0, 0):
            continue
        if layer.stride != (1, 1):
            layer.register_forward_pre_hook(partial(_subsample, layer.stride))
            layer.stride = (1, 1)


def pool_by_products(model: nn.Module) -> None:
    """Replace adaptive average pooling to more than one pixel, whose gradient is not deterministic on a GPU.

    PyTorch then refuses to run it with `train.deterministic`. Pooling to one pixel is a mean, which is deterministic.
    """
    for name, layer in [*model.named_modules()]:
        if type(layer) is nn.AdaptiveAvgPool2d and layer.output_size not in (1, (1, 1)):
            model.set_submodule(name, AdaptiveAvgPool2d(layer.output_size))


class AdaptiveAvgPool2d(nn.AdaptiveAvgPool2d):
    """The same from (N, C, H, W) maps, as one matrix product along each axis."""

    def forward(self, maps: Tensor) -> Tensor:
        size = self.output_size if isinstance(self.output_size, tuple) else (self.output_size, self.output_size)
        rows, columns = (
            _shares(side, outputs or side, maps) for side, outputs in zip(maps.shape[2:], size, strict=True)
        )
        return rows @ maps @ columns.mT


def _shares(inputs: int, outputs: int, like: Tensor) -> Tensor:
    """Return (outputs, inputs) weights: output i is the mean of inputs floor(i * I / O) to ceil((i + 1) * I / O)."""
    output = torch.arange(outputs, device=like.device)[:, None]
    position = torch.arange(inputs, device=like.device)
    begin, end = output * inputs // outputs, -((output + 1) * -inputs // outputs)
    within = ((begin <= position) & (position < end)).to(like.dtype)
    return within / within.sum(1, keepdim=True)


def _subsample(stride: tuple[int, ...], _layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    rows, columns = stride
    return (inputs[0][:, :, ::rows, ::columns],)
