"""Figures of an explanation. Images are uint8 RGB."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from pipeline.data.dataset import Images
from pipeline.evaluation.inference import Probs
from pipeline.explanation.attribution import Map, Sanity
from pipeline.inspection.learned_figures import bare, page, show
from pipeline.plotting import BLUE, ORANGE, PALE, headline, saved

STRONGEST = 99.0
"""Percentile of a map's absolute values at which its colours end: so a single pixel does not make all others pale."""


@dataclass(frozen=True)
class Attribution:
    """A method's map for one image and class, with its sanity check."""

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
        show(picture, image)
        if label is not None:
            picture.set_title(f"label {classes[label]}", loc="center", fontsize=9)
        colours = [ORANGE if i == 0 and label not in (None, best[0]) else BLUE if i == 0 else PALE for i in range(top)]
        bars.barh(range(len(best)), probs[best] * 100, color=colours[: len(best)])
        for row, index in enumerate(best):
            bars.text(probs[index] * 100 + 1, row, f"{probs[index]:.1%}", va="center", fontsize=8)
        bars.set_yticks(range(len(best)), [classes[index] for index in best])
        bars.invert_yaxis()
        bars.set(xlabel="probability, %", xlim=(0, 112), xticks=range(0, 101, 20))
        bars.grid(visible=False, axis="y")
        verdict = "" if label is None else " (correct)" if best[0] == label else " (wrong)"
        bars.set_title(f"Predicted class: {classes[best[0]]}{verdict}")


def attributions(path: Path, image: Images, found: Sequence[Attribution], name: str) -> None:
    """Draw each method's map for one class beside the image, the image masked by it, and a random network's map.

    Args:
        image: (H, W, 3); name: of the class.
    """
    with saved(path, (8.6, 2.25 * len(found) + 0.7)) as figure:
        panels = figure.subplots(len(found), 4, squeeze=False)
        heads = ("image", f"raises (blue) or lowers\n(red) the score of {name}", "image where the\nscore is raised")
        for row, (axes, item) in enumerate(zip(panels, found, strict=True)):
            show(axes[0], image)
            mappable = _draw_map(axes[1], item.map)
            bar = figure.colorbar(mappable, ax=axes[1], shrink=0.75, aspect=12)
            bar.ax.tick_params(labelsize=7)
            bar.set_label("logits", fontsize=7)
            bar.ax.set_ylim(bottom=0 if item.map.min() >= 0 else None)
            show(axes[2], _lit(image, item.map))
            _draw_map(axes[3], item.sanity.example)
            correlation = str(item.sanity).replace(" (", "\n(").replace(", as", ",\nas")
            axes[3].set_xlabel(f"rank correlation {correlation}", fontsize=8)
            if not item.map.any():
                axes[1].text(0.5, 0.5, f"zero\nfor {name}", transform=axes[1].transAxes, ha="center", va="center")
            axes[0].set_ylabel(item.name, fontsize=10)
            if row == 0:
                for panel, head in zip(axes, (*heads, "the same map of a\nrandom network"), strict=True):
                    panel.set_title(head, fontsize=9, loc="center")
        headline(figure, f"Attribution of the score of {name} to pixels, by {len(found)} methods")


def neighbours(path: Path, image: Images, nearest: Images, captions: Sequence[str], title: str) -> None:
    """Draw an image and its nearest training images (N, H, W, 3) with a caption each."""
    page(path, np.concatenate([image[None], nearest]), ("the image\n", *captions), title)


def _limit(values: Map) -> float:
    """Return the absolute value at which a map's colours end, above 0."""
    strong = float(np.percentile(np.abs(values), STRONGEST))
    return strong or float(np.abs(values).max()) or 1.0


def _draw_map(axes: Axes, values: Map) -> AxesImage:
    limit = _limit(values)
    mappable = axes.imshow(values, cmap="RdBu", vmin=-limit, vmax=limit, interpolation="nearest")
    bare(axes)
    return mappable


def _lit(image: Images, values: Map) -> npt.NDArray[np.float64]:
    """Return an image (0..1) whose brightness is scaled by a map's positive values."""
    light = np.sqrt(np.clip(values / _limit(values), 0, 1))  # the root, as half the light looks like almost none
    lit: npt.NDArray[np.float64] = (0.15 + 0.85 * light[..., None]) * image / 255
    return lit
