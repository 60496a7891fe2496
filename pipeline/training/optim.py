"""Optimisers, learning-rate schedules, and the moving average of weights."""

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.config.schema import OptimizerParams, TrainParams
from pipeline.models.common.build import head


def build(params: OptimizerParams, model: nn.Module, *, precision: str) -> torch.optim.Optimizer:
    """Return the optimiser of `optimizer.name`; weight decay acts on weights, not on vectors (see `_is_vector`).

    Args:
        precision: "fp32" or "bf16", which muon's Newton-Schulz iterations compute in.

    Each group's peak learning rate is in its "initial_lr", as torch's own schedulers have it; `set_rate` scales it.
    On a GPU the rates are tensors and a step synchronises nothing, so that it can be recorded as a CUDA graph.
    """
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    trained = list(named.values())
    weights = [parameter for name, parameter in named.items() if not _is_vector(name, parameter)]
    vectors = [parameter for name, parameter in named.items() if _is_vector(name, parameter)]
    # On a CPU, PyTorch's single kernel for the whole update is the slower way.
    on_gpu = _on_gpu(trained)
    optimizer: torch.optim.Optimizer
    if params.name == "muon":
        muon, last = params.muon, head(model)
        of_head = {id(parameter) for parameter in last.parameters()} if last else set()
        optimizer = Muon(
            [weight for weight in weights if id(weight) not in of_head],
            vectors,
            [weight for weight in weights if id(weight) in of_head],
            lr=muon.lr,
            lr_vectors=muon.lr_vectors,
            lr_head=muon.lr_head,
            momentum=muon.momentum,
            weight_decay=muon.weight_decay,
            steps=muon.steps,
            precision=precision,
        )
    elif params.name == "adamw":
        adamw = params.adamw
        optimizer = torch.optim.AdamW(
            _decayed(weights, vectors, adamw.weight_decay),
            lr=adamw.lr,
            betas=(adamw.beta1, 0.999),
            fused=on_gpu,
            capturable=on_gpu,
        )
    else:
        sgd = params.sgd
        optimizer = torch.optim.SGD(
            _decayed(weights, vectors, sgd.weight_decay),
            lr=sgd.lr,
            momentum=sgd.momentum,
            nesterov=sgd.momentum > 0,
            fused=on_gpu,
        )
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
        if on_gpu:
            group["lr"] = torch.tensor(group["lr"], device=trained[0].device)
    return optimizer


def _on_gpu(parameters: Sequence[Tensor]) -> bool:
    return all(parameter.is_cuda for parameter in parameters)


