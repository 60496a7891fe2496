"""The pictures of an explanation: of one image, and of how a network sees a whole split. Images are uint8 RGB."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke

from pipeline.dataset import Images, Labels
from pipeline.figures import BLUE, COLOURS, ORANGE, PALE, headline, saved
from pipeline.inference import Probs
from pipeline.inspection.attribution import Map, Sanity
from pipeline.inspection.confusions import Pair
from pipeline.inspection.embedding import Layout
from pipeline.inspection.label_errors import Suspicions

MARKERS = "osD^vPX"
STRONGEST = 99.0
"""Percentile of a map's absolute values at which its colours end: a single pixel must not make all others pale."""

OUTLINE = (withStroke(linewidth=2.5, foreground="white"),)
PER_ROW = 8
SUSPECTS = 4 * PER_ROW


@dataclass(frozen=True)
class Attribution:
    """A method's map for one image and class, and how it compares with those of random networks."""

    name: str
    map: Map
    sanity: Sanity


def prediction(path: Path, image: Images, probs: Probs, classes: Sequence[str], label: int | None, top: int) -> None:
    """Draw an image and its `top` most probable classes, most probable first.

    Args:
        image: (H, W, 3); probs: (C,); label: the image's class if that is known.
    """
    best = np.argsort(-probs, kind="stable")[:top]
    with saved(path, (7.2, 2.6)) as figure:
        picture, bars = figure.subplots(1, 2, width_ratios=(1, 1.9))
        _show(picture, image)
        if label is not None:
            picture.set_title(f"labelled {classes[label]}", loc="center", fontsize=9)
        colours = [ORANGE if i == 0 and label not in (None, best[0]) else BLUE if i == 0 else PALE for i in range(top)]
        bars.barh(range(len(best)), probs[best] * 100, color=colours[: len(best)])
        for row, index in enumerate(best):
            bars.text(probs[index] * 100 + 1, row, f"{probs[index]:.1%}", va="center", fontsize=8)
        bars.set_yticks(range(len(best)), [classes[index] for index in best])
        bars.invert_yaxis()
        bars.set(xlabel="probability, %", xlim=(0, 112), xticks=range(0, 101, 20))
        bars.grid(visible=False, axis="y")
        verdict = "" if label is None else ", rightly" if best[0] == label else ", wrongly"
        bars.set_title(f"The network says {classes[best[0]]}{verdict}")


def attributions(path: Path, image: Images, found: Sequence[Attribution], name: str) -> None:
    """Draw each method's map for one class beside the image, what it leaves of the image, and a random network's map.

    Args:
        image: (H, W, 3); name: of the class.
    """
    with saved(path, (8.6, 2.25 * len(found) + 0.7)) as figure:
        panels = figure.subplots(len(found), 4, squeeze=False)
        heads = ("image", f"speaks for {name} (blue)\nor against it (red)", "image, lit by what\nspeaks for it")
        for row, (axes, item) in enumerate(zip(panels, found, strict=True)):
            _show(axes[0], image)
            mappable = _draw_map(axes[1], item.map)
            bar = figure.colorbar(mappable, ax=axes[1], shrink=0.75, aspect=12)
            bar.ax.tick_params(labelsize=7)
            bar.set_label("logits", fontsize=7)
            bar.ax.set_ylim(bottom=0 if item.map.min() >= 0 else None)
            _show(axes[2], _lit(image, item.map))
            _draw_map(axes[3], item.sanity.example)
            correlation = str(item.sanity).replace(" (", "\n(").replace(", as", ",\nas")
            axes[3].set_xlabel(f"rank correlation {correlation}", fontsize=8)
            if not item.map.any():
                axes[1].text(0.5, 0.5, f"nowhere\nfor {name}", transform=axes[1].transAxes, ha="center", va="center")
            axes[0].set_ylabel(item.name, fontsize=10)
            if row == 0:
                for panel, head in zip(axes, (*heads, "the same map of a\nrandom network"), strict=True):
                    panel.set_title(head, fontsize=9, loc="center")
        headline(figure, f"What the score of {name} rests on, by {len(found)} methods")


def neighbours(path: Path, image: Images, nearest: Images, captions: Sequence[str], title: str) -> None:
    """Draw an image, and after it its nearest training images (N, H, W, 3) with a caption each."""
    _page(path, np.concatenate([image[None], nearest]), ("the image\n", *captions), title)


