"""Gradients and activations of every layer between epochs, measured on a copy without effect on the training."""

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.data import augment
from pipeline.data.loader import TrainLoader
from pipeline.models.common import activity

MOST_IMAGES = 500

COLUMNS = ("epoch", "layer", "kind", "gradient_norm", "relative_gradient", "mean", "saturated", "dead")

Row = dict[str, Any]
"""One layer after one epoch (0: before the first); what does not apply to its kind is None.

epoch, layer (name of the module), kind (its class); of a layer with weights gradient_norm (Euclidean, of the loss with
respect to the weights) and relative_gradient (that over the weights' own norm); of an activation layer mean, saturated
and dead, as `activity.Activity` has them.
"""


def fixed_batch(loader: TrainLoader) -> tuple[Tensor, Tensor]:
    """Return the same training images after every epoch, drawn from the seed, as they are without augmentation.

    Returns:
        (B, 3, H, W) uint8 images, channels last in memory, and (B,) int64 labels. B is that of training, but at most
        500: a look takes no more memory than a step in float32.
    """
    count = min(MOST_IMAGES, loader.batch_size, len(loader))
    order = torch.randperm(len(loader), generator=augment.generator(loader.seed, 0, "probe"))
    chosen = order[:count].to(loader.device)
    return loader.images[chosen].permute(0, 3, 1, 2), loader.labels[chosen]


def look(model: nn.Module, images: Tensor, labels: Tensor, *, label_smoothing: float, epoch: int) -> list[Row]:
    """Return a row for each layer with weights and each activation layer, in the order in which they run.

    All is computed in float32 on a copy in evaluation mode, except that batch norm uses the batch's own statistics as
    in training. Dropout is off: rows are a function of weights and images, and no random number is drawn. Weights have
    no row if they are not trained, form a vector (biases, normalisation) or belong to the network itself (class
    tokens). A layer that runs several times has a row for each, see `activity.watched`.

    Args:
        images: (B, 3, H, W) uint8, on the model's device.
        labels: (B,) int64.
        label_smoothing: of the loss.
        epoch: written into the rows.
    """
    copied = copy.deepcopy(model).eval()
    for layer in copied.modules():
        if isinstance(layer, _BatchNorm):
            layer.train()
    activations = activity.activation_layers(copied)
    weighted = {name: layer for name, layer in copied.named_modules() if name and _weights(layer)}
    seen: list[tuple[str, nn.Module, activity.Activity | None]] = []

    def note(name: str, layer: nn.Module, output: Tensor) -> None:
        seen.append((name, layer, None if _weights(layer) else activity.measure(output, layer)))

    with activity.watched(copied, weighted | activations, note):
        loss = F.cross_entropy(copied(images), labels, label_smoothing=label_smoothing)
    loss.backward()  # type: ignore[no-untyped-call]
    return [_row(epoch, name, layer, found) for name, layer, found in seen]


def _weights(layer: nn.Module) -> list[nn.Parameter]:
    """Return a layer's own matrices and filters that are trained; of attention, those of queries, keys and values."""
    own = layer.parameters(recurse=False)
    return [parameter for parameter in own if parameter.requires_grad and parameter.ndim >= 2]


def _row(epoch: int, name: str, layer: nn.Module, found: activity.Activity | None) -> Row:
    row: Row = dict.fromkeys(COLUMNS) | {"epoch": epoch, "layer": name, "kind": type(layer).__name__}
    if found:
        return row | vars(found)
    gradient = math.hypot(*(_norm(weight.grad) for weight in _weights(layer) if weight.grad is not None))
    weights = math.hypot(*(_norm(weight.detach()) for weight in _weights(layer)))
    return row | {"gradient_norm": gradient, "relative_gradient": gradient / weights if weights else None}


def _norm(values: Tensor) -> float:
    """Return a Euclidean norm; in float64, as the squares of a vanishing gradient are too small for float32."""
    return float(torch.linalg.vector_norm(values.cpu().double()))
