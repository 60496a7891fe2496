"""First-layer filters: similarity to edge filters and orientation selectivity, compared with random filters."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import InspectionError
from pipeline.inspection.convolution import EDGE_FILTERS, convolve
from pipeline.models.common import features
from pipeline.models.common.build import show_black_image
from pipeline.models.common.layers import Normalize

Filters = npt.NDArray[np.float64]
"""(F, 3, k, k) weights on grey levels of red, green and blue."""

FREQUENCIES = np.arange(1, 17) / 32
"""Of the gratings, in cycles per pixel: from one period in an image of 32 px to the finest that pixels can show."""

ANGLES = np.arange(36) * np.pi / 36
"""Of the gratings' stripes against the horizontal, counterclockwise, in radians."""


@dataclass(frozen=True)
class FirstLayer:
    """The filters that are applied to the image itself.

    Attributes:
        filters: (F, 3, k, k) float64 weights on grey levels: divided by the standard deviation of the channel.
        mean: (3,) float64 grey levels that are subtracted from the image first.
        learned: false for filters that were computed from the training images.
    """

    filters: Filters
    mean: npt.NDArray[np.float64]
    learned: bool

    def answers(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Apply each filter to an (H, W, 3) image, without padding or bias: (F, H - k + 1, W - k + 1)."""
        return convolve(image - self.mean, self.filters)


@dataclass(frozen=True)
class Match:
    """The filter that is most similar to an edge filter: its number in the layer, and their cosine, -1..1.

    A negative cosine is the edge filter with opposite sign: it detects the same edges, where they get darker.
    """

    edge: str
    filter: int
    cosine: float


@dataclass(frozen=True)
class Selectivity:
    """Responses of filters to gratings of all orientations, each filter at its preferred frequency and colour.

    Attributes:
        index: (F,) orientation selectivity, 0..1: 1 for responses to one orientation only, 0 for equal ones to all.
        orientation: (F,) of the preferred stripes, in degrees counterclockwise from the horizontal, 0..180; undefined
            where the index is 0.
        frequency: (F,) in cycles per pixel.
    """

    index: npt.NDArray[np.float64]
    orientation: npt.NDArray[np.float64]
    frequency: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Chance:
    """The same measures for layers of random filters of the same number and size.

    Attributes:
        index: (D, F) the selectivity of each filter in each of D layers.
        cosine: (D, E) for each edge filter the absolute cosine of the most similar filter.
    """

    index: npt.NDArray[np.float64]
    cosine: npt.NDArray[np.float64]


def first_layer(model: nn.Module) -> FirstLayer:
    """Return the filters of the layer that sees the image: the first to run that has square ones on three channels.

    They are its `weight`, or its buffer `filters` if they are computed. In a network without `Normalize` the
    mean is 0 and the standard deviation 1.

    Raises:
        InspectionError: there is no such layer, or its filters are single pixels, which see no edge.
    """
    layers = {name: layer for name, layer in model.named_modules() if _filters_of(layer) is not None}
    ran: list[str] = []
    with features.watched(layers, lambda name, _output: ran.append(name)):
        show_black_image(model)
    weights = _filters_of(layers[ran[0]]) if ran else None
    if weights is None:
        raise InspectionError("this network has no first-layer filters: no layer has weights (F, 3, k, k)")
    if weights.shape[-1] == 1:
        raise InspectionError(
            "the first layer's filters: found 1 x 1 px, which cannot detect edges; expected at least 2 x 2 px"
        )
    normalize = next((module for module in model.modules() if isinstance(module, Normalize)), None)
    mean, std = (normalize.mean[0], normalize.std[0]) if normalize else (torch.zeros(3, 1, 1), torch.ones(3, 1, 1))
    filters, mean, std = (tensor.detach().cpu().double() for tensor in (weights, mean, std))
    return FirstLayer((filters / std).numpy(), mean.flatten().numpy(), weights.requires_grad)


def cosines(filters: Filters) -> npt.NDArray[np.float64]:
    """Return the cosine of each filter with each of `EDGE_FILTERS`: (F, E), -1..1; 0 for a filter of zeros.

    The edge filter is resampled to the size of the others (bilinear, about its centre) and is the same in all three
    channels. So a filter for colour edges does not count as one for brightness edges, as the faint rest of it after a
    projection on the luminance might.
    """
    edges = torch.from_numpy(np.stack(list(EDGE_FILTERS.values())))[:, None].double()
    resized = F.interpolate(edges, size=filters.shape[2:], mode="bilinear", align_corners=False)
    wanted = _unit(resized.expand(-1, 3, -1, -1).numpy())
    return _unit(filters) @ wanted.T


def nearest(filters: Filters) -> list[Match]:
    """Return for each of `EDGE_FILTERS` the filter with the highest absolute cosine, of equals the first."""
    found = cosines(filters)
    best = np.abs(found).argmax(0)
    return [
        Match(edge, int(number), float(found[number, column]))
        for column, (edge, number) in enumerate(zip(EDGE_FILTERS, best, strict=True))
    ]


def selectivity(filters: Filters) -> Selectivity:
    """Measure the orientation selectivity of filters.

    The response of a filter to a drifting sinusoidal grating oscillates with an amplitude R that depends on the
    grating's orientation. The index is 1 - circular variance = |sum R exp(2i angle)| / sum R over all angles
    (Ringach, Shapley & Hawken 2002, J. Neurosci. 22:5639; recommended by Mazurek, Kager & Van Hooser 2014,
    https://doi.org/10.3389/fncir.2014.00092, as L_ori). As for neurons, it is taken at the preferred stimulus: the
    frequency with the highest R at any orientation, and the colour axis that carries most of the filter's weight
    (its first principal component), so that a filter for edges between colours counts like one for brightness.

    Small filters cannot be very selective: the index of Sobel's is 0.37, that of random 3 x 3 filters 0.21 on average.
    """
    amplitudes = np.abs(np.einsum("fyx,wayx->fwa", _on_own_colour(filters), _gratings(filters.shape[-1])))
    best = amplitudes.max(2).argmax(1)
    tuning = amplitudes[np.arange(len(filters)), best]
    total = tuning.sum(1)
    mean = tuning @ np.exp(2j * ANGLES) / np.where(total > 0, total, 1)
    return Selectivity(np.abs(mean), np.degrees(np.angle(mean) / 2) % 180, FREQUENCIES[best])


def chance(count: int, side: int, *, draws: int, seed: int) -> Chance:
    """Measure layers of filters whose weights are independent and normally distributed, as at the start of training.

    Args:
        count, side: F and k of the layers, each (F, 3, k, k).
        draws: how many layers.
        seed: of their weights.
    """
    generator = torch.Generator().manual_seed(seed)
    layers = [
        torch.randn(count, 3, side, side, generator=generator, dtype=torch.float64).numpy() for _ in range(draws)
    ]
    indices = [selectivity(layer).index for layer in layers]
    return Chance(np.stack(indices), np.stack([np.abs(cosines(layer)).max(0) for layer in layers]))


def p_value(value: float, by_chance: npt.NDArray[np.float64]) -> float:
    """Return the one-sided p-value of a measure, from (D,) values of random layers (a Monte Carlo test).

    The value itself counts among them (Davison & Hinkley 1997, section 4.2), so that the result is never 0.
    """
    return float((1 + (by_chance >= value).sum()) / (1 + len(by_chance)))


def summary(layer: FirstLayer, random: Chance) -> dict[str, float]:
    """Return metrics of whether a first layer detects edges.

    They are its mean selectivity and the mean over edge filters of the cosine of the most similar filter; each with
    its mean over random layers and its p-value.
    """
    index = float(selectivity(layer.filters).index.mean())
    cosine = float(np.mean([abs(match.cosine) for match in nearest(layer.filters)]))
    result = {}
    for name, value, drawn in (("selectivity", index, random.index), ("edge_cosine", cosine, random.cosine)):
        result[f"first_layer/{name}"] = value
        result[f"first_layer/{name}_random"] = float(drawn.mean())
        result[f"first_layer/{name}_p"] = p_value(value, drawn.mean(1))
    return result


def _filters_of(layer: nn.Module) -> Tensor | None:
    """Return the (F, 3, k, k) filters of a layer that has any."""
    for name in ("weight", "filters"):
        tensor = getattr(layer, name, None)
        if (
            isinstance(tensor, Tensor)
            and tensor.ndim == 4
            and tensor.shape[1] == 3
            and tensor.shape[2] == tensor.shape[3]
        ):
            return tensor
    return None


def _unit(filters: Filters) -> npt.NDArray[np.float64]:
    """Return filters as rows of length 1, zeros as they are."""
    rows = filters.reshape(len(filters), -1)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def _on_own_colour(filters: Filters) -> npt.NDArray[np.float64]:
    """Return the (F, k, k) weights on the colour axis along which each filter has most of its weight."""
    axes, _, _ = np.linalg.svd(filters.reshape(len(filters), 3, -1), full_matrices=False)
    planes: npt.NDArray[np.float64] = np.einsum("fc,fcyx->fyx", axes[:, :, 0], filters)
    return planes


def _gratings(side: int) -> npt.NDArray[np.complex128]:
    """Return gratings of all `FREQUENCIES` and `ANGLES` as complex waves about the centre: (W, A, side, side)."""
    pixels = np.arange(side) - (side - 1) / 2
    # Stripes at an angle change across it; rows count downwards, angles turn counterclockwise.
    across = np.sin(ANGLES)[:, None, None] * pixels + np.cos(ANGLES)[:, None, None] * pixels[:, None]
    waves: npt.NDArray[np.complex128] = np.exp(2j * np.pi * FREQUENCIES[:, None, None, None] * across)
    return waves
