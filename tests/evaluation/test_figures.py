"""Pictures: a PNG of sensible size, the same bytes every time, also for unusual data."""

import itertools
import struct

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text

from pipeline import files, plotting
from pipeline.config.schema import AugmentParams
from pipeline.data.loader import TrainLoader
from pipeline.data.preview import augmentations
from pipeline.evaluation import figures, metrics, probe_figures
from pipeline.training import probe

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def history(epochs: int) -> list[dict[str, str]]:
    """What history.csv holds after a usual training, as text."""
    epoch = np.arange(1, epochs + 1)
    rising = 1 - np.exp(-epoch / 3)
    columns = {
        "epoch": epoch,
        "lr": 0.2 * (1 - (epoch - 1) / epochs),
        "train/loss": 2.3 - 1.4 * rising,
        "train/accuracy": 0.1 + 0.75 * rising,
        "val/loss": 2.2 - 1.5 * rising,
        "val/accuracy": 0.1 + 0.8 * rising,
    }
    return [dict(zip(columns, map(str, row), strict=True)) for row in zip(*columns.values(), strict=True)]


def predictions(count: int = 1000, *, skill: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, 10) float32 that are right most of the time, and the labels."""
    rng = np.random.default_rng(0)
    labels = (np.arange(count) % 10).astype(np.uint8)
    logits = 1.5 * rng.normal(size=(count, 10))
    logits[np.arange(count), labels] += skill
    probs = np.exp(logits)
    return (probs / probs.sum(1, keepdims=True)).astype(np.float32), labels


def draw_training(path, _data, _cpu, epochs=10):
    figures.training_curves(path, history(epochs))


def draw_confusion(path, _data, _cpu):
    probs, labels = predictions()
    figures.confusion_matrix(path, metrics.confusion(probs, labels), CIFAR10)


def draw_reliability(path, _data, _cpu):
    probs, labels = predictions()
    figures.reliability_diagram(path, metrics.reliability(probs, labels))


def draw_mistakes(path, data, _cpu):
    probs, labels = predictions()
    figures.mistakes(path, data["test"].images, labels, probs, CIFAR10)


def draw_augmentations(path, data, cpu):
    params = AugmentParams(flip="alternating", translate=4, cutout=8, brightness=0.2, contrast=0.2)
    train = data["train"]
    first = [int(np.argmax(train.labels == label)) for label in range(10)]
    feed = TrainLoader(train, params, batch_size=500, seed=0, device=cpu, mean=data.metadata.mean)
    fed = [feed.preview(epoch, torch.tensor(first)).numpy() for epoch in range(8)]
    augmentations(path, train.images[first], np.stack(fed, axis=1), CIFAR10, seed=0)


def layers(epochs: int, depth: int = 6, activation: str = "ReLU") -> pd.DataFrame:
    """What layers.csv holds after a training with diagnostics whose gradient vanishes towards the input."""
    rows = []
    for epoch, layer in itertools.product(range(epochs + 1), range(depth)):
        norm = 10.0 ** (layer - depth) / (1 + epoch)
        rows.append({"epoch": epoch, "layer": f"blocks.{layer}.0", "kind": "Conv2d", "gradient_norm": norm})
        share = min(1.0, 0.02 * layer * epoch)
        seen = {"mean": 0.4 - share, "dead" if activation == "ReLU" else "saturated": share}
        rows.append({"epoch": epoch, "layer": f"blocks.{layer}.1", "kind": activation, **seen})
        rows[-2]["relative_gradient"] = norm / 7
    return pd.DataFrame(rows, columns=probe.COLUMNS)


def draw_gradients(path, _data, _cpu, **changes):
    probe_figures.gradient_flow(path, layers(8, **changes))


def draw_units(path, _data, _cpu, **changes):
    probe_figures.unit_health(path, layers(8, **changes))


FIGURES = {
    "gradients": draw_gradients,
    "units": draw_units,
    "training": draw_training,
    "confusion": draw_confusion,
    "reliability": draw_reliability,
    "mistakes": draw_mistakes,
    "augmentations": draw_augmentations,
}


def size(path) -> tuple[int, int]:
    """Width and height in pixels from a PNG's header."""
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert content[12:16] == b"IHDR"
    return struct.unpack(">II", content[16:24])


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_a_png_for_the_screen_and_the_same_bytes_when_drawn_again(name, tmp_path, data, cpu):
    """Readable without zooming; no date, version or user's setting gets in, so DVC sees no change where none is."""
    path = tmp_path / "figures" / f"{name}.png"
    FIGURES[name](path, data, cpu)
    width, height = size(path)
    assert 500 <= width <= 1400
    assert 300 <= height <= 1400
    assert 5_000 < path.stat().st_size < 1_500_000
    assert list(path.parent.iterdir()) == [path]
    with mpl.rc_context({"font.size": 30, "lines.linewidth": 9, "savefig.dpi": 40}):  # a user's matplotlibrc
        FIGURES[name](tmp_path / "again.png", data, cpu)
    assert (tmp_path / "again.png").read_bytes() == path.read_bytes()


