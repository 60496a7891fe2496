"""Learned features, as figures with metrics: filters, patches, embedding, confusions, suspicious labels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline import stage
from pipeline.data import dataset
from pipeline.data.dataset import Images, Labels, Split
from pipeline.errors import InspectionError
from pipeline.inspection import (
    confusions,
    embedding,
    feature_maps,
    feature_maps_figures,
    filters,
    filters_figures,
    label_errors,
    learned_figures,
)
from pipeline.inspection.feature_maps import Exciting
from pipeline.inspection.network import Network

RANDOM_LAYERS = 100
EXCITING_IMAGES = 2500
"""Test images searched for patches that activate a channel: enough for clear cases, in a quarter of the time."""

MAP_IMAGES = 1000
"""Test images in the embedding: enough to see groups, few enough for t-SNE to take seconds."""

NEIGHBOURS = 10
PAIRS = 5


@dataclass(frozen=True)
class Found:
    """The findings of a figure: one or more lines of text, and metrics by name."""

    findings: tuple[str, ...]
    metrics: Mapping[str, float]


def draw(network: Network, folder: Path) -> dict[str, float]:
    """Draw all `PICTURES` of a network in a folder, print their findings and return their metrics.

    Those that do not apply to this network are omitted, with a line that gives the reason.
    """
    result: dict[str, float] = {}
    for name, picture in PICTURES.items():
        try:
            found = picture(network, folder / f"{name}.png")
        except InspectionError as error:
            print(f"left out: {name}: {error}", flush=True)
            continue
        result |= found.metrics
        for finding in found.findings:
            print(finding, flush=True)
    return result


def first_layer(network: Network, picture: Path) -> Found:
    """Draw the first-layer filters, and test them against random filters.

    Raises:
        InspectionError: there are none, or they are single pixels.
    """
    layer = filters.first_layer(network.model)
    count, _, side, _ = layer.filters.shape
    random = filters.chance(count, side, draws=RANDOM_LAYERS, seed=network.seed)
    filters_figures.first_layer(picture, layer, filters.selectivity(layer.filters), random)
    measured = filters.summary(layer, random)
    index, cosine = (
        "{:.2f}, of random filters {:.2f} (p = {:.2g})".format(
            *(measured[f"first_layer/{name}{part}"] for part in ("", "_random", "_p"))
        )
        for name in ("selectivity", "edge_cosine")
    )
    return Found(
        (
            f"orientation selectivity of the first layer {index}",
            f"cosine similarity of the first layer with edge filters {cosine}",
        ),
        {f"inspect/{name}": value for name, value in measured.items()},
    )


def patches(network: Network, picture: Path) -> Found:
    """Draw the patches of test images that activate channels most, and count how many of them are of one class.

    Raises:
        InspectionError: the network has no feature maps.
    """
    test = dataset.first_of_each_class(network.test, EXCITING_IMAGES)
    found = feature_maps.exciting(network.model, test, batch_size=network.batch_size, place=network.place)
    feature_maps_figures.patches_by_depth(picture, test.images, found)
    by_stage = [most_common(test.labels, one) for one in found]
    by_chance = most_common(np.random.default_rng(network.seed).permutation(test.labels), found[-1])
    shown = found[0].images.shape[1]
    counts = ", ".join(f"{count:.1f} ({one.name})" for count, one in zip(by_stage, found, strict=True))
    said = (
        f"of the {shown} of {len(test):,} images that activate a channel most, {counts} have the same label on "
        f"average; with shuffled labels {by_chance:.1f}"
    )
    agreeing = {"first": by_stage[0], "last": by_stage[-1], "random": by_chance}
    return Found((said,), {f"inspect/patch_agreement/{name}": count / shown for name, count in agreeing.items()})


def most_common(labels: Labels, found: Exciting) -> float:
    """Return how many of the images that activate a channel most share their most common label: mean over channels.

    Args:
        labels: (N,) uint8, of all images searched.
    """
    votes: npt.NDArray[np.int64] = (labels[found.images][:, :, None] == np.arange(labels.max() + 1)).sum(1)
    return float(votes.max(1).mean())


def map_of_classes(network: Network, picture: Path, image: Images | None = None) -> Found:
    """Draw the embedding in two dimensions, and measure the accuracy of the nearest neighbours' class.

    Args:
        image: (H, W, 3) uint8, shown as a star among them, if there is one.

    Raises:
        InspectionError: the network has no `head`.
    """
    test = dataset.first_of_each_class(network.test, MAP_IMAGES)
    shown = test
    if image is not None:
        shown = Split(np.concatenate([test.images, image[None]]), np.append(test.labels, np.uint8(0)))
    vectors = embedding.features(network.model, shown, batch_size=network.batch_size, place=network.place)
    near = min(NEIGHBOURS, len(test) - 1)
    learned = embedding.neighbour_accuracy(vectors[: len(test)], test.labels, neighbours=near)
    pixels = test.images.reshape(len(test), -1).astype(np.float32)
    raw = embedding.neighbour_accuracy(pixels - pixels.mean(0), test.labels, neighbours=near)
    with stage.bar("computing the embedding", 1):
        layout = embedding.layout(vectors, seed=network.seed)
    said = f"accuracy of a {near}-nearest-neighbour classifier on {len(test):,} test images: {learned:.1%}"
    learned_figures.embedding(
        picture,
        layout,
        test.labels,
        network.classes,
        f"{sentence(said)}\nby the last layer's input; by pixels {raw:.1%}",
    )
    return Found(
        (f"{said} by the last layer's input, {raw:.1%} by pixels",),
        {"inspect/neighbour_accuracy": learned, "inspect/neighbour_accuracy/pixels": raw},
    )


def confused(network: Network, picture: Path) -> Found:
    """Draw images of the pairs of classes that are confused most often."""
    test, classes = network.test, network.classes
    pairs = confusions.most_confused(network.probs, test.labels, PAIRS)
    wrong = int((network.probs.argmax(1) != test.labels).sum())
    said = f"no two classes are confused on {len(test):,} test images"
    if pairs:
        first, second = (classes[label] for label in (pairs[0].first, pairs[0].second))
        said = (
            f"confused most: {first} predicted as {second} {pairs[0].counts[0]:,} times, {second} as {first} "
            f"{pairs[0].counts[1]:,} times, of {wrong:,} errors on {len(test):,} test images"
        )
    learned_figures.confusions(picture, test.images, test.labels, pairs, classes, sentence(said))
    return Found((said,), {})


def suspicious(network: Network, picture: Path) -> Found:
    """Draw the images whose labels are likely wrong."""
    test = network.test
    found = label_errors.suspicions(network.probs, test.labels)
    said = (
        f"{len(found):,} of {len(test):,} test labels are suspicious (accuracy of the network: {network.accuracy:.1%})"
    )
    learned_figures.label_errors(
        picture,
        test.images,
        test.labels,
        found,
        network.classes,
        f"{said};\nthe most suspicious, with the predicted probability of the label. Most are errors of the network",
    )
    return Found((said,), {"inspect/suspicious_labels": len(found) / len(test)})


def sentence(text: str) -> str:
    """Return a finding with a capital letter, as a title."""
    return text[0].upper() + text[1:]


PICTURES: dict[str, Callable[[Network, Path], Found]] = {
    "first_layer": first_layer,
    "patches": patches,
    "embedding": map_of_classes,
    "confusions": confused,
    "label_errors": suspicious,
}
"""The pictures of a network by the names of their files, without ".png"."""
