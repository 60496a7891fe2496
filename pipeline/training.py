"""Training: one visible loop, the step apart."""

import itertools
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.flop_counter import FlopCounterMode

from pipeline import augment, device, models, optim
from pipeline.checkpoint import TrainingState
from pipeline.dataset import Dataset, Split
from pipeline.errors import ParamsError, TrainingError
from pipeline.loader import TrainLoader, batches
from pipeline.params import IMAGE_SIDE, AugmentParams, ModelParams, TrainParams, architecture

VAL_BATCH_SIZE = 1000

Row = dict[str, float]
"""One epoch of the history: epoch (from 1), lr, train/loss, train/accuracy, val/loss, val/accuracy."""


@dataclass
class Progress:
    """How far a training has come; saved after every epoch.

    Attributes:
        history: of the finished epochs.
        seconds: spent in them, also in those before an interruption.
    """

    history: list[Row] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class Result:
    """A finished training: the network, on the device it was trained on, and the path to it."""

    model: nn.Module
    history: list[Row]
    seconds: float


@dataclass(frozen=True)
class Step:
    """The state within an epoch, for a progress display."""

    epoch: int
    step: int
    steps: int
    lr: float
    loss: float
    accuracy: float
    images_per_second: float


def train(
    model_params: ModelParams,
    augment_params: AugmentParams,
    params: TrainParams,
    data: Dataset,
    state: TrainingState,
    *,
    on_step: Callable[[Step], None] = lambda _: None,
    listeners: Sequence[Callable[[Row], None]] = (),
) -> Result:
    """Train a network on `data["train"]` and follow it on `data["val"]`.

    Everything random is a function of (seed, epoch), so a training that goes on from `state` ends with the very
    weights of an uninterrupted one.

    Args:
        state: where to go on from, if there is something, and what to keep up to date.
        on_step: called at most twice a second, and at the end of each epoch.
        listeners: called after each epoch, when its state is safe; also for epochs restored from `state`.

    Returns:
        The trained network (its moving average if `ema` is on) with its history.

    Raises:
        TrainingError: the loss is not finite; the weights are still those before that step.
    """
    place = device.choose(params.device)
    precision = device.choose_precision(params.precision, place)
    device.prepare(place, deterministic=params.deterministic)
    model = initial_model(model_params, params, data, place)
    average = _moving_average(model, params.ema) if params.ema else None
    optimizer = optim.build(params, model)
    modules: dict[str, nn.Module] = {"model": model} | ({"average": average} if average else {})
    saved = state.restore(modules, optimizer)
    progress = Progress(**saved) if saved else Progress()
    for row, listener in itertools.product(progress.history, listeners):
        listener(row)

    loader = TrainLoader(
        data["train"],
        augment_params,
        batch_size=params.batch_size,
        seed=params.seed,
        device=place,
        mean=data.metadata.mean,
    )
    forward = _compiled(model, place) if params.compile else model
    chosen = average.module if average else model
    for epoch in range(len(progress.history), params.epochs):
        started = time.perf_counter()
        torch.manual_seed(augment.generator(params.seed, epoch, "dropout").initial_seed())
        meter = Meter(place)
        model.train()
        for step, (images, labels) in enumerate(loader.epoch(epoch), start=epoch * loader.steps):
            factor = optim.schedule(params, step, params.epochs * loader.steps)
            optim.set_rate(optimizer, factor)
            lr = params.lr * factor
            loss, correct = train_step(
                forward,
                optimizer,
                images,
                labels,
                params,
                lr=lr,
                precision=precision,
                where=f"epoch {epoch + 1}, step {step - epoch * loader.steps + 1}",
            )
            if average:
                average.update_parameters(model)
            meter.add(loss, correct, len(labels))
            done = step % loader.steps + 1
            if meter.due() or done == loader.steps:
                on_step(Step(epoch + 1, done, loader.steps, lr, meter.loss, meter.accuracy, meter.images_per_second))
        val_loss, val_accuracy = validate(chosen, data["val"], place, precision)
        progress.history.append(
            {
                "epoch": epoch + 1,
                "lr": lr,
                "train/loss": meter.loss,
                "train/accuracy": meter.accuracy,
                "val/loss": val_loss,
                "val/accuracy": val_accuracy,
            }
        )
        progress.seconds += time.perf_counter() - started
        state.save(modules, optimizer, vars(progress))
        for listener in listeners:
            listener(progress.history[-1])
    return Result(chosen.eval(), progress.history, progress.seconds)


