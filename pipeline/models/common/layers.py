"""What several architectures share: normalisation of the input, activations, initialisation."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}

INITS: dict[str, Callable[[Tensor], Tensor]] = {
    "kaiming": lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"),  # He et al. 2015
    "xavier": nn.init.xavier_normal_,  # Glorot & Bengio 2010
    "orthogonal": nn.init.orthogonal_,  # Saxe et al. 2014
}


class Normalize(nn.Module):
    """Turn grey levels into inputs of zero mean and unit variance: (N, C, H, W) uint8 or float to float32."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.to(torch.float32).reshape(1, -1, 1, 1))
        # A channel without any contrast is only centred.
        self.register_buffer("std", torch.where(std > 0, std, 1.0).to(torch.float32).reshape(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images.float() - self.mean) / self.std


@torch.no_grad()
def initialize(module: nn.Module, init: str, scale: float = 1.0) -> None:
    """Draw the weights of all convolutions and fully connected layers anew and set their biases to 0.

    Args:
        scale: factor on the weights of all layers but the last. That one gives the class scores: nothing normalises
            them, so scaling it would change the temperature of the softmax, and batch norm could not undo it.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer in layers:
        INITS[init](layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    for layer in layers[:-1]:
        layer.weight *= scale


def fully_connected(
    inputs: int, hidden: Sequence[int], outputs: int, *, activation: str, norm: str, dropout: float
) -> nn.Sequential:
    """Return layers of [linear, norm, activation, dropout] for each hidden width and a last linear layer."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers.append(nn.Linear(inputs, width, bias=norm == "none"))
        if norm == "batch":
            layers.append(nn.BatchNorm1d(width))
        layers.append(ACTIVATIONS[activation]())
        if dropout:
            layers.append(nn.Dropout(dropout))
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))
