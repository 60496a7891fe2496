"""Figures of the evaluate stage: training curves, confusion, calibration, mistakes."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline import files
from pipeline.data.dataset import Split
from pipeline.evaluation import metrics
from pipeline.evaluation.inference import Probs
from pipeline.evaluation.metrics import Reliability
from pipeline.plotting import BLUE, GREY, ORANGE, PALE, headline, saved, tile


def draw(
    folder: Path,
    history: Sequence[Mapping[str, str]],
    layers: Path,
    test: Split,
    probs: Probs,
    classes: Sequence[str],
) -> None:
    """Draw all figures of a trained network.

    Args:
        history: rows of history.csv.
        layers: the file layers.csv; it has no rows without `train.diagnostics`.
        test, probs: the test set of N images, and the predictions (N, C) for it.
    """
    training_curves(folder / "training.png", history)
    confusion_matrix(folder / "confusion.png", metrics.confusion(probs, test.labels), classes)
    reliability_diagram(folder / "reliability.png", metrics.reliability(probs, test.labels))
    mistakes(folder / "mistakes.png", test.images, test.labels, probs, classes)
    if files.read_csv(layers):
        import pandas as pd  # takes most of a second

        from pipeline.evaluation import probe_figures

        probe_figures.draw(folder, pd.read_csv(layers))


def training_curves(path: Path, history: Sequence[Mapping[str, str]]) -> None:
    """Draw loss and accuracy of train and val, and the learning rate, over the epochs of a history.csv."""
    column = {key: [float(row[key]) for row in history] for key in history[0]}
    with saved(path, (10, 3.2)) as figure:
        loss, accuracy, rate = figure.subplots(1, 3)
        for axes, name, title in ((loss, "loss", "Loss (cross-entropy, nats)"), (accuracy, "accuracy", "Accuracy")):
            for split, colour, marker in (("train", BLUE, "o"), ("val", ORANGE, "s")):
                axes.plot(column["epoch"], column[f"{split}/{name}"], color=colour, marker=marker, ms=3, label=split)
            axes.set(title=title)
            axes.legend()
        rate.plot(column["epoch"], column["lr"], color=GREY, marker="o", ms=3)
        rate.set(title="Learning rate at the epoch's end", ylim=(0, None))
        for axes in (loss, accuracy, rate):
            axes.set(xlabel="epoch")
            axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        epochs = "1 epoch" if len(history) == 1 else f"{len(history)} epochs"
        headline(
            figure,
            f"Training over {epochs}: final val accuracy {column['val/accuracy'][-1]:.1%}. "
            "(Train: on augmented images, loss with label smoothing.)",
        )


def confusion_matrix(path: Path, matrix: npt.NDArray[np.int64], classes: Sequence[str]) -> None:
    """Draw the confusion matrix: (C, C) counts, row the true class."""
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    with saved(path, (6.4, 5.8)) as figure:
        axes = figure.subplots()
        image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(*matrix.shape):
            if matrix[row, column]:
                colour = "white" if share[row, column] > 0.5 else "black"
                axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=colour, fontsize=8)
        axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
        axes.set_yticks(range(len(classes)), classes)
        axes.set(xlabel="predicted class", ylabel="true class")
        axes.set_title(f"Confusion matrix of the test set: accuracy {np.trace(matrix) / matrix.sum():.1%}")
        axes.grid(visible=False)
        figure.colorbar(image, label="share of the true class", shrink=0.8)


def reliability_diagram(path: Path, bins: Reliability) -> None:
    """Draw accuracy by confidence, and the number of predictions by confidence."""
    error = bins.error
    width = np.diff(bins.edges)
    centres = bins.edges[:-1] + width / 2
    filled = bins.counts > 0
    with saved(path, (4.8, 5)) as figure:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        top.plot((0, 1), (0, 1), color=GREY, ls="--", lw=1, label="perfectly calibrated")
        # Pale, so that the diagonal shows in front of the bars.
        top.bar(centres[filled], bins.accuracy[filled], width[filled] * 0.92, color=PALE, label="accuracy")
        means = (bins.confidence[filled], bins.accuracy[filled])
        top.plot(*means, "s", color=ORANGE, ms=4, clip_on=False, label="at mean confidence")
        top.set(ylabel="accuracy", ylim=(0, 1))
        top.set_title(f"Accuracy by confidence:\nexpected calibration error {error:.3f}")
        figure.legend(loc="outside lower center", ncols=3, fontsize=8, handlelength=1.5, columnspacing=1.2)
        bottom.bar(centres, bins.counts, width * 0.92, color=GREY)
        bottom.set(xlabel="confidence (largest probability)", ylabel="images", xlim=(0, 1))


def mistakes(
    path: Path,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.uint8],
    probs: npt.NDArray[np.float32],
    classes: Sequence[str],
) -> None:
    """Draw the up to 32 wrong predictions of the highest confidence.

    Args:
        images: (N, H, W, 3) uint8; labels: (N,) uint8; probs: (N, C).
    """
    predicted = probs.argmax(1)
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-probs[wrong, predicted[wrong]], kind="stable")][:32]
    rows = max(1, -(-len(worst) // 8))
    with saved(path, (9, 1.26 * rows + 0.3)) as figure:
        axes = figure.subplots()
        lefts, tops = tile(axes, images[worst], (rows, 8), gap=(12, 16))
        for index, (top, left) in zip(worst, itertools.product(tops, lefts), strict=False):
            text = f"{classes[predicted[index]]} {probs[index, predicted[index]]:.0%}\nlabel {classes[labels[index]]}"
            axes.text(left, top - images.shape[1] / 2 - 2, text, fontsize=7, ha="center", va="bottom")
        axes.axis("off")
        text = f"{len(wrong) or 'None'} of {len(labels)} test images are misclassified"
        text += f"; the {len(worst)} of the highest confidence" if len(worst) < len(wrong) else ""
        text += ": predicted class with its probability, label" if len(wrong) else ""
        headline(figure, text)