def summary(result: Result) -> dict[str, float | int]:
    """Return the metrics of a training under their usual names; accuracies as fractions, no times."""
    parameters, macs = cost(result.model)
    best = max(result.history, key=lambda row: row["val/accuracy"])
    return {
        **{key: value for key, value in result.history[-1].items() if key not in ("epoch", "lr")},
        "val/accuracy_best": best["val/accuracy"],
        "val/epoch_best": best["epoch"],
        "train/epochs": len(result.history),
        "model/parameters": parameters,
        "model/macs": macs,
    }


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    params: TrainParams,
    *,
    lr: float,
    precision: str,
    where: str,
) -> tuple[Tensor, Tensor]:
    """Move the weights once.

    Args:
        images: (B, 3, H, W) uint8.
        labels: (B,) int64.
        lr, where: named in the error.

    Returns:
        The batch's mean loss (label smoothing included) and how many it got right, as scalars on the device.

    Raises:
        TrainingError: the loss is not finite; no weight has changed.
    """
    with device.autocast(images.device, precision):
        logits = model(images if params.channels_last else images.contiguous())
    loss = F.cross_entropy(logits.float(), labels, label_smoothing=params.label_smoothing)
    if not torch.isfinite(loss):
        raise TrainingError(
            f"training stopped at {where}: the loss is {loss.item()} at lr {lr:g}; "
            "expected a finite number; lower train.lr, lengthen train.warmup or set train.clip_grad_norm"
        )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
    if params.clip_grad_norm:
        nn.utils.clip_grad_norm_(model.parameters(), params.clip_grad_norm)
    optimizer.step()
    return loss.detach(), (logits.argmax(1) == labels).sum()


@torch.inference_mode()
def validate(model: nn.Module, split: Split, place: torch.device, precision: str) -> tuple[float, float]:
    """Return mean cross-entropy (no smoothing) and accuracy over all images of a split."""
    model.eval()
    loss = torch.zeros((), device=place)
    correct = torch.zeros((), dtype=torch.int64, device=place)
    for images, labels in batches(split, batch_size=VAL_BATCH_SIZE, device=place):
        with device.autocast(place, precision):
            logits = model(images)
        loss += F.cross_entropy(logits.float(), labels, reduction="sum")
        correct += (logits.argmax(1) == labels).sum()
    return loss.item() / len(split), int(correct.item()) / len(split)


def initial_model(model_params: ModelParams, params: TrainParams, data: Dataset, place: torch.device) -> nn.Module:
    """Build the network with the initial weights of `train.seed`, drawn on the CPU so that all devices share them."""
    torch.manual_seed(params.seed)
    model = models.build(
        model_params.arch,
        architecture(model_params),
        mean=data.metadata.mean,
        std=data.metadata.std,
        classes=len(data.metadata.classes),
    )
    layout = torch.channels_last if params.channels_last else torch.contiguous_format
    return model.to(memory_format=layout).to(place)


def cost(model: nn.Module) -> tuple[int, int]:
    """Return a network's trainable parameters and the multiply-accumulate operations (MACs) for one image.

    Convolutions and matrix products are counted, as is customary; one MAC is two floating-point operations.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    image = torch.zeros(1, 3, IMAGE_SIDE, IMAGE_SIDE, device=parameters[0].device)
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        model.eval()(image)
    return sum(parameter.numel() for parameter in parameters), counter.get_total_flops() // 2


class Meter:
    """Sums over the images of an epoch, kept on the device: reading them is what costs, so that is done rarely."""

    SECONDS_BETWEEN_READINGS = 0.5

    def __init__(self, place: torch.device) -> None:
        self.loss_sum = torch.zeros((), dtype=torch.float32, device=place)
        self.correct = torch.zeros((), dtype=torch.int64, device=place)
        self.images = 0
        self.started = self.last_reading = time.perf_counter()

    def add(self, loss: Tensor, correct: Tensor, images: int) -> None:
        """Add a batch: its mean loss and how many images it got right."""
        self.loss_sum += loss * images
        self.correct += correct
        self.images += images

    def due(self) -> bool:
        """Tell whether half a second has passed since this last said yes."""
        now = time.perf_counter()
        if now - self.last_reading < self.SECONDS_BETWEEN_READINGS:
            return False
        self.last_reading = now
        return True

    @property
    def loss(self) -> float:
        """Mean loss per image so far."""
        return self.loss_sum.item() / self.images

    @property
    def accuracy(self) -> float:
        """Share of images classified right so far, 0..1, in training mode and with augmentation."""
        return int(self.correct.item()) / self.images

    @property
    def images_per_second(self) -> float:
        return self.images / (time.perf_counter() - self.started)


def _moving_average(model: nn.Module, decay: float) -> AveragedModel:
    update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch does not annotate it
    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)


def _compiled(model: nn.Module, place: torch.device) -> Any:
    if place.type == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise ParamsError(
            "params.yaml: train.compile: found true, but torch.compile needs a C++ compiler; install one"
        )
    return torch.compile(model)