def embedding(path: Path, layout: Layout, labels: Labels, classes: Sequence[str], title: str) -> None:
    """Draw two maps of images, one dot each, coloured by class, with the class's name where its dots are.

    Args:
        layout: of N + 1 images; the last is shown as a star, whatever its class.
        labels: (N,), of the others.
    """
    with saved(path, (10, 5.2)) as figure:
        left, right = figure.subplots(1, 2)
        for axes, points in ((left, layout.pca), (right, layout.tsne)):
            for label, name in enumerate(classes):
                own = points[:-1][labels == label]
                if not len(own):
                    continue
                colour = COLOURS[label % len(COLOURS)]
                marker = MARKERS[label // len(COLOURS) % len(MARKERS)]
                axes.scatter(*own.T, s=7, color=colour, marker=marker, alpha=0.6, lw=0)
                middle = np.median(own, axis=0)
                axes.text(*middle, name, color=colour, ha="center", va="center", weight="bold", path_effects=OUTLINE)
            axes.scatter(*points[-1], s=180, marker="*", color="white", edgecolor="black", zorder=3)
            axes.set(xticks=[], yticks=[])
            axes.grid(visible=False)
        first, second = (f"{share:.0%} of the variance" for share in layout.variance)
        left.set(xlabel=f"first principal component, {first}", ylabel=f"second principal component, {second}")
        left.set_title("PCA: the directions of the largest variance")
        right.set_title("t-SNE: neighbours stay neighbours, distances mean nothing")
        headline(figure, title)


def label_errors(
    path: Path, images: Images, labels: Labels, found: Suspicions, classes: Sequence[str], title: str
) -> None:
    """Draw the images whose labels are the most suspect, with the label, what the network says, and the score."""
    captions = [
        f"label {classes[labels[index]]} {score:.1%}\nsays {classes[suggested]}"
        for index, suggested, score in zip(found.indices, found.suggested, found.scores, strict=True)
    ]
    _page(path, images[found.indices[:SUSPECTS]], captions[:SUSPECTS], title)


def confusions(
    path: Path, images: Images, labels: Labels, pairs: Sequence[Pair], classes: Sequence[str], title: str
) -> None:
    """Draw a row for each pair of classes: images taken for the other class, those of which the network is surest."""
    with saved(path, (9, 1.35 * len(pairs) + 0.5)) as figure:
        panels = figure.subplots(len(pairs), PER_ROW, squeeze=False)
        for axes, pair in zip(panels, pairs, strict=True):
            for panel, index in zip(axes, pair.indices, strict=False):
                _show(panel, images[index])
                panel.set_title(f"is {classes[labels[index]]}", fontsize=7, loc="center")
            for panel in axes[len(pair.indices) :]:
                panel.axis("off")
            first, second = classes[pair.first], classes[pair.second]
            text = f"{first}, {second}\n{sum(pair.counts):,} images"
            axes[0].set_ylabel(text, rotation=0, ha="right", va="center", fontsize=8)
        headline(figure, title)


def _page(path: Path, images: Images, captions: Sequence[str], title: str) -> None:
    """Draw images with a caption of two lines each, `PER_ROW` in a row."""
    rows = max(1, -(-len(images) // PER_ROW))
    with saved(path, (9.4, 1.55 * rows + 0.4)) as figure:
        panels: npt.NDArray[np.object_] = figure.subplots(rows, PER_ROW, squeeze=False)
        for number, panel in enumerate(panels.flat):
            assert isinstance(panel, Axes)
            if number < len(images):
                _show(panel, images[number])
                panel.set_title(captions[number], fontsize=7, loc="center")
            else:
                panel.axis("off")
        headline(figure, title)


def _show(axes: Axes, image: npt.NDArray[np.uint8] | npt.NDArray[np.float64]) -> None:
    axes.imshow(image, interpolation="nearest")
    _bare(axes)


def _bare(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)


def _limit(values: Map) -> float:
    """Return the absolute value at which a map's colours end, above 0."""
    strong = float(np.percentile(np.abs(values), STRONGEST))
    return strong or float(np.abs(values).max()) or 1.0


def _draw_map(axes: Axes, values: Map) -> AxesImage:
    limit = _limit(values)
    mappable = axes.imshow(values, cmap="RdBu", vmin=-limit, vmax=limit, interpolation="nearest")
    _bare(axes)
    return mappable


def _lit(image: Images, values: Map) -> npt.NDArray[np.float64]:
    """Return an image (0..1) that is dark but for what a map's positive values light up."""
    light = np.sqrt(np.clip(values / _limit(values), 0, 1))  # the root, as half the light looks like almost none
    lit: npt.NDArray[np.float64] = (0.15 + 0.85 * light[..., None]) * image / 255
    return lit
