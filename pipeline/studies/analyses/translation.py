"""Translation: accuracy and consistency on shifted images, by network, pooling and augmentation."""

import io
import math
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.ticker import MultipleLocator, PercentFormatter

from pipeline import stage
from pipeline.experiments.tables import Table
from pipeline.plotting import saved
from pipeline.studies import trained
from pipeline.studies.analysis import CHANCE, Analysis, Findings, Picture, Quantity, counted, mean, with_spread
from pipeline.studies.charts import Curve, Plot, curves, wrapped_headline
from pipeline.studies.collected import Collected

NETWORKS = ("mlp", "cnn-max", "cnn-average", "cnn-stride", "cnn-none")
POOLED, WITHOUT = ("cnn-max", "cnn-average"), "cnn-none"
TRAININGS = {"still": "Trained on unmoved images", "moved": "Trained on images moved by up to 4 px"}

QUANTITIES = {
    "cnn_loss": Quantity(
        "percent of its accuracy above chance that the CNN with max pooling, trained on unmoved ones, loses by shifts",
        ".1f",
    ),
    "cnn_over_mlp": Quantity("percent that the fully connected network loses in addition", "+.1f"),
    "pooling_gain": Quantity(
        "points of consistency gained by pooling, trained on unmoved images, the smaller of max and average",
        "+.1f",
    ),
    "augmentation_over_pooling": Quantity(
        "points of consistency gained by moving the training images, minus those gained by the better pooling", "+.1f"
    ),
}


def analyse(collected: Collected) -> Findings:
    """Compare the effect of shifts on networks that differ in architecture, pooling and `augment.translate`."""
    shifts = read(collected)
    lost = {name: mean(losses(collected, name)) for name in collected.variants}
    kept = {name: 100 * collected.mean(name, "test/shift_consistency") for name in collected.variants}
    without = kept[f"{WITHOUT}-still"]
    by_pooling = [kept[f"{name}-still"] - without for name in POOLED]
    quantities = {
        "cnn_loss": lost["cnn-max-still"],
        "cnn_over_mlp": lost["mlp-still"] - lost["cnn-max-still"],
        "pooling_gain": float(np.min(by_pooling)),  # min() drops NaN
        "augmentation_over_pooling": kept[f"{WITHOUT}-moved"] - without - float(np.max(by_pooling)),
    }
    rows = tuple(
        (
            name,
            with_spread(collected.values(name, "test/accuracy"), 100),
            with_spread(collected.values(name, "test/clean_accuracy"), 100),
            with_spread(collected.values(name, "test/shift_accuracy"), 100),
            with_spread(losses(collected, name)),
            with_spread(collected.values(name, "test/shift_consistency"), 100),
            counted(collected, name),
        )
        for name in collected.variants
    )
    head = ("network", "test, %", "unmoved, %", "moved, %", "loss of accuracy above chance, %", "consistency, %", "n")
    caption = (
        f"Moved by up to 8 px, the CNN with max pooling loses {_percent(lost['cnn-max-still'])} of its accuracy above "
        f"chance, the fully connected network {_percent(lost['mlp-still'])}"
    )
    maps = (
        f"{_percent(kept['cnn-max-still'])} of the predictions are unchanged by shifts with max pooling, "
        f"{_percent(without)} without pooling; lower row: trained on moved images"
    )
    pictures = (
        Picture("", f"{caption}.", lambda path: curves(path, plots(shifts), caption, columns=2, shared=True)),
        Picture(
            "-maps",
            f"{maps}. A cell is a shift; edges are filled by reflection.",
            lambda path: draw_maps(path, shifts, maps),
        ),
    )
    return Findings(quantities, (Table("Networks on moved images", head, rows),), pictures)


