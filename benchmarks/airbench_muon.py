"""The peer: the published recipe of cifar10-airbench's `airbench94_muon`, in words of our own.

Source of every constant: airbench94_muon.py in https://github.com/KellerJordan/cifar10-airbench (Jordan 2024), which
reaches 94.01 % on the official images in 2.59 s on an A100. What differs here: it runs on processors, too, in bfloat16
under autocast (float16 weights on a GPU, as published), and widths, epochs, batch size, learning rate and the images'
side can be chosen, so that it can be scaled to a machine. It stands by itself: nothing of the project's training is
used, so that the project is not measured against itself.
"""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.hardware import device
from pipeline.models.common import numerics

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
BIAS_RATE, HEAD_RATE, DECAY = 0.053, 0.67, 2e-6  # per image of the batch, as the loss is a sum
MOMENTUM, MOMENTUM_OF_SGD = 0.6, 0.85
SMOOTHING, WHITENING_EPS, BIAS_EPOCHS = 0.2, 5e-4, 3
TEST_BATCH = 2000


@dataclass(frozen=True)
class Recipe:
    """What can be chosen; the defaults are the published values.

    Attributes:
        sides: of the training images in pixels; several share the steps equally.
        compiled: on a GPU, compile the network as published (mode "max-autotune").
    """

    widths: tuple[int, int, int] = (64, 256, 256)
    epochs: float = 8
    batch_size: int = 2000
    lr: float = 0.24
    sides: tuple[int, ...] = (32,)
    compiled: bool = True


@dataclass(frozen=True)
class Outcome:
    """What a run took and reached: seconds of training, and the share of the test images classified right."""

    seconds: float
    accuracy: float


class Net(nn.Module):
    """Whitening, three groups of two convolutions, max pooling by 3, a head whose scores are divided by its width."""

    def __init__(self, widths: tuple[int, int, int]) -> None:
        super().__init__()
        self.whiten = nn.Conv2d(3, 24, 2)
        self.whiten.weight.requires_grad = False
        channels = (24, *widths)
        self.groups = nn.Sequential(*map(_group, channels[:-1], channels[1:]))
        self.head = nn.Linear(widths[-1], 10, bias=False)
        with torch.no_grad():
            self.head.weight /= self.head.weight.std()

    def forward(self, x: Tensor, learn_whitening_bias: bool = True) -> Tensor:
        bias = self.whiten.bias
        assert bias is not None
        x = F.gelu(F.conv2d(x, self.whiten.weight, bias if learn_whitening_bias else bias.detach()))
        x = self.groups(x)
        x = F.max_pool2d(x, x.shape[-1])  # 3 for images of 32 px
        scores: Tensor = self.head(x.flatten(1)) / x.shape[1]
        return scores

    @torch.no_grad()
    def fit_whitening(self, images: Tensor) -> None:
        """Set the first layer's weights from (N, 3, 32, 32) normalised images."""
        patches = images.float().unfold(2, 2, 1).unfold(3, 2, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 12)
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (vectors / (values + WHITENING_EPS).sqrt()).T.reshape(12, 3, 2, 2)
        self.whiten.weight.copy_(torch.cat([filters, -filters]))


def _group(inputs: int, outputs: int) -> nn.Sequential:
    first, second = _convolution(inputs, outputs), _convolution(outputs, outputs)
    return nn.Sequential(first, nn.MaxPool2d(2), _norm(outputs), nn.GELU(), second, _norm(outputs), nn.GELU())


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, 3, padding="same", bias=False)
    nn.init.dirac_(layer.weight[:inputs])
    return layer


def _norm(channels: int) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(channels, eps=1e-12, momentum=0.4)
    layer.weight.requires_grad = False
    return layer


def orthogonalize(matrix: Tensor, steps: int = 3) -> Tensor:
    """Newton-Schulz in bfloat16, one matrix at a time, as published."""
    x = matrix.bfloat16()
    x /= x.norm() + 1e-7
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if tall else x


class Loader:
    """Epochs of normalised, flipped, shifted images: reflected edges, every second epoch mirrored as a whole."""

    def __init__(self, images: Tensor, labels: Tensor, batch_size: int, generator: torch.Generator) -> None:
        self.generator, self.batch_size, self.labels, self.epoch = generator, batch_size, labels, 0
        mirrored = self._random(len(images)) < 0.5
        flipped = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        self.padded = F.pad(flipped, (2,) * 4, "reflect")

    def __iter__(self) -> Any:
        count, side = len(self.labels), 32
        shifts = (self._random(count, 2) * 5).long()
        images = torch.empty_like(self.padded[:, :, :side, :side])
        for down in range(5):
            for right in range(5):
                chosen = (shifts[:, 0] == down) & (shifts[:, 1] == right)
                images[chosen] = self.padded[chosen, :, down : down + side, right : right + side]
        if self.epoch % 2:
            images = images.flip(3)
        self.epoch += 1
        order = torch.randperm(count, generator=self.generator).to(images.device)
        for start in range(0, count - self.batch_size + 1, self.batch_size):  # a last, smaller batch is dropped
            indices = order[start : start + self.batch_size]
            yield images[indices], self.labels[indices]

    def _random(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator).to(self.labels.device)


