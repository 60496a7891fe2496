"""Augmentation: accuracy on test and training images, by augmentation and size of the training set."""

from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline import stage
from pipeline.experiments.tables import Table
from pipeline.studies import trained
from pipeline.studies.analysis import Analysis, Findings, Picture, Quantity, counted, in_points, mean, with_spread
from pipeline.studies.charts import Curve, Plot, curves
from pipeline.studies.collected import Collected

if TYPE_CHECKING:
    from pipeline.data.dataset import Split

NONE, ALL, SINGLE = "none", "all", ("flip", "translate", "cutout")
KINDS = (NONE, *SINGLE, ALL)
IMAGES, BATCH_SIZE = 5000, 500
"""Maximum number of training images on which trained networks are evaluated, and the batch size."""

QUANTITIES = {
    "gain": Quantity("points of test accuracy gained by all augmentations, minimum over training set sizes", "+.2f"),
    "gap_closed": Quantity(
        "points by which they narrow the gap between unaugmented training images and test images, minimum over sizes",
        "+.2f",
    ),
    "more_for_few": Quantity("gain with the fewest images minus gain with the most, in points", "+.2f"),
    "least_alone": Quantity(
        "points gained by flips, shifts or cutout alone, minimum of their means over sizes", "+.2f"
    ),
}


def analyse(collected: Collected) -> Findings:
    """Compare kinds of augmentation at each size of the training set."""
    points = {variant: _point(collected, variant) for variant in collected.variants}
    shares = sorted({share for _, share in points.values()})
    variants = {point: variant for variant, point in points.items()}
    tests = {variant: [100 * v for v in collected.values(variant, "test/accuracy")] for variant in points}
    fits = _fits(collected)
    gaps = {name: [fit - test for fit, test in zip(fits[name], tests[name], strict=True)] for name in points}
    gains = {
        kind: [mean(tests[variants[kind, share]]) - mean(tests[variants[NONE, share]]) for share in shares]
        for kind in KINDS
    }
    closed = [mean(gaps[variants[NONE, share]]) - mean(gaps[variants[ALL, share]]) for share in shares]
    quantities = {
        "gain": float(np.min(gains[ALL])),  # min() drops NaN
        "gap_closed": float(np.min(closed)),
        "more_for_few": gains[ALL][0] - gains[ALL][-1],
        "least_alone": float(np.min([fmean(gains[kind]) for kind in SINGLE])),
    }
    rows = tuple(
        (
            kind,
            f"{100 * share:g}",
            with_spread(collected.values(name, "data/train_images")[:1], digits=0),
            with_spread(tests[name]),
            with_spread(fits[name]),
            with_spread(gaps[name]),
            with_spread(collected.values(name, "val/loss"), digits=3),
            counted(collected, name),
        )
        for name, (kind, share) in points.items()
    )
    head = ("augmentation", "share, %", "images", "test, %", "training images, %", "gap", "val loss, nats", "n")
    few, most = (f"{100 * share:g} %" for share in (shares[0], shares[-1]))
    caption = (
        f"All augmentations together change test accuracy by {in_points(gains[ALL][0], '+.1f')} with {few} of the "
        f"images and by {in_points(gains[ALL][-1], '+.1f')} with {most}"
    )
    by_epoch = _by_epoch(collected, variants, shares)
    learning = f"With {few}, validation loss ends {_at_the_end(by_epoch[0])}"
    xlabel = "share of the training images, %"
    by_size = [
        Plot(title, xlabel, ylabel, _by_size(values, variants, shares), log=True)
        for title, ylabel, values in (
            ("Test images", "test accuracy, %", tests),
            ("Training images minus test images", "gap, points", gaps),
        )
    ]
    pictures = (
        Picture("", f"{caption}.", lambda path: curves(path, by_size, caption, columns=2)),
        Picture(
            "-epochs",
            f"{learning}. Validation loss and accuracy by epoch.",
            lambda path: curves(path, by_epoch, learning, columns=len(shares)),
        ),
    )
    return Findings(quantities, (Table("Accuracy after the last epoch", head, rows),), pictures)


def _point(collected: Collected, variant: str) -> tuple[str, float]:
    """Return a variant's kind of augmentation and its share of the training images."""
    return variant.rpartition("-")[0], collected.settings(variant).data.train_share


def _fits(collected: Collected) -> dict[str, list[float]]:
    """Return the accuracy in percent on unaugmented training images, for each variant by seed."""
    import torch

    from pipeline.data import dataset
    from pipeline.evaluation import inference

    shown: dict[str, Split] = {}

    def accuracy(name: str) -> float:
        data = collected.found[name].record.dataset_hash
        if data not in shown:  # shared by experiments of one size
            shown[data] = dataset.first_of_each_class(trained.images(collected, name, "train"), IMAGES)
        model = trained.network(collected, name).model
        probs = inference.predict(model, shown[data], batch_size=BATCH_SIZE, place=torch.device("cpu"))
        return 100 * inference.accuracy(probs, shown[data].labels)

    found: dict[str, list[float]] = {variant: [] for variant in collected.variants}
    with stage.bar("evaluating training images", len(collected.found)) as advance:
        for variant, accuracies in found.items():
            for name in trained.names(collected, variant):
                accuracies.append(collected.measured("fit", name, partial(accuracy, name)))
                advance(1)
    return found


def _by_size(
    values: dict[str, list[float]], variants: dict[tuple[str, float], str], shares: list[float]
) -> dict[str, Curve]:
    percent = [100 * share for share in shares]
    return {kind: Curve(percent, [values[variants[kind, share]] for share in shares]) for kind in KINDS}


def _by_epoch(collected: Collected, variants: dict[tuple[str, float], str], shares: list[float]) -> list[Plot]:
    """Return plots of validation loss, then accuracy, one for each size."""
    histories = {
        variant: [collected.history(name) for name in trained.names(collected, variant)]
        for variant in variants.values()
    }
    return [
        Plot(
            f"{100 * share:g} % of the training images",
            "epoch",
            label,
            {kind: _course(histories[variants[kind, share]], measure, factor) for kind in KINDS},
            integer=True,
        )
        for measure, label, factor in (("val/loss", "val loss, nats", 1), ("val/accuracy", "val accuracy, %", 100))
        for share in shares
    ]


def _course(histories: list[pd.DataFrame], measure: str, factor: float) -> Curve:
    epochs = [int(epoch) for epoch in histories[0]["epoch"]] if histories else []
    values = [[factor * float(history[measure].iloc[row]) for history in histories] for row in range(len(epochs))]
    return Curve(epochs, values)


def _at_the_end(losses: Plot) -> str:
    """Format the mean loss after the last epoch, without augmentation and with all."""
    ends = []
    for kind in (NONE, ALL):
        values = losses.curves[kind].values
        ends.append(f"at {fmean(values[-1]):.2f} nats" if values else "at an unknown loss")
    return f"{ends[0]} without augmentation and {ends[1]} with all"


ANALYSIS = Analysis(QUANTITIES, analyse)
