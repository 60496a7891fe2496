"""Activation functions: epochs to a training accuracy, gradients of the first layer, saturated and dead units."""

import io
import math
import statistics
from dataclasses import dataclass

import pandas as pd

from pipeline.experiments.tables import ABSENT, Table
from pipeline.studies import convergence
from pipeline.studies.analyses import activations_figures as figures
from pipeline.studies.analyses.activations_figures import NAMES, NORMS, Course, Key, Layers
from pipeline.studies.analysis import (
    Analysis,
    Findings,
    MoreThan,
    Picture,
    Quantity,
    counted,
    mean,
    or_chance,
    with_spread,
)
from pipeline.studies.collected import Collected
from pipeline.studies.convergence import Reach

TARGET = 0.75
"""Training accuracy to reach: Krizhevsky's 25 % error."""

QUANTITIES = {
    "tanh_epochs": Quantity("epochs that tanh takes to the target, as a multiple of ReLU's", ".1f"),
    "sigmoid_epochs": Quantity("epochs that sigmoid takes to the target, as a multiple of ReLU's", ".1f"),
    "sigmoid_gradient": Quantity("the first layer's gradient before training, ReLU's divided by sigmoid's", ",.1f"),
    "sigmoid_saturated": Quantity("percent of sigmoid's outputs saturated after training, mean over layers", ".1f"),
    "tanh_saturated": Quantity("percent of tanh's outputs saturated after training, mean over layers", ".1f"),
    "tanh_mean": Quantity("absolute value of tanh's mean output after training, maximum over layers", ".3f"),
}

LAST = -1


@dataclass(frozen=True)
class Chosen:
    """Trainings of an activation with or without batch norm, at the best learning rate.

    Attributes:
        reaches: time to the target of each training that did not diverge.
        histories: of these trainings.
        layers: mean over these trainings of layers.csv, by epoch and layer; None: all diverged.
    """

    variant: str
    lr: float
    reaches: tuple[Reach, ...]
    histories: tuple[pd.DataFrame, ...]
    layers: pd.DataFrame | None

    @property
    def epochs(self) -> float:
        """Mean number of epochs to the target, which may be a bound."""
        return convergence.mean_epochs(self.reaches)

    def by_layer(self, column: str, epoch: int) -> list[float]:
        """Return a column of layers.csv after an epoch (0: before training; LAST), for all layers that have it."""
        if self.layers is None:
            return []
        rows = self.layers[self.layers["epoch"] == (self.layers["epoch"].max() if epoch == LAST else epoch)]
        return list(rows[column].dropna())

    def by_epoch(self, column: str) -> list[float]:
        """Return the mean of a column over all layers that have it, before training and after each epoch."""
        if self.layers is None:
            return []
        return list(self.layers.groupby("epoch")[column].mean().dropna())

    def first_gradients(self) -> list[float]:
        """Return the norm of the first layer's gradient before training and after each epoch."""
        if self.layers is None:
            return []
        epochs = range(int(self.layers["epoch"].max()) + 1)
        return [self.by_layer("gradient_norm", epoch)[0] for epoch in epochs]


def analyse(collected: Collected) -> Findings:
    """Compare activations, each with and without batch norm at its best learning rate."""
    chosen = {key: _chosen(collected, variants) for key, variants in _variants(collected).items()}
    relu, tanh, sigmoid = (chosen[name, "none"] for name in ("relu", "tanh", "sigmoid"))
    quantities = {
        "tanh_epochs": convergence.ratio(tanh.epochs, relu.epochs),
        "sigmoid_epochs": convergence.ratio(sigmoid.epochs, relu.epochs),
        "sigmoid_gradient": _over(_first(relu), _first(sigmoid)),
        "sigmoid_saturated": 100 * mean(sigmoid.by_layer("saturated", LAST)),
        "tanh_saturated": 100 * mean(tanh.by_layer("saturated", LAST)),
        "tanh_mean": max(map(abs, tanh.by_layer("mean", LAST)), default=math.nan),
    }
    times = {name: _written(quantities[f"{name}_epochs"]) for name in ("tanh", "sigmoid")}
    speed = f"Epochs to {TARGET:.0%} training accuracy, as multiples of ReLU's without batch norm: "
    speed += f"tanh {times['tanh']}, sigmoid {times['sigmoid']}"
    inside = "Without batch norm the first layer's gradient before training is "
    inside += f"{_written(quantities['sigmoid_gradient'])} times as large with ReLU as with sigmoid"
    courses = {key: _course(key, one) for key, one in chosen.items()}
    by_layer = {key: _by_layer(key, one) for key, one in chosen.items()}
    return Findings(
        quantities,
        (_speeds(collected, chosen), _grid(collected), _layers(chosen)),
        (
            Picture(
                "",
                f"{speed}. Each at its best learning rate; thick: mean over seeds, thin: seeds.",
                lambda path: figures.draw_curves(path, courses, TARGET, speed),
            ),
            Picture(
                "-layers",
                f"{inside}. Shares and mean outputs: means over layers.",
                lambda path: figures.draw_layers(path, by_layer, inside),
            ),
        ),
    )


def _variants(collected: Collected) -> dict[Key, list[str]]:
    """Return the variants, one for each learning rate, of each activation and norm."""
    found: dict[Key, list[str]] = {}
    for variant in collected.variants:
        cnn = collected.settings(variant).model.cnn
        found.setdefault((cnn.activation, cnn.norm), []).append(variant)
    return found