def _is_vector(name: str, parameter: Tensor) -> bool:
    """Say whether a parameter is no matrix from inputs to outputs: biases, normalisation, tokens, positions, scales.

    A parameter that is not the `weight` of a layer is a vector, too, if it has one row or one column as Muon reshapes
    it, like a class token (1, 1, D), positions (1, N, D) or scales of channels (C, 1, 1). Such a matrix has a single
    singular value: orthogonalised, a step would have the same length however small its gradient is.
    """
    return parameter.ndim < 2 or (
        not name.endswith("weight") and 1 in (len(parameter), parameter.numel() // len(parameter))
    )


def _decayed(weights: Sequence[Tensor], vectors: Sequence[Tensor], weight_decay: float) -> list[dict[str, Any]]:
    return [{"params": weights, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to `factor` (0..1) of its peak."""
    for group in optimizer.param_groups:
        rate = group["initial_lr"] * factor
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


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
    is enlarged by the root of their ratio, and weight decay is decoupled. Vectors and the last layer go by SGD with
    Nesterov momentum and learning rates of their own.

    Args:
        hidden: weights of two dimensions or more.
        vectors: biases, normalisation, tokens, positions.
        head: weights of the last layer.
        lr, lr_vectors, lr_head: learning rates of the three.
        momentum: of all three.
        weight_decay: of the hidden weights; each step scales them by 1 - lr * weight_decay.
        steps: Newton-Schulz iterations.
        precision: "fp32" or "bf16", which they compute in.
    """

    def __init__(
        self,
        hidden: Sequence[Tensor],
        vectors: Sequence[Tensor],
        head: Sequence[Tensor],
        *,
        lr: float,
        lr_vectors: float,
        lr_head: float,
        momentum: float,
        weight_decay: float,
        steps: int = 5,
        precision: str = "fp32",
    ) -> None:
        groups = [
            {"params": list(hidden), "lr": lr, "orthogonal": True},
            {"params": list(vectors), "lr": lr_vectors, "orthogonal": False},
            {"params": list(head), "lr": lr_head, "orthogonal": False},
        ]
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "steps": steps}
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        super().__init__([group for group in groups if group["params"]], defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Move all parameters once by their gradients."""
        assert closure is None
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            updates = self._nesterov(parameters, group["momentum"])
            if group["orthogonal"]:
                updates = _orthogonalized(updates, group["steps"], self.dtype)
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            _descend(parameters, updates, group["lr"])

    def _nesterov(self, parameters: list[Tensor], momentum: float) -> list[Tensor]:
        for parameter in parameters:
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        buffers = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, gradients)
        return list(torch._foreach_add(gradients, buffers, alpha=momentum))


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """Return roughly U V^T of each matrix's singular value decomposition U S V^T, by Newton-Schulz iteration.

    The polynomial's coefficients are Jordan's: they bring singular values quickly into 0.7..1.2 rather than slowly
    to exactly 1, which serves an optimiser as well.

    Args:
        matrices: (B, M, N), any float dtype; rank and scale don't matter.
        steps: iterations; 3 leave the singular values further apart (about 0.3..1.2) and cost less.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = torch.bmm(x, x.mT)
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, factor, x, beta=a)  # a x + (b gram + c gram^2) x
    result: Tensor = x.mT if tall else x
    return result


def _orthogonalized(updates: list[Tensor], steps: int, dtype: torch.dtype) -> list[Tensor]:
    """Orthogonalise tensors, all of one shape in one batch."""
    by_shape = defaultdict(list)
    for index, update in enumerate(updates):
        by_shape[update.shape].append(index)
    result = list(updates)
    for shape, indices in by_shape.items():
        matrices = torch.stack([updates[index].reshape(shape[0], -1) for index in indices])
        scale = max(1.0, matrices.shape[1] / matrices.shape[2]) ** 0.5
        orthogonal = orthogonalize(matrices.to(dtype), steps) * scale
        for index, matrix in zip(indices, orthogonal.to(matrices.dtype), strict=True):
            result[index] = matrix.view(shape)
    return result


def _descend(parameters: list[Tensor], updates: list[Tensor], lr: float | Tensor) -> None:
    if isinstance(lr, Tensor):
        torch._foreach_sub_(parameters, torch._foreach_mul(updates, lr))
    else:
        torch._foreach_add_(parameters, updates, alpha=-lr)


class MovingAverage:
    """A copy of the network whose weights and statistics follow it: average = decay * average + (1 - decay) * new.

    torch.optim.swa_utils.AveragedModel would copy its counter to the GPU in every step, which waits for the GPU, and
    average batch norm's counter of batches.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = copy.deepcopy(model), decay

    @torch.no_grad()
    def update(self, model: nn.Module, *, first: bool) -> None:
        """Follow one step; the first copies, so that the initial weights leave no trace."""
        for mine, new in zip(self._tensors(self.model), self._tensors(model), strict=True):
            if first:
                torch._foreach_copy_(mine, new)
            elif mine[0].is_floating_point():
                torch._foreach_lerp_(mine, new, 1 - self.decay)
            else:
                torch._foreach_copy_(mine, new)  # batch norm's counter of batches

    @staticmethod
    def _tensors(model: nn.Module) -> list[list[Tensor]]:
        """Return a network's parameters and buffers, those of one dtype together."""
        tensors = [*model.parameters(), *model.buffers()]
        dtypes = dict.fromkeys(tensor.dtype for tensor in tensors)
        return [[tensor.detach() for tensor in tensors if tensor.dtype == dtype] for dtype in dtypes]
