"""One step of a training: gather, augment, forward, backward, update; recorded on a GPU and replayed from there."""

import shutil
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.config.schema import TrainParams
from pipeline.data.loader import TrainLoader
from pipeline.errors import ParamsError
from pipeline.hardware import device
from pipeline.models.common import cost, numerics

WARM_UP_STEPS = 3
"""Steps before a recording, in which libraries choose kernels and the optimiser makes its state."""

WORTH_COMPILING = 2e16
"""Floating-point operations of a training from which compiling saves more than the minute it takes, on a GPU."""

StepFunction = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From indices (B,) of training images to mean loss and number of right answers, scalars on the device."""


class Stepper:
    """Runs one optimisation step per call; captured as a CUDA graph on a GPU.

    On a CUDA GPU the first steps of each batch size and resolution run eagerly, the next is captured as a CUDA graph,
    which is then replayed without host synchronisation. The arithmetic is the same in both cases.

    Attributes:
        preparation_seconds: spent so far in steps that compile or record; no measure of the training's speed.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, loader: TrainLoader, params: TrainParams
    ) -> None:
        self.model, self.optimizer, self.loader, self.params = model, optimizer, loader, params
        self.precision = numerics.choose_precision(params.precision, loader.device)
        compiled = worth_compiling(model, loader, params)
        self.forward: Any = _compiled(model, loader.device, params) if compiled else model
        recorded = _has_graphs(loader.device)
        self.warm_up = WARM_UP_STEPS if recorded else int(compiled)
        self.graphs = _Graphs(self._step) if recorded else None
        self.seen: dict[tuple[int, int], int] = {}
        self.preparation_seconds = 0.0

    def __call__(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Take one step.

        Args:
            indices: (B,) int64 on the device, as `TrainLoader.begin` gives them.

        Returns:
            The batch's mean loss (label smoothing included) and how many it got right: scalars on the device, to be
            read before the next call.
        """
        kind = (len(indices), self.loader.side)
        self.seen[kind] = self.seen.get(kind, 0) + 1
        if self.seen[kind] <= self.warm_up + (self.graphs is not None):
            return self._prepare(kind, indices)
        return self.graphs.replay(kind, indices) if self.graphs else self._step(indices)

    def _prepare(self, kind: tuple[int, int], indices: Tensor) -> tuple[Tensor, Tensor]:
        device.synchronize(self.loader.device)
        started = time.perf_counter()
        if self.graphs and self.seen[kind] > self.warm_up:
            self.graphs.record(kind, indices)
            result = self.graphs.replay(kind, indices)
        else:
            result = self._step(indices)
        device.synchronize(self.loader.device)
        self.preparation_seconds += time.perf_counter() - started
        return result

    def _step(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        images, labels = self.loader.batch(indices)
        loss, logits = train_step(self.forward, self.optimizer, images, labels, self.params, precision=self.precision)
        if self.params.hardest < 1:
            self.loader.losses.index_copy_(0, indices, F.cross_entropy(logits, labels, reduction="none"))
        return loss, (logits.argmax(1) == labels).sum()


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    params: TrainParams,
    *,
    precision: str,
) -> tuple[Tensor, Tensor]:
    """Run one optimisation step without host synchronisation.

    Args:
        images: (B, 3, H, W) uint8.
        labels: (B,) int64.

    Returns:
        The batch's mean loss (label smoothing included), a scalar on the device, and its logits (B, classes) float32.
    """
    with numerics.autocast(images.device, precision):
        logits = model(images if params.channels_last else images.contiguous())
    logits = logits.float()
    loss = F.cross_entropy(logits, labels, label_smoothing=params.label_smoothing)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
    if params.clip_grad_norm:
        nn.utils.clip_grad_norm_(model.parameters(), params.clip_grad_norm)
    optimizer.step()
    return loss.detach(), logits.detach()


def worth_compiling(model: nn.Module, loader: TrainLoader, params: TrainParams) -> bool:
    """Return whether to compile the network: `train.compile`, or for "auto" whether the training is long enough.

    "auto" depends on the amount of work and not on measured times, as compiling changes roundings and the same
    parameters must give the same weights. On processors compiled networks were measured to be slower
    (docs/performance.md).
    """
    if params.compile != "auto":
        return params.compile
    if loader.device.type != "cuda":
        return False
    forward_and_backward = 3 * 2 * cost.cost(model)[1]
    images = sum(map(loader.count, range(params.epochs)))
    return forward_and_backward * images > WORTH_COMPILING


def _has_graphs(place: torch.device) -> bool:
    return place.type == "cuda"


class _Graphs:
    """CUDA graphs of one function of indices, one for each kind of call; they share a memory pool."""

    def __init__(self, step: StepFunction) -> None:
        self.step = step
        self.pool = torch.cuda.graph_pool_handle()
        self.recorded: dict[tuple[int, int], tuple[torch.cuda.CUDAGraph, Tensor, tuple[Tensor, Tensor]]] = {}

    def record(self, kind: tuple[int, int], indices: Tensor) -> None:
        """Record a call without making it; `torch.cuda.graph` waits for the device first.

        PyTorch's warning of an empty recording is an error: replayed, it would leave the weights as they are.
        """
        graph, static = torch.cuda.CUDAGraph(), indices.clone()
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="The CUDA Graph is empty")
            with torch.cuda.graph(graph, pool=self.pool):
                results = self.step(static)
        self.recorded[kind] = graph, static, results

    def replay(self, kind: tuple[int, int], indices: Tensor) -> tuple[Tensor, Tensor]:
        graph, static, results = self.recorded[kind]
        static.copy_(indices)
        graph.replay()
        return results


def _compiled(model: nn.Module, place: torch.device, params: TrainParams) -> Any:
    if place.type == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise ParamsError(
            "params.yaml: train.compile: found true, but torch.compile needs a C++ compiler; install one"
        )
    torch.use_deterministic_algorithms(params.deterministic)  # the compiler has a setting of its own
    return torch.compile(model, dynamic=False)