def _chosen(collected: Collected, variants: list[str]) -> Chosen:
    """Choose the learning rate with the highest validation accuracy and read the files of its trainings."""
    best = max(variants, key=lambda variant: statistics.fmean(or_chance(collected, variant, "val/accuracy")))
    names = _finished(collected, best)
    layers = None
    if names:
        read = [pd.read_csv(io.BytesIO(collected.read(name, "model/layers.csv"))) for name in names]
        layers = pd.concat(read).groupby(["epoch", "layer"], sort=False).mean(numeric_only=True).reset_index()
    histories = tuple(collected.history(name) for name in names)
    reaches = tuple(_reaches(collected, best))
    return Chosen(best, collected.settings(best).optimizer.lr, reaches, histories, layers)


def _reaches(collected: Collected, variant: str) -> list[Reach]:
    trainings = zip(_finished(collected, variant), collected.values(variant, "train/seconds"), strict=True)
    return [convergence.reach(collected.history(name), TARGET, seconds) for name, seconds in trainings]


def _finished(collected: Collected, variant: str) -> list[str]:
    rows = collected.of(variant)
    return [str(name) for name in rows.index[rows["diverged"] == ""]]


def _course(key: Key, one: Chosen) -> Course:
    """Return the values that the figure of accuracies shows."""
    speed = f", lr {one.lr:g}: {one.epochs:.1f} epochs" if one.histories else ": diverged"
    reached = None if math.isnan(one.epochs) or isinstance(one.epochs, MoreThan) else one.epochs
    return Course(NAMES[key[0]] + speed, [convergence.points(history) for history in one.histories], reached)


def _by_layer(key: Key, one: Chosen) -> Layers:
    """Return the values that the figure of layers shows."""
    inactive = one.by_epoch("dead" if key[0] == "relu" else "saturated")
    return Layers(one.by_layer("gradient_norm", 0), one.first_gradients(), inactive, one.by_epoch("mean"))


def _first(one: Chosen) -> float:
    """Return the norm of the first layer's gradient before training."""
    return next(iter(one.by_layer("gradient_norm", 0)), math.nan)


def _over(above: float, below: float) -> float:
    return above / below if below else math.inf


def _written(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:,.1f}"


def _speeds(collected: Collected, chosen: dict[Key, Chosen]) -> Table:
    rows = []
    for (activation, norm), one in chosen.items():
        multiple = convergence.ratio(one.epochs, chosen["relu", norm].epochs)
        numbers = (f"{one.lr:g}", *(convergence.written(one.reaches, what) for what in ("epochs", "seconds")))
        scores = (
            with_spread(collected.values(one.variant, f"{split}/accuracy"), 100) for split in ("val", "train", "test")
        )
        names = NAMES[activation], NORMS[norm]
        rows.append((*names, *numbers, _written(multiple), *scores, counted(collected, one.variant)))
    head = (
        "activation",
        "network",
        "learning rate",
        "epochs to target",
        "seconds to target",
        "multiple of ReLU's epochs",
    )
    title = f"Each activation at its best learning rate; the target is {TARGET:.0%} training accuracy"
    return Table(title, (*head, "val, %", "train, %", "test, %", "n"), tuple(rows), text=2)


def _grid(collected: Collected) -> Table:
    """Return validation accuracy and epochs to the target for every learning rate."""
    rates = sorted({collected.settings(variant).optimizer.lr for variant in collected.variants})
    rows = []
    for (activation, norm), variants in _variants(collected).items():
        cells = dict.fromkeys(rates, ABSENT)
        for variant in variants:
            reaches = _reaches(collected, variant)
            accuracy = with_spread(collected.values(variant, "val/accuracy"), 100, 1)
            text = f"{accuracy}; {convergence.written(reaches, 'epochs')}" if reaches else "diverged"
            cells[collected.settings(variant).optimizer.lr] = text
        rows.append((NAMES[activation], NORMS[norm], *cells.values()))
    head = ("activation", "network", *(f"learning rate {rate:g}" for rate in rates))
    title = "All learning rates: val accuracy in %; epochs to the target, of trainings that did not diverge"
    return Table(title, head, tuple(rows), text=2)


def _layers(chosen: dict[Key, Chosen]) -> Table:
    rows = []
    for (activation, norm), one in chosen.items():
        gradients = [next(iter(one.by_layer("gradient_norm", epoch)), math.nan) for epoch in (0, LAST)]
        cells = [ABSENT if math.isnan(value) else f"{value:.2g}" for value in gradients]
        for column, factor, digits in (("saturated", 100, 1), ("dead", 100, 1), ("mean", 1, 3)):
            for epoch in (0, LAST):
                values = one.by_layer(column, epoch)
                cells.append(f"{factor * statistics.fmean(values):.{digits}f}" if values else ABSENT)
        rows.append((NAMES[activation], NORMS[norm], *cells))
    measures = ("first layer's gradient", "saturated outputs, %", "dead units, %", "mean output")
    head = (f"{measure}, {when}" for measure in measures for when in ("before", "after"))
    title = "Layers before and after training, means over activation layers"
    return Table(title, ("activation", "network", *head), tuple(rows), text=2)


ANALYSIS = Analysis(QUANTITIES, analyse)
