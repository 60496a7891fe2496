"""Training: one visible loop; what a step does is in step.py."""

import itertools
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.config.schema import ModelParams, Params, TrainParams
from pipeline.data import augment
from pipeline.data.dataset import Dataset, Split
from pipeline.data.loader import TrainLoader, batches
from pipeline.errors import CheckpointError, TrainingError
from pipeline.hardware import device
from pipeline.models.common import cost, numerics
from pipeline.models.common.build import build, fit
from pipeline.progress import Step
from pipeline.training import optim, probe
from pipeline.training.checkpoint import TrainingState
from pipeline.training.meter import Meter
from pipeline.training.optim import MovingAverage
from pipeline.training.step import Stepper

FITTED_IMAGES = 5000
"""Training images that a network is fitted to, where it computes something from them instead of learning it."""

VAL_BATCH_SIZE = 1000

Row = dict[str, float]
"""One epoch of the history: epoch (from 1), lr, train/loss, train/accuracy, val/loss, val/accuracy."""


@dataclass
class Progress:
    """The progress of a training; saved after each epoch.

    Attributes:
        history: of the finished epochs.
        images: that the network was trained on in them.
        seconds: spent training in them, also in those before an interruption.
        val_seconds: spent on the validation images.
        preparation_seconds: spent compiling and recording, apart from `seconds`.
        layers: of the network before the first epoch and after each, if diagnostics are on.
        diagnostics_seconds: spent measuring them.
    """

    history: list[Row] = field(default_factory=list)
    images: int = 0
    seconds: float = 0.0
    val_seconds: float = 0.0
    preparation_seconds: float = 0.0
    layers: list[probe.Row] = field(default_factory=list)
    diagnostics_seconds: float = 0.0


@dataclass(frozen=True)
class Result:
    """A finished training: the network, on the device it was trained on, and the path to it."""

    model: nn.Module
    progress: Progress

    @property
    def history(self) -> list[Row]:
        return self.progress.history