def texts(draw, monkeypatch) -> list[str]:
    """Every text of a figure and its axes that is not empty."""
    found: list[str] = []
    savefig = Figure.savefig

    def note(self, *arguments, **options):
        savefig(self, *arguments, **options)
        found.extend(text.get_text() for text in self.findobj(Text))

    monkeypatch.setattr(Figure, "savefig", note)
    draw()
    return [text for text in found if text]


def test_one_epoch_is_enough_for_curves(tmp_path, monkeypatch):
    """A point each; the axis has one epoch and no fractions of it."""
    found = texts(lambda: draw_training(tmp_path / "a.png", None, None, epochs=1), monkeypatch)
    assert any(text.startswith("Training over 1 epoch: final val accuracy ") for text in found)
    assert "1" in found
    assert not [text for text in found if text.startswith(("0.96", "1.04"))]


def test_images_are_tiled_row_by_row_with_white_between_them_and_where_there_is_none():
    """Three images of 2 x 3 pixels in two rows of two, one pixel apart across and two down."""
    images = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((2, 3, 3), np.uint8)
    white = 255
    upper = [0, 0, 0, white, 1, 1, 1]
    lower = [2, 2, 2, white, white, white, white]
    expected = np.array([upper, upper, [white] * 7, [white] * 7, lower, lower])
    assert np.array_equal(plotting.tiled(images, (2, 2), gap=(1, 2)), np.stack([expected] * 3, axis=-1))


@pytest.mark.parametrize(
    ("wrong", "title", "rows"),
    [
        (0, "None of 100 test images are misclassified", 1),
        (9, "9 of 100 test images are misclassified: predicted class with its probability, label", 2),
        (33, "33 of 100 test images are misclassified; the 32 of the highest confidence: predicted class", 4),
    ],
)
def test_as_many_mistakes_as_there_are_up_to_32(tmp_path, monkeypatch, data, wrong, title, rows):
    """The surest first; no empty rows for a good network."""
    labels = (np.arange(100) % 10).astype(np.uint8)
    said = (labels + (np.arange(100) < wrong)) % 10
    probs = np.full((100, 10), 0.01, np.float32)
    probs[np.arange(100), said] = 0.5 + np.arange(100) / 250
    path = tmp_path / "mistakes.png"
    found = texts(lambda: figures.mistakes(path, data["test"].images, labels, probs, CIFAR10), monkeypatch)
    captions = [text for text in found if "\nlabel " in text]
    assert len(captions) == min(wrong, 32)
    assert any(title in text for text in found)
    assert size(path)[1] == pytest.approx((1.26 * rows + 0.3) * 120, abs=1)
    if wrong:
        surest = wrong - 1
        expected = f"{CIFAR10[said[surest]]} {0.5 + surest / 250:.0%}\nlabel {CIFAR10[labels[surest]]}"
        assert captions[0] == expected


def test_a_class_without_images_leaves_its_row_empty(tmp_path, monkeypatch):
    """No division by zero; the counts of the others are there."""
    matrix = np.diag([5, 0, 7])
    found = texts(lambda: figures.confusion_matrix(tmp_path / "a.png", matrix, ("ant", "bee", "cat")), monkeypatch)
    assert {"5", "7", "ant", "bee", "cat"} <= set(found)
    assert "0" not in found
    assert any("accuracy 100.0%" in text for text in found)


