"""Optimisers and learning-rate schedules."""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.params import TrainParams


def build(params: TrainParams, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimiser of `train.optimizer`; weight decay acts on weights, not on biases and normalisation.

    Each group's peak learning rate is in its "initial_lr", as torch's own schedulers have it; `set_rate` scales it.
    """
    weights = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    decayed = {"params": weights, "weight_decay": params.weight_decay}
    plain = {"params": vectors, "weight_decay": 0.0}
    # On a CPU, PyTorch's single kernel for the whole update is the slower way.
    fused = all(parameter.is_cuda for parameter in weights)
    optimizer: torch.optim.Optimizer
    if params.optimizer == "muon":
        last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1].weight
        hidden = [weight for weight in weights if weight is not last]
        optimizer = Muon(
            hidden,
            [*vectors, last],
            lr=params.lr,
            lr_rest=params.lr_rest,
            momentum=params.momentum,
            weight_decay=params.weight_decay,
        )
    elif params.optimizer == "adamw":
        optimizer = torch.optim.AdamW([decayed, plain], lr=params.lr, betas=(params.momentum, 0.999), fused=fused)
    else:
        optimizer = torch.optim.SGD(
            [decayed, plain], lr=params.lr, momentum=params.momentum, nesterov=params.momentum > 0, fused=fused
        )
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to `factor` (0..1) of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def schedule(params: TrainParams, step: int, steps: int) -> float:
    """Return the factor (0..1) on the learning rate in one step: a pure function, so nothing needs to be resumed.

    Linear warm-up from 0 over `warmup * steps` steps; then "constant", "cosine" (half a cosine to 0; Loshchilov &
    Hutter 2017) or "onecycle" (linear to 0; the triangle of Smith 2018, with constant momentum).

    Args:
        step: 0..steps - 1.
        steps: of the whole training.
    """
    position = step + 1  # so that the first step already moves and a warm-up of one step is none
    warmup = params.warmup * steps
    if position < warmup:
        return position / warmup
    progress = (position - warmup) / (steps + 1 - warmup)  # reaches 1 one step after the last
    if params.schedule == "constant":
        return 1.0
    if params.schedule == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    return 1 - progress


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised: each weight matrix moves by the nearest matrix whose singular values are all 1.

    Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon). A convolution's filters count as the rows of a
    matrix. As in PyTorch's own Muon, which takes no convolutions, the step of a matrix with more rows than columns
    is enlarged by the root of their ratio, and weight decay is decoupled. Biases, normalisation and the last layer
    go by SGD with Nesterov momentum and a learning rate of their own.

    Args:
        hidden: weights of two dimensions or more.
        rest: all other parameters.
        lr, lr_rest: learning rates of the two groups.
        momentum: of both.
        weight_decay: of the hidden weights; each step scales them by 1 - lr * weight_decay.
    """

    def __init__(
        self,
        hidden: Sequence[Tensor],
        rest: Sequence[Tensor],
        *,
        lr: float,
        lr_rest: float,
        momentum: float,
        weight_decay: float,
    ) -> None:
        groups = [
            {"params": list(hidden), "lr": lr, "orthogonal": True},
            {"params": list(rest), "lr": lr_rest, "orthogonal": False},
        ]
        super().__init__(
            [group for group in groups if group["params"]], {"momentum": momentum, "weight_decay": weight_decay}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Move all parameters once by their gradients."""
        assert closure is None
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            updates = [self._nesterov(parameter, group["momentum"]) for parameter in parameters]
            if not group["orthogonal"]:
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.add_(update, alpha=-group["lr"])
                continue
            by_shape = defaultdict(list)
            for parameter, update in zip(parameters, updates, strict=True):
                by_shape[parameter.shape].append((parameter, update))
            for shape, pairs in by_shape.items():
                matrices = torch.stack([update.reshape(len(update), -1) for _, update in pairs])
                scale = max(1.0, matrices.shape[1] / matrices.shape[2]) ** 0.5
                for (parameter, _), step in zip(pairs, orthogonalize(matrices), strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(step.view(shape), alpha=-group["lr"] * scale)

    def _nesterov(self, parameter: Tensor, momentum: float) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        assert parameter.grad is not None
        buffer: Tensor = state["momentum_buffer"].mul_(momentum).add_(parameter.grad)
        return parameter.grad.add(buffer, alpha=momentum)


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """Return roughly U V^T of each matrix's singular value decomposition U S V^T, by Newton-Schulz iteration.

    The polynomial's coefficients are Jordan's: they bring singular values quickly into 0.7..1.2 rather than slowly
    to exactly 1, which serves an optimiser as well.

    Args:
        matrices: (B, M, N), any float dtype; rank and scale don't matter.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = x.mT if tall else x
    return result
