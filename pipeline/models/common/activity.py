"""Outputs of activation layers: their mean, the share that is saturated, the units that are dead.

Saturation is of activations with a range, sigmoid and tanh, whose slope vanishes at its ends (Glorot & Bengio 2010,
https://proceedings.mlr.press/v9/glorot10a.html). Dead units are of activations that let positive values through and
hardly any others (ReLU, leaky ReLU, GELU, SiLU): units that are positive for no image (Lu et al. 2019,
https://arxiv.org/abs/1903.06733).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

MARGIN = 0.05
"""An output is saturated if it is no further than this from an end of its activation's range."""

RANGES: dict[type[nn.Module], tuple[float, float]] = {nn.Sigmoid: (0.0, 1.0), nn.Tanh: (-1.0, 1.0)}
RECTIFIERS = (nn.ReLU, nn.LeakyReLU, nn.GELU, nn.SiLU)


@dataclass(frozen=True)
class Activity:
    """The outputs of one activation layer for some images.

    Attributes:
        mean: of all outputs.
        saturated: share of all outputs that are saturated, 0..1; None for activations without a range.
        dead: share of the units without a positive output for any image, 0..1; None for activations with a range. A
            unit is a channel: it is dead if it is positive at no position or token.
    """

    mean: float
    saturated: float | None
    dead: float | None


def activation_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the activation layers of a network by name, e.g. "blocks.0.2", in the order in which they were made."""
    kinds: tuple[type[nn.Module], ...] = (*RANGES, *RECTIFIERS)
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, kinds)}


@contextmanager
def watched(
    model: nn.Module, layers: Mapping[str, nn.Module], listener: Callable[[str, nn.Module, Tensor], None]
) -> Iterator[None]:
    """Call `listener(name, layer, output)` whenever one of a network's layers runs inside the block.

    A layer that runs several times in a forward pass has a name for each time: "relu", "relu (2)", "relu (3)".
    """
    runs: Counter[str] = Counter()

    def note(layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor, *, name: str) -> None:
        runs[name] += 1
        listener(name if runs[name] == 1 else f"{name} ({runs[name]})", layer, output)

    with ExitStack() as hooks:
        hooks.enter_context(model.register_forward_pre_hook(lambda _model, _inputs: runs.clear()))
        for name, layer in layers.items():
            hooks.enter_context(layer.register_forward_hook(partial(note, name=name)))
        yield


def measure(outputs: Tensor, layer: nn.Module) -> Activity:
    """Return the activity of a layer from its outputs for all images at once; `Tally` takes batches."""
    tally = Tally(layer)
    tally.add(outputs)
    return tally.activity()


class Tally:
    """Adds up the outputs of one activation layer over batches.

    Attributes:
        units: of the layer; 0 before the first batch.
    """

    def __init__(self, layer: nn.Module) -> None:
        self.range = RANGES.get(type(layer))
        self.units = 0
        self.count, self.total, self.saturated = 0, 0.0, 0
        self.alive: Tensor | None = None

    def add(self, outputs: Tensor) -> None:
        """Add the outputs (N, C), (N, C, H, W) or, of tokens, (N, L, C) for a batch; waits for their device."""
        channels = outputs.movedim(1 if outputs.ndim == 4 else -1, 0)
        self.units = len(channels)
        self.count += outputs.numel()
        self.total += outputs.mean(dtype=torch.float32).item() * outputs.numel()
        if self.range:
            low, high = self.range
            self.saturated += int(((outputs <= low + MARGIN) | (outputs >= high - MARGIN)).sum())
        else:
            alive = (channels > 0).flatten(1).any(1)
            self.alive = alive if self.alive is None else self.alive | alive

    def activity(self) -> Activity:
        """Return the activity over all outputs added, of which there is at least one."""
        return Activity(
            mean=self.total / self.count,
            saturated=self.saturated / self.count if self.range else None,
            dead=None if self.alive is None else int((~self.alive).sum()) / len(self.alive),
        )
