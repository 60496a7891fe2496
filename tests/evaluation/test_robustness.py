"""Robustness in the evaluate stage: tables, figures and means, the same every time, and what is left out."""

import csv
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config.schema import EvaluateParams
from pipeline.data import dataset
from pipeline.data.dataset import Split
from pipeline.evaluation import inference, robustness
from pipeline.evaluation.inference import Probs
from pipeline.models.common.saved import Saved
from tests.models.test_networks import network

pytestmark = pytest.mark.e2e

NAMES = ("corruptions", "shifts")
DEFAULTS = {"batch_size": 50, "tta": "none", "robustness": 40, "shift": 2, "shift_step": 1, "seed": 0}


@pytest.fixture
def saved(data) -> Saved:
    """A network with random weights."""
    torch.manual_seed(1)
    return Saved("cnn", None, network("cnn", widths=(8, 16), hidden=()).eval(), data.metadata, "0" * 64, 1, 1)


@pytest.fixture
def probs(saved, data, cpu) -> Probs:
    return inference.predict(saved.model, data["test"], batch_size=500, place=cpu)


@pytest.fixture
def measure(tmp_path, saved, data, probs, cpu):
    """A function that measures the network, and returns the folder of its tables and figures, and its metrics."""

    def measured(folder: str = "out", **changes) -> tuple[Path, dict[str, float]]:
        out, options = tmp_path / folder, EvaluateParams(**DEFAULTS | changes)
        found = robustness.measure(saved, data["test"], probs, options, cpu, out / "robustness", out / "figures")
        return out, found

    return measured


def files(out: Path) -> set[str]:
    """Return the files in a folder and those below it."""
    return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_it_leaves_tables_figures_and_their_means(measure, saved, data, cpu):
    """The means are those of the tables; the clean accuracy is that of the first four images of each class."""
    out, metrics = measure()
    assert files(out) == {f"robustness/{name}.csv" for name in NAMES} | {f"figures/{name}.png" for name in NAMES}
    corrupted, shifted = (rows(out / f"robustness/{name}.csv") for name in NAMES)
    assert (len(corrupted), len(shifted)) == (25, 2 * 25)
    mean = sum(float(row["accuracy"]) for row in corrupted) / 25
    assert metrics["test/corruption_accuracy"] == pytest.approx(mean)
    moved = [row for row in shifted if (row["dx"], row["dy"]) != ("0", "0")]
    for name in ("accuracy", "consistency"):
        mean = sum(float(row[name]) for row in moved) / 48
        assert metrics[f"test/shift_{name}"] == pytest.approx(mean)
    test = data["test"]
    first = [index for index, label in enumerate(test.labels) if list(test.labels[:index]).count(label) < 4]
    chosen = Split(test.images[first], test.labels[first])
    found = inference.predict(saved.model, chosen, batch_size=50, place=cpu)
    assert metrics["test/robustness_images"] == 40
    assert metrics["test/clean_accuracy"] == inference.accuracy(found, chosen.labels)
    unmoved = [row for row in shifted if row not in moved]
    assert [float(row["accuracy"]) for row in unmoved] == [metrics["test/clean_accuracy"]] * 2
    assert all(isinstance(value, int | float) for value in metrics.values())
    for name in NAMES:
        width, height = struct.unpack(">II", (out / f"figures/{name}.png").read_bytes()[16:24])
        assert 500 <= width <= 1400, name
        assert 150 <= height <= 1400, name


def test_the_same_inputs_give_the_same_bytes_and_another_seed_other_corruptions(measure):
    """Tables and figures alike; the seed sets the noise and the rotations, which shifts do not have."""
    first, again, other = (measure(name, seed=seed)[0] for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    seeded = {"robustness/corruptions.csv", "figures/corruptions.png"}
    assert files(first) == files(again) == files(other)
    for name in files(first):
        assert (first / name).read_bytes() == (again / name).read_bytes(), name
        assert ((first / name).read_bytes() != (other / name).read_bytes()) == (name in seeded), name


def test_without_images_nothing_is_measured_and_the_folder_is_there_all_the_same(measure):
    """DVC takes a missing output for a failed stage."""
    out, metrics = measure(robustness=0)
    assert metrics == {}
    assert (out / "robustness").is_dir()
    assert files(out) == set()


def test_a_grid_of_three_by_three_has_a_table_and_no_figure(measure):
    """Its map shows no more than the means."""
    out, metrics = measure(shift_step=2)
    assert files(out) == {"robustness/corruptions.csv", "robustness/shifts.csv", "figures/corruptions.png"}
    assert len(rows(out / "robustness/shifts.csv")) == 2 * 9
    assert {"test/shift_accuracy", "test/shift_consistency"} <= metrics.keys()


def test_without_shifts_corruptions_are_left(measure):
    """A table and a figure less, and no means of shifts."""
    out, metrics = measure(shift=0, shift_step=1)
    assert files(out) == {"robustness/corruptions.csv", "figures/corruptions.png"}
    assert not [name for name in metrics if "shift" in name]
    assert {"test/corruption_accuracy", "test/clean_accuracy", "test/robustness_images"} <= metrics.keys()


@pytest.mark.parametrize(("robust", "expected"), [(10, 10), (29, 20), (1_000_000, 1000)])
def test_each_class_has_as_many_images_as_any_other(measure, data, robust, expected):
    """Rounded down, and no more than there are."""
    out, metrics = measure(robustness=robust, shift=0, shift_step=1)
    assert metrics["test/robustness_images"] == expected
    chosen = dataset.first_indices(data["test"].labels, robust)
    assert np.bincount(data["test"].labels[chosen]).tolist() == [expected // 10] * 10
    assert len(rows(out / "robustness/corruptions.csv")) == 25
