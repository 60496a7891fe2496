"""The figure of layer activity: mean outputs, dead units, saturated outputs."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.ticker import PercentFormatter

from pipeline.inspection import units
from pipeline.models.common import activity
from pipeline.plotting import BLUE, GREY, ORANGE, headline, saved


def layer_activity(path: Path, rows: Sequence[units.Row], images: int) -> None:
    """Draw the mean output of every activation layer, and the share of its units that are dead or outputs saturated.

    In a network with activations of both kinds it is dead units, and no bar for layers that cannot have any.

    Args:
        images: number of images.
    """
    names = [f"{row['layer']} ({row['units']})" for row in rows]
    measure = "dead" if any(row["dead"] != "" for row in rows) else "saturated"
    shares = [math.nan if row[measure] == "" else row[measure] for row in rows]
    kinds = ", ".join(dict.fromkeys(row["activation"] for row in rows))
    explanation = (
        f"Dead units: output positive for none of {images:,} images"
        if measure == "dead"
        else f"Saturated outputs: within {activity.MARGIN} of an end of the range"
    )
    with saved(path, (9, min(1.6 + 0.27 * len(rows), 10))) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        left.barh(names, [row["mean"] for row in rows], color=BLUE)
        left.axvline(0, color=GREY, lw=1)
        left.set(title=f"Mean output ({kinds})", xlabel="mean output", ylabel="layer (units)")
        text_size = min(8, 600 / len(rows))
        left.tick_params(axis="y", labelsize=text_size)
        bars = right.barh(names, shares, color=ORANGE)
        right.bar_label(
            bars, ["" if math.isnan(share) else f"{share:.1%}" for share in shares], padding=3, fontsize=text_size
        )
        right.set(title=explanation, xlabel=f"share of the {'units' if measure == 'dead' else 'outputs'}")
        left.set_ylim(len(rows) - 0.4, -0.6)  # the first layer on top
        right.set_xlim(0, max(0.1, 1.2 * np.nanmax(shares)))
        right.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        headline(figure, _verdict(rows, measure))


def _verdict(rows: Sequence[units.Row], measure: str) -> str:
    total = units.summary(rows)[f"inspect/{measure}_share"]
    if measure == "dead":
        count = sum(row["units"] for row in rows if row["dead"] != "")
        return f"{round(total * count):,} of {count:,} units are dead"
    return f"{total:.1%} of the outputs are saturated (mean over layers)"
