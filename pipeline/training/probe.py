"""Gradients and activations of every layer, looked at between epochs on a copy, so that training never notices."""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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

    All is computed in float32 on a copy in training mode, so batch norm uses the batch's own statistics and changes
    none of the model's. Dropout is off: rows are a function of weights and images, and no random number is drawn.
    Weights that are not trained or form a vector (biases, normalisation) have no row.

    Args:
        images: (B, 3, H, W) uint8, on the model's device.
        labels: (B,) int64.
        label_smoothing: of the loss.
        epoch: written into the rows.
    """
    copied = copy.deepcopy(model).train()
    for layer in copied.modules():
        if isinstance(layer, nn.Dropout):
            layer.eval()
    seen: list[tuple[str, nn.Module, activity.Activity | None]] = []
    activations = activity.activation_layers(copied)
    for name, layer in copied.named_modules():
        if name in activations:
            layer.register_forward_hook(
                lambda layer, _, output, name=name: seen.append((name, layer, activity.measure(output, layer)))
            )
        elif _has_weights(layer):
            layer.register_forward_hook(lambda layer, _, __, name=name: seen.append((name, layer, None)))
    F.cross_entropy(copied(images), labels, label_smoothing=label_smoothing).backward()  # type: ignore[no-untyped-call]
    return [_row(epoch, name, layer, found) for name, layer, found in seen]


def _has_weights(layer: nn.Module) -> bool:
    weight = getattr(layer, "weight", None)
    return isinstance(weight, nn.Parameter) and weight.requires_grad and weight.ndim >= 2


def _row(epoch: int, name: str, layer: nn.Module, found: activity.Activity | None) -> Row:
    row: Row = dict.fromkeys(COLUMNS) | {"epoch": epoch, "layer": name, "kind": type(layer).__name__}
    if found:
        return row | vars(found)
    assert isinstance(layer.weight, nn.Parameter)
    assert layer.weight.grad is not None
    gradient, weights = _norm(layer.weight.grad), _norm(layer.weight.detach())
    return row | {"gradient_norm": gradient, "relative_gradient": gradient / weights if weights else None}


def _norm(values: Tensor) -> float:
    """Return a Euclidean norm; in float64, as the squares of a vanishing gradient are too small for float32."""
    return float(torch.linalg.vector_norm(values.cpu().double()))
