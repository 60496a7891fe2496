"""What a network costs: parameters, multiply-accumulate operations and bytes, in all and layer by layer."""

from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pipeline.config.section import IMAGE_SIDE
from pipeline.models.common import numerics
from pipeline.models.common.build import show_black_image


@dataclass(frozen=True)
class LayerCost:
    """One layer's share of training on one image: its forward pass and what a training needs of its backward pass.

    Bytes are those that have to move if each tensor of a pass is read or written once, in the precision it is in.

    Attributes:
        name: of the module, e.g. "blocks.0.0".
        kind: its class, e.g. "Conv2d".
        output: shape of what it gives for one image.
        parameters: trainable ones of its own.
        macs: multiply-accumulate operations of convolutions and matrix products, forward; 0 for other layers.
        backward_macs: as many as `macs` if its weights are trained, for their gradient, and as many again if
            something before it is trained, for the gradient of its input; products of two inputs (attention) have
            the gradients of both.
        forward_bytes: input read and output written; 0 for a layer that hands its input on.
        backward_bytes: gradient of the output read and the input read again, and the gradient of the input written
            if something before is trained; 0 if nothing up to here is trained.
        weight_bytes: once a step, whatever the batch: its weights and buffers read, read again for the gradient of
            the input, their gradient written.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    macs: int
    backward_macs: int
    forward_bytes: int
    backward_bytes: int
    weight_bytes: int


def cost(model: nn.Module, side: int = IMAGE_SIDE) -> tuple[int, int]:
    """Return a network's trainable parameters and the multiply-accumulate operations (MACs) for one image.

    Convolutions and matrix products are counted, as is customary; one MAC is two floating-point operations.
    """
    with FlopCounterMode(display=False) as counter, _countable_attention(), torch.no_grad():
        show_black_image(model, side)
    return _trainable(model), counter.get_total_flops() // 2


def by_layer(model: nn.Module, side: int = IMAGE_SIDE, precision: str = "fp32") -> list[LayerCost]:
    """Return the cost of each layer (a module without children) in the order in which they run.

    Functions between layers, e.g. a residual block's sum, belong to none and are not counted; nor is dropout, which
    is off here.

    Args:
        precision: "bf16" or "fp32", as the forward pass is computed in.
    """
    layers: list[LayerCost] = []
    counter = FlopCounterMode(display=False)
    started: dict[str, int] = {}

    def before(name: str, *_: object) -> None:
        started[name] = counter.get_total_flops() // 2

    def after(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        macs = counter.get_total_flops() // 2 - started[name]
        layers.append(_layer_cost(name, module, inputs[0], output, macs))

    place = next(model.parameters()).device
    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if not list(module.children()):
                hooks.enter_context(module.register_forward_pre_hook(partial(before, name)))
                hooks.enter_context(module.register_forward_hook(partial(after, name)))
        # gradients: to see where they go
        with counter, _countable_attention(), torch.enable_grad(), numerics.autocast(place, precision):
            show_black_image(model, side)
    return layers


def _countable_attention() -> AbstractContextManager[None]:
    """Return the context in which attention is matrix products: the counter does not see into fused kernels."""
    return sdpa_kernel(SDPBackend.MATH)


def _layer_cost(name: str, module: nn.Module, given: Tensor, output: Tensor, macs: int) -> LayerCost:
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    weights = [tensor for tensor in own if tensor.ndim >= 2]
    trained = any(weight.requires_grad for weight in weights) if weights else given.requires_grad
    read, written = _bytes(given), _bytes(output)
    reads_weights = 1 + given.requires_grad
    return LayerCost(
        name,
        kind=type(module).__name__,
        output=tuple(output.shape[1:]),
        parameters=_trainable(module),
        macs=macs,
        backward_macs=macs * (trained + given.requires_grad),
        forward_bytes=0 if output is given else read + written,
        backward_bytes=(
            written + read * (1 + given.requires_grad) if output.requires_grad and output is not given else 0
        ),
        weight_bytes=reads_weights * sum(map(_bytes, own)) + sum(_bytes(one) for one in own if one.requires_grad),
    )


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _trainable(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
