"""Figures of what `train.diagnostics` records: gradients by layer, saturated outputs and dead units by epoch."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from pipeline.plotting import headline, saved

if TYPE_CHECKING:
    import pandas as pd

MOST_LINES = 7
MOST_NAMES = 24
MARKERS = "osD^v<>"


def draw(folder: Path, layers: "pd.DataFrame") -> None:
    """Draw `gradients.png` and `units.png` from what layers.csv holds: neither if there are no rows for it."""
    if layers["gradient_norm"].notna().any():
        gradient_flow(folder / "gradients.png", layers)
    if layers["mean"].notna().any():
        unit_health(folder / "units.png", layers)


def gradient_flow(path: Path, layers: "pd.DataFrame") -> None:
    """Draw the gradient of each layer with weights, in itself and relative to the weights, for some of the epochs."""
    weighted = layers[layers["gradient_norm"].notna()]
    names, epochs = list(weighted["layer"].unique()), list(weighted["epoch"].unique())
    chosen = [epochs[index] for index in _spread(len(epochs))]
    with saved(path, (10, 4.2)) as figure:
        norms, ratios = figure.subplots(1, 2)
        for index, epoch in enumerate(chosen):
            rows, style = weighted[weighted["epoch"] == epoch], _style(index, len(chosen))
            label = f"after epoch {epoch}" if epoch else "before training"
            norms.plot(_drawable(rows["gradient_norm"]), label=label, **style)
            ratios.plot(_drawable(rows["relative_gradient"]), **style)
        for axes in (norms, ratios):
            axes.set_yscale("log")
            _name_layers(axes, names)
        norms.set(title="Norm of the gradient of each layer's weights", ylabel="norm, of a loss in nats")
        ratios.set(title="The same over the norm of the weights", ylabel="ratio of norms")
        figure.legend(loc="outside right center", fontsize=8)
        headline(figure, _flow_title(weighted, names))


def unit_health(path: Path, layers: "pd.DataFrame") -> None:
    """Draw the share of saturated outputs or dead units, and the mean output, of activation layers over the epochs.

    In a network with activations of both kinds it is dead units, and no line for layers that cannot have any.
    """
    active = layers[layers["mean"].notna()]
    names = list(active["layer"].unique())
    chosen = [names[index] for index in _spread(len(names))]
    column, what = ("dead", "dead units") if active["dead"].notna().any() else ("saturated", "saturated outputs")
    with saved(path, (10, 3.8)) as figure:
        shares, means = figure.subplots(1, 2)
        for index, name in enumerate(chosen):
            rows, style = active[active["layer"] == name], _style(index, len(chosen))
            shares.plot(rows["epoch"], rows[column], label=name, clip_on=False, **style)
            means.plot(rows["epoch"], rows["mean"].where(np.isfinite(rows["mean"])), **style)
        for axes in (shares, means):
            axes.set(xlabel="epochs trained")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        shares.set(title=f"Share of {what}", ylabel=f"share of a layer's {what.split()[1]}")
        shares.set_ylim(0, max(0.05, 1.05 * float(active[column].max())))
        shares.yaxis.set_major_formatter(PercentFormatter(1.0))
        means.set(title="Mean output", ylabel="mean over a layer's units and the images")
        some = "" if chosen == names else f" ({len(chosen)} of {len(names)})"
        title = f"layers, from input to output{some}"
        figure.legend(loc="outside right center", fontsize=8, title=title, title_fontsize=8)
        headline(figure, _health_title(active, column, what))


def _flow_title(weighted: "pd.DataFrame", names: list[str]) -> str:
    """Return the ratio of the first layer's gradient to the last's, before and after training, in words."""
    norms = weighted.pivot_table("gradient_norm", "epoch", "layer")
    first, last = norms[names[0]].to_numpy(float), norms[names[-1]].to_numpy(float)
    before, after = (f"{first[at] / last[at]:.2g}" if last[at] else "undefined" for at in (0, -1))
    trained = _epochs(int(norms.index[-1]))
    return f"Gradient of {names[0]} over that of {names[-1]}: {before} before training, {after} after {trained}"


def _health_title(active: "pd.DataFrame", column: str, what: str) -> str:
    """Return the layer with the largest share of saturated outputs or dead units after the last epoch, in words."""
    last = int(active["epoch"].max())
    end = active[(active["epoch"] == last) & active[column].notna()]
    shares = end[column].to_numpy(float)
    worst = int(shares.argmax())
    if not shares[worst]:
        return f"After {_epochs(last)} no layer has {what}"
    return f"After {_epochs(last)} the share of {what} is largest in {end['layer'].iloc[worst]}: {shares[worst]:.1%}"


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"


def _spread(count: int) -> list[int]:
    """Return which of `count` things to draw: all, or the first, the last and some between at equal distances."""
    return [round(index) for index in np.linspace(0, count - 1, min(count, MOST_LINES))]


def _style(index: int, count: int) -> dict[str, Any]:
    """Return the look of a line in a series from dark to light, told apart by its marker in print, too."""
    colour = mpl.colormaps["viridis"](0.88 * index / max(1, count - 1))
    return {"color": colour, "marker": MARKERS[index], "ms": 4, "lw": 1.3}


def _name_layers(axes: Axes, names: list[str]) -> None:
    if len(names) <= MOST_NAMES:
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
        axes.set_xlabel("layer, from input to output")
    else:
        axes.set_xlabel("number of the layer, from input to output")


def _drawable(values: "pd.Series[Any]") -> npt.NDArray[np.float64]:
    """Return what a logarithmic axis can show; the rest leaves gaps."""
    numbers = values.to_numpy(float)
    return np.where(np.isfinite(numbers) & (numbers > 0), numbers, np.nan)
