"""Optimisers and learning-rate schedules."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from pipeline.params import TrainParams


def build(params: TrainParams, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimiser of `train.optimizer`; weight decay acts on weights, not on biases and normalisation."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": params.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if params.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=params.lr, betas=(params.momentum, 0.999), fused=_fused(matrices))
    return torch.optim.SGD(
        groups, lr=params.lr, momentum=params.momentum, nesterov=params.momentum > 0, fused=_fused(matrices)
    )


def learning_rate(params: TrainParams, step: int, steps: int) -> float:
    """Return the learning rate of one step: a pure function, so a resumed run needs no scheduler state.

    Linear warm-up from 0 over `warmup * steps` steps; then "constant", "cosine" (half a cosine to 0; Loshchilov &
    Hutter 2017) or "onecycle" (linear to 0; the triangle of Smith 2018, momentum kept constant).

    Args:
        step: 0..steps - 1.
        steps: of the whole training.
    """
    position = step + 1  # so that the first step already moves and a warm-up of one step is none
    warmup = params.warmup * steps
    if position < warmup:
        return params.lr * position / warmup
    progress = (position - warmup) / max(steps + 1 - warmup, 1)  # reaches 1 one step after the last
    if params.schedule == "constant":
        return params.lr
    if params.schedule == "cosine":
        return params.lr * (1 + math.cos(math.pi * progress)) / 2
    return params.lr * (1 - progress)


def _fused(parameters: Iterable[nn.Parameter]) -> bool:
    """Tell whether PyTorch should update all parameters in one kernel; on a CPU that kernel is the slower way."""
    return all(parameter.is_cuda for parameter in parameters)
