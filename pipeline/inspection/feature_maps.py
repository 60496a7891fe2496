"""Feature maps of a network's stages: for one image, and the images that activate each channel most."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pipeline import stage
from pipeline.data.dataset import Split
from pipeline.data.loader import batches
from pipeline.inspection import receptive_field
from pipeline.inspection.receptive_field import Field
from pipeline.models.common import features, numerics


@dataclass(frozen=True)
class FeatureMaps:
    """The output of one stage for one image: its name and (C, H, W) float32."""

    name: str
    field: Field
    maps: npt.NDArray[np.float32]

    def strongest(self, count: int) -> npt.NDArray[np.int64]:
        """Return the channels with the highest mean absolute value over the map, the highest first."""
        return np.argsort(-np.abs(self.maps).mean((1, 2)), kind="stable")[:count]


@dataclass(frozen=True)
class Exciting:
    """The images, and the positions in them, that activate each channel of one stage most.

    Of each image only the position with the highest value counts, so the patches of a channel are from different
    images. Of equal values the first image comes first, and in an image the first position row by row.

    Attributes:
        name: of the stage.
        field: the receptive field.
        answers: (C, K) float32, the highest first.
        images: (C, K) int64, indices into the split.
        places: (C, K, 2) int64, row and column in the feature map.
        distinctness: (C,) float64, z-score of the mean of the K highest values among the highest values of all images;
            0 for a channel with the same value for all.
    """

    name: str
    field: Field
    answers: npt.NDArray[np.float32]
    images: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]
    distinctness: npt.NDArray[np.float64]

    def most_distinct(self, count: int) -> npt.NDArray[np.int64]:
        """Return the channels with the highest distinctness, the highest first."""
        return np.argsort(-self.distinctness, kind="stable")[:count]


@torch.inference_mode()
def feature_maps(model: nn.Module, image: npt.NDArray[np.uint8]) -> list[FeatureMaps]:
    """Return the output of every stage for one (32, 32, 3) uint8 image, in the order of depth.

    Raises:
        InspectionError: the network has no feature maps.
    """
    maps: dict[str, npt.NDArray[np.float32]] = {}
    with features.watched(
        features.stages(model), lambda name, output: maps.update({name: output[0].float().cpu().numpy()})
    ):
        place = next(model.parameters()).device
        model.eval()(torch.from_numpy(image).to(place).permute(2, 0, 1)[None])
    return [FeatureMaps(name, field, maps[name]) for name, field in receptive_field.fields(model).items()]


@torch.inference_mode()
def exciting(
    model: nn.Module, split: Split, *, batch_size: int, place: torch.device, count: int = 9
) -> list[Exciting]:
    """Find the images of a split that activate each channel of every stage most, after Zeiler & Fergus 2014.

    Source: https://arxiv.org/abs/1311.2901, section 4. Memory grows with `batch_size`, not with the split.

    Args:
        count: images for each channel; fewer if the split has fewer.

    Returns:
        One entry for each stage, in the order of depth.

    Raises:
        InspectionError: the network has no feature maps.
    """
    model = numerics.ready(model, place)
    fields = receptive_field.fields(model)
    best = {name: _Best(count) for name in fields}
    with (
        features.watched(features.stages(model), lambda name, output: best[name].add(output)),
        stage.bar("searching patches that activate channels", len(split)) as advance,
    ):
        for images, _ in batches(split, batch_size=batch_size, device=place):
            model(images)
            advance(len(images))
    return [best[name].result(name, field) for name, field in fields.items()]


def seen(image: npt.NDArray[np.uint8], box: tuple[int, int, int, int], *, fill: int = 235) -> npt.NDArray[np.uint8]:
    """Cut an (S, S, 3) image to a receptive field's box, which may reach beyond it.

    Returns:
        The box, filled with the grey level `fill` outside the image; along an axis on which it is as large as the
        image, the image, filled outside the box: (h, w, 3) uint8.
    """
    side, (top, left, bottom, right) = len(image), box
    within = (slice(max(top, 0), bottom), slice(max(left, 0), right))
    shown = np.full_like(image, fill)
    shown[within] = image[within]
    padded = np.pad(shown, ((side, side), (side, side), (0, 0)), constant_values=fill)
    rows, columns = (
        slice(start + side, end + side) if end - start < side else slice(side, 2 * side)
        for start, end in ((top, bottom), (left, right))
    )
    return padded[rows, columns]


class _Best:
    """The highest values so far of each channel of one stage."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.seen = 0
        self.kept: list[Tensor] = []  # answers, images, positions: (C, K) each
        self.moments: list[Tensor] = []  # sum and sum of squares of all images' highest answers: (C,) float64

    def add(self, output: Tensor) -> None:
        """Add the (N, C, H, W) output for the next N images."""
        self.width = output.shape[3]
        answers, positions = (values.cpu() for values in output.float().flatten(2).max(2))  # the first of equals
        images = torch.arange(self.seen, self.seen + len(output))[:, None].expand_as(positions)
        self.seen += len(output)
        new = [answers.T, images.T, positions.T]
        joined = [torch.cat(pair, 1) for pair in zip(self.kept, new, strict=True)] if self.kept else new
        # Stable, and earlier images stand first: of equal answers the first image wins.
        order = joined[0].argsort(dim=1, descending=True, stable=True)[:, : self.count]
        self.kept = [values.gather(1, order) for values in joined]
        exact = answers.double()
        moments = [exact.sum(0), exact.square().sum(0)]
        self.moments = (
            [old + more for old, more in zip(self.moments, moments, strict=True)] if self.moments else moments
        )

    def result(self, name: str, field: Field) -> Exciting:
        """Return what was found."""
        answers, images, positions = (values.numpy() for values in self.kept)
        total, squares = (values.numpy() for values in self.moments)
        mean = total / self.seen
        deviation = np.sqrt(np.maximum(squares / self.seen - mean**2, 0))
        above = answers.mean(1, dtype=np.float64) - mean
        distinctness = np.where(deviation > 1e-6 * np.abs(mean), above / np.maximum(deviation, 1e-30), 0.0)
        places = np.stack(np.divmod(positions, self.width), -1)
        return Exciting(name, field, answers, images, places, distinctness)
