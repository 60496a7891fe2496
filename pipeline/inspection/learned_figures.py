"""Figures of the embedding, of confusions and of suspicious labels. Images are uint8 RGB."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from pipeline.data.dataset import Images, Labels
from pipeline.inspection.confusions import Pair
from pipeline.inspection.embedding import Layout
from pipeline.inspection.label_errors import Suspicions
from pipeline.plotting import COLOURS, headline, saved

MARKERS = "osD^vPX"
OUTLINE = (withStroke(linewidth=2.5, foreground="white"),)
PER_ROW = 8
SUSPECTS = 4 * PER_ROW


def embedding(path: Path, layout: Layout, labels: Labels, classes: Sequence[str], title: str) -> None:
    """Draw two maps of images, one dot each, coloured by class, with the class's name where its dots are.

    Args:
        layout: of N images or more; those after the N are shown as stars.
        labels: (N,).
    """
    with saved(path, (10, 5.2)) as figure:
        left, right = figure.subplots(1, 2)
        for axes, points in ((left, layout.pca), (right, layout.tsne)):
            for label, name in enumerate(classes):
                own = points[: len(labels)][labels == label]
                if not len(own):
                    continue
                colour = COLOURS[label % len(COLOURS)]
                marker = MARKERS[label // len(COLOURS) % len(MARKERS)]
                axes.scatter(*own.T, s=7, color=colour, marker=marker, alpha=0.6, lw=0)
                middle = np.median(own, axis=0)
                axes.text(*middle, name, color=colour, ha="center", va="center", weight="bold", path_effects=OUTLINE)
            axes.scatter(*points[len(labels) :].T, s=180, marker="*", color="white", edgecolor="black", zorder=3)
            axes.set(xticks=[], yticks=[])
            axes.grid(visible=False)
        first, second = (f"{share:.0%} of the variance" for share in layout.variance)
        left.set(xlabel=f"first principal component, {first}", ylabel=f"second principal component, {second}")
        left.set_title("PCA: directions of the largest variance")
        right.set_title("t-SNE: keeps neighbours, not distances")
        headline(figure, title)


def label_errors(
    path: Path, images: Images, labels: Labels, found: Suspicions, classes: Sequence[str], title: str
) -> None:
    """Draw the images with the most suspect labels, with the label, the prediction and the score."""
    captions = [
        f"label {classes[labels[index]]} {score:.1%}\npredicted {classes[suggested]}"
        for index, suggested, score in zip(found.indices, found.suggested, found.scores, strict=True)
    ]
    page(path, images[found.indices[:SUSPECTS]], captions[:SUSPECTS], title)


def confusions(
    path: Path, images: Images, labels: Labels, pairs: Sequence[Pair], classes: Sequence[str], title: str
) -> None:
    """Draw a row for each pair of classes: images predicted as the other class, the most confident first."""
    rows = max(1, len(pairs))
    with saved(path, (9, 1.35 * rows + 0.5)) as figure:
        panels = figure.subplots(rows, PER_ROW, squeeze=False)
        for axes, pair in zip(panels, pairs, strict=False):
            for panel, index in zip(axes, pair.indices, strict=False):
                show(panel, images[index])
                panel.set_title(f"label {classes[labels[index]]}", fontsize=7, loc="center")
            first, second = classes[pair.first], classes[pair.second]
            text = f"{first}, {second}\n{sum(pair.counts):,} images"
            axes[0].set_ylabel(text, rotation=0, ha="right", va="center", fontsize=8)
        for panel in panels.flat:
            if not panel.images:
                panel.axis("off")
        headline(figure, title)


def page(path: Path, images: Images, captions: Sequence[str], title: str) -> None:
    """Draw images with a caption of two lines each, `PER_ROW` in a row."""
    rows = max(1, -(-len(images) // PER_ROW))
    with saved(path, (9.4, 1.55 * rows + 0.4)) as figure:
        panels: npt.NDArray[np.object_] = figure.subplots(rows, PER_ROW, squeeze=False)
        for number, panel in enumerate(panels.flat):
            assert isinstance(panel, Axes)
            if number < len(images):
                show(panel, images[number])
                panel.set_title(captions[number], fontsize=7, loc="center")
            else:
                panel.axis("off")
        headline(figure, title)


def show(axes: Axes, image: npt.NDArray[np.uint8] | npt.NDArray[np.float64]) -> None:
    """Draw an image without axes."""
    axes.imshow(image, interpolation="nearest")
    bare(axes)


def bare(axes: Axes) -> None:
    """Remove ticks, spines and grid."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