def test_empty_bins_have_no_bar(tmp_path):
    """Confidences of ten classes never fall below 0.1."""
    probs = np.tile(np.eye(10, dtype=np.float32)[0], (5, 1))
    figures.reliability_diagram(tmp_path / "a.png", metrics.reliability(probs, np.zeros(5, np.uint8)))
    assert size(tmp_path / "a.png")[0] > 500


def test_a_gradient_that_vanishes_is_said_in_the_title(tmp_path, monkeypatch):
    """The first of six layers has 10^-5 of the last one's; of nine states seven are drawn, both ends among them."""
    found = texts(lambda: draw_gradients(tmp_path / "a.png", None, None), monkeypatch)
    assert "Gradient of blocks.0.0 over that of blocks.5.0: 1e-05 before training, 1e-05 after 8 epochs" in found
    drawn = [text for text in found if text == "before training" or text.startswith("after epoch ")]
    assert (len(drawn), drawn[0], drawn[-1]) == (7, "before training", "after epoch 8")


@pytest.mark.parametrize(
    ("activation", "title"),
    [
        ("ReLU", "After 8 epochs the share of dead units is largest in blocks.5.1: 80.0%"),
        ("Tanh", "After 8 epochs the share of saturated outputs is largest in blocks.5.1: 80.0%"),
    ],
)
def test_where_units_fail_most_is_said_in_the_title(tmp_path, monkeypatch, activation, title):
    """Dead ones of rectifiers, saturated ones of activations with a range."""
    found = texts(lambda: draw_units(tmp_path / "a.png", None, None, activation=activation), monkeypatch)
    assert title in found


def test_a_network_with_activations_of_both_kinds_has_a_title_of_those_that_can_die(tmp_path, monkeypatch):
    """Layers with a range have no share of dead units: they are left out, and the title has no nan."""
    rectifying, saturating = layers(8, depth=3), layers(8, depth=5, activation="Tanh")
    both = pd.concat([rectifying, saturating[saturating["layer"] > "blocks.3"]]).sort_values("epoch", kind="stable")
    found = texts(lambda: probe_figures.unit_health(tmp_path / "a.png", both), monkeypatch)
    assert "After 8 epochs the share of dead units is largest in blocks.2.1: 32.0%" in found
    assert {"blocks.2.1", "blocks.4.1"} <= set(found), "both kinds have a mean output"
    assert not [text for text in found if "nan" in text]


def test_layers_without_numbers_that_can_be_drawn_leave_gaps(tmp_path):
    """A gradient of 0, an overflow, weights of 0, a hundred layers: no warning, which tests take for an error."""
    odd = layers(1, depth=100)
    odd.loc[odd["layer"] == "blocks.3.0", ["gradient_norm", "relative_gradient"]] = [0.0, np.nan]
    odd.loc[odd["layer"] == "blocks.99.0", "gradient_norm"] = 0.0
    odd.loc[odd["layer"] == "blocks.4.0", "gradient_norm"] = np.inf
    odd.loc[odd["layer"] == "blocks.4.1", "mean"] = np.inf
    probe_figures.draw(tmp_path, odd)
    assert {path.name for path in tmp_path.iterdir()} == {"gradients.png", "units.png"}


def test_nothing_is_drawn_without_rows(tmp_path):
    """A training without diagnostics leaves a header only; a network may have no activation layers."""
    files.write_csv(tmp_path / "layers.csv", [], probe.COLUMNS)
    probe_figures.draw(tmp_path / "off", pd.read_csv(tmp_path / "layers.csv"))
    assert not (tmp_path / "off").exists()
    linear = layers(2)[lambda table: table["kind"] == "Conv2d"]
    probe_figures.draw(tmp_path / "linear", linear)
    assert [path.name for path in (tmp_path / "linear").iterdir()] == ["gradients.png"]


def test_drawing_leaves_matplotlibs_settings_alone(tmp_path):
    """A notebook that calls the library keeps its style."""
    before = dict(mpl.rcParams)
    draw_training(tmp_path / "a.png", None, None)
    assert dict(mpl.rcParams) == before
