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
        "What a convolution does, step by step",
        f"A filter of 3 x 3 numbers, here a classic one for vertical edges, walks over {WALK_SIDE} x {WALK_SIDE} px "
        "of the image, where it finds most to say. At each step the pixels under it are multiplied by its numbers, "
        "and the products added up: one number of the feature map, large where it gets brighter to the right, far "
        "below 0 where it gets darker. A convolutional layer does the same with many filters, all colours, and "
        "numbers that it has learned.",
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
        "Edges: what classic filters find in the image, and what the network's most similar filters find",
        "The filters by Sobel and Prewitt were made to find edges of brightness; the network's come from the training "
        "images alone. Below each the filter of its first layer that points most in the same direction: a cosine of "
        "1 is the same filter, 0 has nothing to do with it. The network's filters see colours, and are followed by a "
        "bias or a normalisation that is left out here.",
        picture,
        (f"most like an edge filter: filter {best.filter}, like {best.edge} with a cosine of {abs(best.cosine):.2f}",),
    )


def first_layer(subject: Subject, out: Path) -> Section:
    """The first-layer filters, tested against random filters."""
    picture = out / "first_layer.png"
    found = learned.first_layer(subject.network, picture)
    return Section(
        "Is the first layer an edge detector?",
        "Each little picture is a filter: what it has in a pixel's colour (mid grey: nothing) it multiplies that "
        "pixel's colour by. Above it is its orientation selectivity: 1 if it answers to stripes of one orientation "
        "only, 0 if to all alike. Small random filters prefer some orientation, too, hence the comparison: p is the "
        f"share of {learned.RANDOM_LAYERS} random layers of as many filters that reach as much (none: 1 in "
        f"{learned.RANDOM_LAYERS + 1}).",
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
        "The image, layer by layer",
        "Each row is a part of the network, the first at the top: the feature maps that answer most to this image. "
        "From row to row each number sees more of the image, and in most networks there are fewer places and more "
        "channels: outlines at first, then ever less that looks like the image.",
        picture,
        (f"feature maps of the image, first layer to last: {', '.join(shapes)}",),
    )


def exciting(subject: Subject, out: Path) -> Section:
    """The patches of test images that activate channels most."""
    picture = out / "patches.png"
    found = learned.patches(subject.network, picture)
    (said,) = found.findings
    return Section(
        "What excites a channel most",
        "Each block of pictures is a channel, and shows the parts of test images to which it answers "
        "most. Do they have something in common, and what: a colour, an edge, a texture, a part of an animal? "
        f"How far it is the class can be counted: {said}.",
        picture,
        found.findings,
    )
