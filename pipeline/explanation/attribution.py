"""Attribution maps of a class's score by three methods, and a sanity check against random networks.

Images are (3, H, W) tensors in grey levels (0..255) on the network's device; networks are in evaluation mode. A map
is (H, W), in logits: the contribution of each pixel to the score of one class, before softmax.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.stats
import torch
from captum.attr import IntegratedGradients, LayerAttribution, LayerGradCam, Occlusion
from torch import Tensor, nn

from pipeline.errors import InspectionError
from pipeline.models.common import features
from pipeline.models.common.layers import ACTIVATIONS

Map = npt.NDArray[np.float32]
Method = Callable[[nn.Module, Tensor, int], Map]
"""From a network, an image and a class to a map."""

FEATURES: tuple[type[nn.Module], ...] = (nn.Conv2d, *(type(make()) for make in ACTIVATIONS.values()))
"""Layers whose outputs are feature maps, if they are (N, C, H, W)."""


@dataclass(frozen=True)
class Sanity:
    """The similarity of a map to those of random networks of the same layout.

    Attributes:
        correlations: Spearman's, -1..1, of the map's absolute values with each random network's. Near 1, the map
            shows the image or the layout, not what the network has learned. Constant maps have no correlation, so
            there may be fewer than networks.
        example: the map of the first random network.
    """

    correlations: tuple[float, ...]
    example: Map

    def __str__(self) -> str:
        if not self.correlations:
            return "none, as the map is the same everywhere"
        low, high = min(self.correlations), max(self.correlations)
        return f"{np.mean(self.correlations):+.2f} ({low:+.2f} to {high:+.2f}, n = {len(self.correlations)})"


def grad_cam(model: nn.Module, image: Tensor, label: int) -> Map:
    """Weight the last feature maps by the class's mean gradient, sum them, keep the positive part (Grad-CAM).

    Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391. The maps are those of the last activation (or
    convolution) in which pixels have places, so before the last pooling; bilinear interpolation gives them the
    image's size. As a gradient's mean over all places stands for it everywhere, the map of a network that flattens
    its last feature maps, and so weights each place on its own, can be 0 everywhere for a class it is sure of.

    Raises:
        InspectionError: the network has no such layer.
    """
    batch = image[None].float()
    layer = last_feature_layer(model, batch)
    if layer is None:
        raise InspectionError("Grad-CAM: this network has no convolution whose outputs are feature maps (N, C, H, W)")
    coarse = LayerGradCam(model, layer).attribute(batch, label, relu_attributions=True)
    return _numpy(LayerAttribution.interpolate(coarse, image.shape[1:], "bilinear")[0, 0])


def occlusion(
    model: nn.Module, image: Tensor, label: int, *, fill: Tensor, side: int = 8, stride: int = 2, batch_size: int = 64
) -> Map:
    """Measure by how much the class's score falls when parts of the image are covered (occlusion).

    Zeiler & Fergus 2014, https://arxiv.org/abs/1311.2901. A pixel's value is the mean over all squares that cover
    it; below 0 the score rises when it is covered.

    Args:
        fill: (3,) colour of the square in grey levels.
        side, stride: of the square, and of its steps, in pixels; side at most that of the image. Where the steps do
            not end at the image's edge, the last squares are cut off there.
        batch_size: covered images that are classified at once.
    """
    found = Occlusion(model).attribute(
        image[None].float(),
        sliding_window_shapes=(3, side, side),
        strides=(3, stride, stride),
        baselines=_flat(image, fill),
        target=label,
        perturbations_per_eval=batch_size,
    )
    return _numpy(found[0, 0])  # the same for all three colours, as they are covered together


def integrated_gradients(
    model: nn.Module, image: Tensor, label: int, *, fill: Tensor, steps: int = 64, batch_size: int = 64
) -> Map:
    """Distribute the score over the pixels, along the line from an image of one colour to this one.

    Sundararajan et al. 2017, https://arxiv.org/abs/1703.01365: (image - baseline) times the mean gradient on the
    straight line between them, by Gauss-Legendre quadrature, summed over the colours. The map adds up to the
    difference of the two scores (completeness) as closely as `steps` allow.

    Args:
        fill: (3,) colour of the baseline in grey levels.
        steps: points on the line.
        batch_size: points that are classified at once.
    """
    found = IntegratedGradients(model).attribute(
        image[None].float(), _flat(image, fill), label, n_steps=steps, internal_batch_size=batch_size
    )
    return _numpy(found[0].sum(0))


@torch.no_grad()
def score_above(model: nn.Module, image: Tensor, label: int, *, fill: Tensor) -> float:
    """Return an image's score minus that of an image of one colour: what integrated gradients distribute."""
    score, baseline = model(torch.cat([image[None].float(), _flat(image, fill)]))[:, label].tolist()
    return float(score - baseline)


def sanity(
    method: Method, model: nn.Module, image: Tensor, label: int, trained: Map, *, seed: int, draws: int
) -> Sanity:
    """Compare a trained network's map with those of random networks (Adebayo et al. 2018, arXiv:1810.03292).

    Args:
        trained: the method's map for the trained network.
        seed: of the first random network; the others take those that follow.
        draws: how many random networks, at least 1.
    """
    maps = [method(randomised(model, seed + draw), image, label) for draw in range(draws)]
    found = (rank_correlation(trained, other) for other in maps)
    return Sanity(tuple(value for value in found if value is not None), maps[0])


def rank_correlation(first: Map, second: Map) -> float | None:
    """Return Spearman's correlation (-1..1) of two maps' absolute values; None if one is constant."""
    a, b = np.abs(first).ravel(), np.abs(second).ravel()
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(scipy.stats.spearmanr(a, b).statistic)


@torch.no_grad()
def randomised(model: nn.Module, seed: int) -> nn.Module:
    """Return a copy of a network that has learned nothing: all its weights as PyTorch draws them by default.

    Parameters of modules that cannot draw them (no `reset_parameters`: class tokens, positions, attention) have their
    values shuffled, which keeps their distribution and destroys what was learned. Normalisation loses its statistics;
    what was computed and not learned (the input's mean, whitening) stays.
    """
    device = next(model.parameters()).device
    blank = copy.deepcopy(model).cpu()  # drawn there, the weights are the same whatever the device
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for module in blank.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
            else:
                for parameter in module.parameters(recurse=False):
                    parameter.copy_(parameter.flatten()[torch.randperm(parameter.numel())].view_as(parameter))
    return blank.to(device).eval()


@torch.no_grad()
def last_feature_layer(model: nn.Module, batch: Tensor) -> nn.Module | None:
    """Return the layer whose feature maps are computed last when a network runs; None if there is no such."""
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, FEATURES)}
    found: list[str] = []

    def keep(name: str, output: Tensor) -> None:
        if features.is_map(output):
            found.append(name)

    with features.watched(layers, keep):
        model(batch)
    return layers[found[-1]] if found else None


def _flat(image: Tensor, fill: Tensor) -> Tensor:
    """Return a (1, 3, H, W) image of one colour as large as another."""
    return fill.reshape(1, 3, 1, 1).expand(-1, -1, *image.shape[1:])


def _numpy(tensor: Tensor) -> Map:
    array: Map = tensor.detach().cpu().numpy()
    return array