def train(
    params: Params,
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
        on_step: called at most once a second, and at the end of each epoch.
        listeners: called after each epoch; also for epochs restored from `state`.

    Returns:
        The trained network (its moving average if `ema` is on) with its history.

    Raises:
        TrainingError: the loss or a weight is not finite; what `state` holds is from before that epoch.
    """
    step, average = set_up(params, data)
    try:
        progress = _restored(state, step, average)
    except CheckpointError as error:
        print(f"warning: {error}; training from the start", file=sys.stderr)
        state.remove()
        step, average = set_up(params, data)  # a part of the state may have been loaded
        progress = Progress()
    loader = step.loader
    batch = probe.fixed_batch(loader) if params.train.diagnostics else None
    if batch and not progress.layers:
        _look(step, batch, progress)
    for row, listener in itertools.product(progress.history, listeners):
        listener(row)

    chosen = average.model if average else step.model
    for epoch in range(len(progress.history), params.train.epochs):
        started, prepared = time.perf_counter(), step.preparation_seconds
        row = train_epoch(step, average, epoch, on_step)
        ended = time.perf_counter()
        val_loss, val_accuracy = validate(chosen, data["val"], loader.device, step.precision)
        _check_weights(step, epoch, val_loss, row["lr"])
        progress.history.append(row | {"val/loss": val_loss, "val/accuracy": val_accuracy})
        progress.images += loader.count(epoch)
        preparation = step.preparation_seconds - prepared
        progress.preparation_seconds += preparation
        progress.seconds += ended - started - preparation
        progress.val_seconds += time.perf_counter() - ended
        if batch:
            _look(step, batch, progress)
        if state.due():
            state.save(_modules(step, average), step.optimizer, vars(progress), {"losses": loader.losses})
        for listener in listeners:
            listener(progress.history[-1])
    return Result(chosen.eval(), progress)


def _restored(state: TrainingState, step: Stepper, average: MovingAverage | None) -> Progress:
    saved = state.restore(_modules(step, average), step.optimizer, {"losses": step.loader.losses})
    return Progress(**saved) if saved else Progress()


def _modules(step: Stepper, average: MovingAverage | None) -> dict[str, nn.Module]:
    return {"model": step.model} | ({"average": average.model} if average else {})


def set_up(params: Params, data: Dataset) -> tuple[Stepper, MovingAverage | None]:
    """Return all that a training consists of, before its first step, on the device of `train.device`."""
    options = params.train
    place = device.choose(options.device)
    numerics.prepare(place, deterministic=options.deterministic)
    model = initial_model(params.model, options, data, place)
    average = MovingAverage(model, options.ema) if options.ema else None
    loader = TrainLoader(
        data["train"],
        params.augment,
        batch_size=options.batch_size,
        seed=options.seed,
        device=place,
        mean=data.metadata.mean,
        hardest=options.hardest,
    )
    precision = numerics.choose_precision(options.precision, place)
    return Stepper(model, optim.build(params.optimizer, model, precision=precision), loader, options), average


def train_epoch(
    step: Stepper, average: MovingAverage | None, epoch: int, on_step: Callable[[Step], None] = lambda _: None
) -> Row:
    """Train for one epoch (counted from 0).

    Returns:
        The epoch's row of the history, without the validation metrics.

    Raises:
        TrainingError: the loss is not finite.
    """
    params, loader, peak = step.params, step.loader, step.optimizer.defaults["lr"]
    torch.manual_seed(augment.generator(params.seed, epoch, "dropout").initial_seed())
    first, steps, all_steps = loader.steps_before(epoch), loader.steps(epoch), loader.steps_before(params.epochs)
    factors = [optim.schedule(params, number, all_steps) for number in range(first, first + steps)]
    meter = Meter(steps, loader.device)
    step.model.train()
    batches_of_epoch = zip(loader.begin(epoch, resolution(params, epoch)), factors, strict=True)
    for number, (indices, factor) in enumerate(batches_of_epoch, start=1):
        optim.set_rate(step.optimizer, factor)
        meter.add(*step(indices), len(indices))
        if average:
            average.update(step.model, first=epoch == 0 and number == 1)
        if meter.due() or number == steps:
            loss, accuracy = _checked(meter, epoch, step.optimizer, factors)
            lr = peak * factor
            done = (first + number) / all_steps
            on_step(Step(epoch + 1, number, steps, done, lr, loss, accuracy, meter.images_per_second))
    return {"epoch": epoch + 1, "lr": lr, "train/loss": loss, "train/accuracy": accuracy}


def summary(result: Result) -> dict[str, float | int]:
    """Return the metrics of a training under their usual names; accuracies as fractions, no times."""
    parameters, macs = cost.cost(result.model)
    best = max(result.history, key=lambda row: row["val/accuracy"])
    return {
        **{key: value for key, value in result.history[-1].items() if key not in ("epoch", "lr")},
        "val/accuracy_best": best["val/accuracy"],
        "val/epoch_best": best["epoch"],
        "train/epochs": len(result.history),
        "model/parameters": parameters,
        "model/macs": macs,
    }


@torch.inference_mode()
def validate(model: nn.Module, split: Split, place: torch.device, precision: str) -> tuple[float, float]:
    """Return mean cross-entropy (no smoothing) and accuracy over all images of a split."""
    model.eval()
    loss = torch.zeros((), device=place)
    correct = torch.zeros((), dtype=torch.int64, device=place)
    for images, labels in batches(split, batch_size=VAL_BATCH_SIZE, device=place):
        with numerics.autocast(place, precision):
            logits = model(images)
        loss += F.cross_entropy(logits.float(), labels, reduction="sum")
        correct += (logits.argmax(1) == labels).sum()
    return loss.item() / len(split), int(correct.item()) / len(split)


def initial_model(model_params: ModelParams, params: TrainParams, data: Dataset, place: torch.device) -> nn.Module:
    """Build the network with the initial weights of `train.seed`, drawn on the CPU so that all devices share them."""
    torch.manual_seed(params.seed)
    model = build(
        model_params.arch,
        model_params.section,
        mean=data.metadata.mean,
        std=data.metadata.std,
        classes=len(data.metadata.classes),
    )
    fit(model, torch.from_numpy(data["train"].images[:FITTED_IMAGES]).permute(0, 3, 1, 2))
    layout = torch.channels_last if params.channels_last else torch.contiguous_format
    return model.to(memory_format=layout).to(place)


def resolution(params: TrainParams, epoch: int) -> int:
    """Return the side in pixels of the training images in an epoch (counted from 0).

    Small images first, as in Howard's DAWNBench entry (2018): they cost less and teach the coarse things.
    """
    return params.resolutions[epoch * len(params.resolutions) // params.epochs]


def _look(step: Stepper, batch: tuple[Tensor, Tensor], progress: Progress) -> None:
    """Add what the network's layers do at present, on a fixed batch of images and labels."""
    started = time.perf_counter()
    smoothing, epoch = step.params.label_smoothing, len(progress.history)
    progress.layers += probe.look(step.model, *batch, label_smoothing=smoothing, epoch=epoch)
    progress.diagnostics_seconds += time.perf_counter() - started


def _checked(
    meter: Meter, epoch: int, optimizer: torch.optim.Optimizer, factors: Sequence[float]
) -> tuple[float, float]:
    """Return the meter's loss and accuracy.

    Args:
        factors: on the peak learning rate in each step of the epoch.

    Raises:
        TrainingError: a loss was not finite.
    """
    loss, accuracy, broken = meter.read()
    if broken is not None:
        lr = optimizer.defaults["lr"] * factors[broken]
        found = f"step {broken + 1}: the loss is {meter.losses[broken].item()}"
        raise _not_finite(optimizer, epoch, found, lr)
    return loss, accuracy


def _check_weights(step: Stepper, epoch: int, val_loss: float, lr: float) -> None:
    """Raise if the last step of an epoch left weights that are not finite, which the losses of its steps do not show.

    Raises:
        TrainingError: the validation loss, a parameter or a buffer is not finite.
    """
    if not math.isfinite(val_loss):
        raise _not_finite(step.optimizer, epoch, f"the validation loss is {val_loss}", lr)
    for name, tensor in (*step.model.named_parameters(), *step.model.named_buffers()):
        if not tensor.isfinite().all():
            raise _not_finite(step.optimizer, epoch, f"after the last step {name} has values that are not finite", lr)


def _not_finite(optimizer: torch.optim.Optimizer, epoch: int, found: str, lr: float) -> TrainingError:
    """Return the error of a training whose loss or weights are not finite."""
    name = type(optimizer).__name__.lower()
    return TrainingError(
        f"training stopped at epoch {epoch + 1}, {found} at lr {lr:g}; expected a finite number; "
        f"lower optimizer.{name}.lr, lengthen train.warmup or set train.clip_grad_norm"
    )