def train(
    recipe: Recipe,
    images: tuple[Tensor, Tensor],
    labels: tuple[Tensor, Tensor],
    *,
    seed: int,
    on_step: Callable[[float], None] = lambda _: None,
) -> Outcome:
    """Train on the first images, judge on the second, with six views.

    Args:
        images: of training and test, (N, 3, 32, 32) uint8, on the device.
        labels: (N,) int64, on the device.
        on_step: called with the share done.

    Returns:
        Seconds of the whitening and of all steps with their augmentation; no evaluation, no compiling.
    """
    place = images[0].device
    half = torch.float16 if place.type == "cuda" else torch.float32
    torch.manual_seed(seed)
    net = _prepared(recipe, place)
    filters = [weight for weight in net.parameters() if weight.ndim == 4 and weight.requires_grad]
    shifts = [layer.bias for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    decay = DECAY * recipe.batch_size
    rates = [(net.whiten.bias, BIAS_RATE), *((shift, BIAS_RATE) for shift in shifts), (net.head.weight, HEAD_RATE)]
    groups = [{"params": [weight], "lr": rate, "weight_decay": decay / rate} for weight, rate in rates]
    sgd = torch.optim.SGD(groups, momentum=MOMENTUM_OF_SGD, nesterov=True, fused=place.type == "cuda")
    buffers = [torch.zeros_like(weight) for weight in filters]
    steps_of_epoch = len(labels[0]) // recipe.batch_size
    steps, bias_steps = math.ceil(recipe.epochs * steps_of_epoch), math.ceil(BIAS_EPOCHS * steps_of_epoch)

    device.synchronize(place)
    started = time.perf_counter()
    normalised = _normalised(images[0], half)
    net.fit_whitening(normalised[:5000])
    net = net.to(memory_format=torch.channels_last)
    loader = Loader(normalised, labels[0], recipe.batch_size, torch.Generator().manual_seed(seed))
    step = 0
    while step < steps:
        for inputs, targets in loader:
            if step == steps:
                break
            side = recipe.sides[step * len(recipe.sides) // steps]
            if side != 32:
                inputs = F.interpolate(inputs, (side, side), mode="bilinear", antialias=True)
            with _precision(place):
                scores = net(inputs.contiguous(memory_format=torch.channels_last), step < bias_steps)
            F.cross_entropy(scores.float(), targets, label_smoothing=SMOOTHING, reduction="sum").backward()  # type: ignore[no-untyped-call]
            sgd.param_groups[0]["lr"] = BIAS_RATE * max(0.0, 1 - step / bias_steps)
            for group, (_, rate) in zip(sgd.param_groups[1:], rates[1:], strict=True):
                group["lr"] = rate * (1 - step / steps)
            sgd.step()
            _muon_step(filters, buffers, recipe.lr * (1 - step / steps))
            net.zero_grad(set_to_none=True)
            step += 1
            on_step(step / steps)
    device.synchronize(place)
    seconds = time.perf_counter() - started
    tests = torch.split(_normalised(images[1], half), TEST_BATCH)
    scores = torch.cat([_six_views(net, part, place) for part in tests])
    return Outcome(seconds, (scores.argmax(1) == labels[1]).float().mean().item())


@torch.no_grad()
def _muon_step(filters: list[nn.Parameter], buffers: list[Tensor], lr: float) -> None:
    for weight, buffer in zip(filters, buffers, strict=True):
        assert weight.grad is not None
        buffer.mul_(MOMENTUM).add_(weight.grad)
        update = weight.grad.add(buffer, alpha=MOMENTUM)
        weight.mul_(len(weight) ** 0.5 / weight.norm())
        weight.add_(orthogonalize(update.reshape(len(update), -1)).view_as(weight).to(weight.dtype), alpha=-lr)


_COMPILED: dict[tuple[Recipe, torch.device], Net] = {}
"""Networks compiled before: as published, one is used for all runs, with its weights drawn anew."""


def _prepared(recipe: Recipe, place: torch.device) -> Net:
    """Return a network with new weights; on a GPU in float16 (normalisation in float32) and compiled."""
    fresh = Net(recipe.widths)
    if place.type != "cuda":
        return fresh
    for layer in fresh.modules():
        if not isinstance(layer, nn.BatchNorm2d | Net | nn.Sequential):
            layer.half()
    fresh = fresh.to(place).to(memory_format=torch.channels_last)
    key = (recipe, place)
    if key not in _COMPILED:
        if recipe.compiled:
            fresh.compile(mode="max-autotune")
        _COMPILED[key] = fresh
    else:
        _COMPILED[key].load_state_dict(fresh.state_dict())
    return _COMPILED[key]


@torch.inference_mode()
def _six_views(net: Net, images: Tensor, place: torch.device) -> Tensor:
    """Return the scores averaged over two sides and three places, weighted as published."""
    net.eval()

    def both_sides(inputs: Tensor) -> Tensor:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        with _precision(place):
            scores: Tensor = (net(inputs).float() + net(inputs.flip(3)).float()) / 2
        return scores

    padded = F.pad(images, (1,) * 4, "reflect")
    moved = both_sides(padded[:, :, :32, :32]) + both_sides(padded[:, :, 2:, 2:])
    scores = both_sides(images) / 2 + moved / 4
    net.train()
    return scores


def _normalised(images: Tensor, dtype: torch.dtype) -> Tensor:
    mean, std = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (MEAN, STD))
    normalised = ((images.float() / 255 - mean) / std).to(dtype)
    return normalised.contiguous(memory_format=torch.channels_last)


def _precision(place: torch.device) -> Any:
    precision = numerics.choose_precision("auto", place)
    return contextlib.nullcontext() if place.type == "cuda" else numerics.autocast(place, precision)
