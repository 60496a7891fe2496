"""What a network costs: parameters, multiply-accumulate operations and bytes, in all and layer by layer."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.params import IMAGE_SIDE


@dataclass(frozen=True)
class LayerCost:
    """One layer's share of a forward pass for one image.

    Attributes:
        name: of the module, e.g. "blocks.0.0".
        kind: its class, e.g. "Conv2d".
        output: shape of what it gives for one image.
        parameters: trainable ones of its own.
        macs: multiply-accumulate operations of convolutions and matrix products; 0 for other layers.
        activation_bytes: of its output in the precision that it was computed in.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    macs: int
    activation_bytes: int


def cost(model: nn.Module, side: int = IMAGE_SIDE) -> tuple[int, int]:
    """Return a network's trainable parameters and the multiply-accumulate operations (MACs) for one image.

    Convolutions and matrix products are counted, as is customary; one MAC is two floating-point operations.
    """
    with FlopCounterMode(display=False) as counter:
        _look(model, side)
    return _trainable(model), counter.get_total_flops() // 2


def by_layer(model: nn.Module, side: int = IMAGE_SIDE) -> list[LayerCost]:
    """Return the cost of each layer (a module without children) in the order in which they run."""
    layers: list[LayerCost] = []
    counter = FlopCounterMode(display=False)

    def record(name: str, module: nn.Module, before: int, output: Tensor) -> None:
        macs = counter.get_total_flops() // 2 - before
        size = output.numel() * output.element_size()
        shape = tuple(output.shape[1:])
        layers.append(LayerCost(name, type(module).__name__, shape, _trainable(module), macs, size))

    started: dict[str, int] = {}
    hooks = []
    for name, module in model.named_modules():
        if not list(module.children()):
            hooks += [
                module.register_forward_pre_hook(
                    lambda *_, name=name: started.update({name: counter.get_total_flops() // 2})
                ),
                module.register_forward_hook(
                    lambda module, _, output, name=name: record(name, module, started[name], output)
                ),
            ]
    try:
        with counter:
            _look(model, side)
    finally:
        for hook in hooks:
            hook.remove()
    return layers


@torch.inference_mode()
def _look(model: nn.Module, side: int) -> None:
    """Show the network one black image, in evaluation mode."""
    training = model.training
    place = next(model.parameters()).device
    model.eval()(torch.zeros(1, 3, side, side, device=place))
    model.train(training)


def _trainable(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