def losses(collected: Collected, variant: str) -> list[float]:
    """Return the percentage of the accuracy above chance that is lost on moved images, by seed.

    A network no better than chance is left out: its loss is undefined.
    """
    pairs = zip(
        collected.values(variant, "test/clean_accuracy"),
        collected.values(variant, "test/shift_accuracy"),
        strict=True,
    )
    return [100 * (clean - moved) / (clean - CHANCE) for clean, moved in pairs if clean > CHANCE]


def plots(shifts: dict[str, list[pd.DataFrame]]) -> list[Plot]:
    """Return accuracy and consistency over the distance of the shift, for training on unmoved and on moved images.

    Args:
        shifts: shifts.csv of evaluate by variant, for each seed.
    """
    names = {"accuracy": "accuracy, %", "consistency": "unchanged predictions, %"}
    return [
        Plot(
            TRAININGS[training],
            "shift (larger of both axes), px",
            label,
            {name: _by_distance(shifts[f"{name}-{training}"], measure) for name in NETWORKS},
        )
        for measure, label in names.items()
        for training in TRAININGS
    ]


def draw_maps(path: Path, shifts: dict[str, list[pd.DataFrame]], title: str) -> None:
    """Draw consistency for every shift, edges filled by reflection: a heat map for each network and training."""
    lowest = min((float(found["consistency"].min()) for several in shifts.values() for found in several), default=0.0)
    with saved(path, (10.5, 5)) as figure:
        panels = figure.subplots(len(TRAININGS), len(NETWORKS), sharex=True, sharey=True)
        image = None
        for row, training in zip(panels, TRAININGS, strict=True):
            for axes, name in zip(row, NETWORKS, strict=True):
                axes.set_title(name, fontsize=9)
                axes.grid(visible=False)
                if not (several := shifts[f"{name}-{training}"]):
                    axes.text(0, 0, "diverged", ha="center", va="center")
                    continue
                shown = pd.concat(several).query("fill == 'reflect'").pivot_table("consistency", "dy", "dx")
                along = shown.columns.to_numpy()
                half = (along[1] - along[0]) / 2
                start, end = along[0] - half, along[-1] + half
                image = axes.imshow(
                    shown.to_numpy(), cmap="viridis", vmin=lowest, vmax=1, extent=(start, end, end, start)
                )
            row[0].set_ylabel(f"{TRAININGS[training]}\nmoved down by, px", fontsize=8)
        for axes in panels[-1]:
            axes.set_xlabel("moved to the right by, px", fontsize=8)
            axes.xaxis.set_major_locator(MultipleLocator(4))
            axes.yaxis.set_major_locator(MultipleLocator(4))
        if image is not None:
            figure.colorbar(image, ax=panels, label="unchanged predictions", shrink=0.7, format=PercentFormatter(1, 0))
        wrapped_headline(figure, title)


def read(collected: Collected) -> dict[str, list[pd.DataFrame]]:
    """Return shifts.csv of every experiment, by variant."""
    found: dict[str, list[pd.DataFrame]] = {variant: [] for variant in collected.variants}
    with stage.bar("reading shifts", len(collected.found)) as advance:
        for variant, tables in found.items():
            for name in trained.names(collected, variant):
                path = f"{collected.found[name].record.paths['evaluate']['robustness']}/shifts.csv"
                tables.append(pd.read_csv(io.BytesIO(collected.read(name, path))))
                advance(1)
    return found


def _by_distance(tables: list[pd.DataFrame], measure: str) -> Curve:
    """Return a measure in percent over the larger of the shifts along both axes, mean over fills and directions."""
    means = [100 * table.groupby(np.maximum(table["dx"].abs(), table["dy"].abs()))[measure].mean() for table in tables]
    distances = sorted({int(distance) for series in means for distance in series.index})
    return Curve(distances, [[float(series[distance]) for series in means] for distance in distances])


def _percent(value: float) -> str:
    return "an unknown share" if math.isnan(value) else f"{value:.0f} %"


ANALYSIS = Analysis(QUANTITIES, analyse)
