"""Sections of an explanation on convolutions, first-layer filters and feature maps."""

from pathlib import Path

from pipeline.explanation.explanation import Section, Subject
from pipeline.inspection import (
    convolution,
    convolution_figures,
    feature_maps,
    feature_maps_figures,
    filters,
    filters_figures,
    learned,
)

SHOWN_FILTER = "Sobel vertical"
WALK_SIDE = 7
"""Side in pixels of the section that a filter is shown on: 25 steps of 3 x 3 px."""


def convolved(subject: Subject, out: Path) -> Section:
    """A convolution of a part of the image, step by step."""
    kernel = convolution.EDGE_FILTERS[SHOWN_FILTER]
    part = convolution.liveliest(convolution.grey(subject.image), kernel, WALK_SIDE)
    walk = convolution.walk(part, kernel)
    picture = out / "convolution.gif"
    convolution_figures.walk_animation(picture, walk, SHOWN_FILTER)
    return Section(
        "A convolution, step by step",
        f"A filter of 3 x 3 weights, here a classic one for vertical edges, moves over {WALK_SIDE} x {WALK_SIDE} px "
        "of the image, the window where its outputs are largest. At each step the pixels under it are multiplied by "
        "its weights and the products are added up: one value of the feature map, large where the image gets brighter "
        "to the right, far below 0 where it gets darker. A convolutional layer does the same with many filters, all "
        "colours, and learned weights.",
        picture,
        (
            f"{SHOWN_FILTER} over {WALK_SIDE} x {WALK_SIDE} px of the image: {walk.sums.size} sums from "
            f"{walk.sums.min():+.0f} to {walk.sums.max():+.0f}",
        ),
    )


def edges(subject: Subject, out: Path) -> Section:
    """Outputs of edge filters for the image, and of the network's most similar filters."""
    layer = filters.first_layer(subject.saved.model)
    matches = filters.nearest(layer.filters)
    picture = out / "edges.png"
    filters_figures.edges(picture, subject.image, layer, matches)
    best = max(matches, key=lambda match: abs(match.cosine))
    return Section(
        "Edges: outputs of classic filters and of the network's most similar filters",
        "The filters by Sobel and Prewitt were designed to detect edges of brightness; those of the network are "
        "computed from the training images. Below each is the filter of the first layer with the largest cosine: 1 is "
        "the same filter, 0 is orthogonal. The network's filters take colours, and are followed by a bias or a "
        "normalisation that is omitted here.",
        picture,
        (f"most similar to an edge filter: filter {best.filter}, cosine {abs(best.cosine):.2f} with {best.edge}",),
    )


def first_layer(subject: Subject, out: Path) -> Section:
    """The first-layer filters, tested against random filters."""
    picture = out / "first_layer.png"
    found = learned.first_layer(subject.network, picture)
    return Section(
        "The first layer's filters",
        "Each small picture is a filter: its weights for the colours of each pixel (mid grey: 0). Above it is its "
        "orientation selectivity: 1 responds to stripes of one orientation only, 0 to all alike. Small random filters "
        f"are selective to some degree, too: p is the share of {learned.RANDOM_LAYERS} random layers of as many "
        f"filters with at least this mean (none: 1 in {learned.RANDOM_LAYERS + 1}).",
        picture,
        found.findings,
    )


def by_depth(subject: Subject, out: Path) -> Section:
    """The image's feature maps after each stage."""
    found = feature_maps.feature_maps(subject.saved.model, subject.image)
    picture = out / "feature_maps.png"
    feature_maps_figures.by_depth(picture, subject.image, found)
    shapes = (f"{len(stage.maps)} of {' x '.join(map(str, stage.maps.shape[1:]))} ({stage.name})" for stage in found)
    return Section(
        "Feature maps of the image, layer by layer",
        "Each row is a stage of the network, the first at the top: the feature maps with the highest mean output. "
        "From row to row the receptive field grows, and in most networks there are fewer positions and more channels: "
        "the first maps show outlines, later ones resemble the image less and less.",
        picture,
        (f"feature maps of the image, first layer to last: {', '.join(shapes)}",),
    )


def exciting(subject: Subject, out: Path) -> Section:
    """The patches of test images that activate channels most."""
    picture = out / "patches.png"
    found = learned.patches(subject.network, picture)
    (said,) = found.findings
    return Section(
        "Patches that activate a channel most",
        "Each block of pictures is a channel, with the patches of test images that activate it most. They may have a "
        "colour, an edge, a texture or a part of an object in common. "
        f"How often it is the class: {said}.",
        picture,
        found.findings,
    )
