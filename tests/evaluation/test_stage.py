"""The evaluate stage in this process: which file has which metric, and what it leaves when robustness is off."""

import csv
import json
from types import SimpleNamespace

import pytest
import torch

from pipeline import files, headline
from pipeline.config.loading import load
from pipeline.data import dataset
from pipeline.models.common.build import build
from pipeline.models.common.saved import save_model
from pipeline.training import probe
from stages import evaluate
from tests.conftest import SMALL, write_params

pytestmark = pytest.mark.e2e

FIGURES = {"training", "confusion", "reliability", "mistakes"}


@pytest.fixture
def run(tmp_path, processed):
    """A function that saves a network with random weights and evaluates it; it returns the paths of its outputs."""

    def evaluated(**changes) -> SimpleNamespace:
        keys = {key.replace("__", "."): value for key, value in changes.items()}
        params = write_params(tmp_path / "params.yaml", SMALL | {"evaluate.shift": 2, "evaluate.shift_step": 1} | keys)
        settings, metadata = load(params), dataset.load_metadata(processed)
        torch.manual_seed(1)
        options = {"mean": metadata.mean, "std": metadata.std, "classes": 10}
        save_model(tmp_path / "model", build("cnn", settings.model.cnn, **options), settings.model, metadata)
        row = dict.fromkeys(("lr", "train/loss", "train/accuracy", "val/loss", "val/accuracy"), 0.5)
        files.write_csv(tmp_path / "history.csv", [{"epoch": 1, **row}])
        files.write_csv(tmp_path / "layers.csv", [], probe.COLUMNS)
        inputs = {"data": processed, **{name: tmp_path / name for name in ("model", "history.csv", "layers.csv")}}
        outputs = {
            name: tmp_path / "out" / name
            for name in (
                "predictions",
                "classes",
                "robustness",
                "figures_dir",
                "card",
                "metrics",
                "details",
                "runtime",
            )
        }
        evaluate.main(params=params, **{key.removesuffix(".csv"): path for key, path in inputs.items()}, **outputs)
        return SimpleNamespace(**outputs)

    return evaluated


def read(path) -> dict:
    found = json.loads(path.read_text())
    return found[0] if isinstance(found, list) else found


def test_metrics_details_and_timings_are_in_files_of_their_own(run, capsys):
    """DVC's tables read the headline only; details are reproducible, timings are not."""
    out = run()
    metrics, details, runtime = read(out.metrics), read(out.details), read(out.runtime)
    assert list(metrics) == ["test/accuracy"]
    assert metrics.keys() <= set(headline.SHOWN)
    assert not details.keys() & set(headline.SHOWN)
    assert details["test/data"] == "shapes10"
    assert details["test/images"] == 1000
    assert details["test/robustness_images"] == 20
    expected = {"loss", "accuracy_low", "accuracy_high", "accuracy_top2", "f1_macro", "calibration_error"}
    assert {f"test/{name}" for name in expected | {"corruption_accuracy", "shift_consistency"}} <= details.keys()
    assert "test/accuracy_tta" not in details
    assert {key.partition("/")[0] for key in runtime} == {"evaluate"}
    assert {"evaluate/started", "evaluate/ended", "evaluate/stage_seconds", "evaluate/device"} <= runtime.keys()
    printed = capsys.readouterr().out
    assert f"test accuracy {metrics['test/accuracy']:.2%} (95 % interval " in printed
    assert f"corruption accuracy {details['test/corruption_accuracy']:.2%} (20 images)" in printed
    assert f"shift consistency {details['test/shift_consistency']:.2%} (20 images)" in printed


def test_it_leaves_tables_figures_and_a_card(run):
    """A row for each image and each class; the rows of the classes agree with the metrics."""
    out = run(evaluate__tta="flip")
    details = read(out.details)
    predictions, classes = (
        list(csv.DictReader(path.read_text().splitlines())) for path in (out.predictions, out.classes)
    )
    assert len(predictions) == 1000
    right = sum(row["label"] == row["predicted"] for row in predictions) / 1000
    assert read(out.metrics)["test/accuracy"] == right
    assert [row["class"] for row in classes] == list(predictions[0])[3:]
    assert [row["images"] for row in classes] == ["100"] * 10
    assert sum(float(row["recall"]) for row in classes) / 10 == pytest.approx(right)
    assert sum(float(row["f1"]) for row in classes) / 10 == pytest.approx(details["test/f1_macro"])
    assert 0 <= details["test/accuracy_tta"] <= 1
    assert {path.stem for path in out.figures_dir.iterdir()} == FIGURES | {"corruptions", "shifts"}
    assert {path.name for path in out.robustness.iterdir()} == {"corruptions.csv", "shifts.csv"}
    card = out.card.read_text()
    assert card.startswith("# cnn for shapes10")
    assert f"**{right:.2%}**" in card
    assert f"{details['test/corruption_accuracy']:.2%}, of 20 images" in card


def test_without_robustness_all_else_is_the_same(run, capsys):
    """Its folder is there, as DVC expects it; its metrics, figures and row of the card are not."""
    first = run()
    full, card = read(first.details), first.card.read_text()
    for path in (*first.robustness.iterdir(), *first.figures_dir.iterdir()):
        path.unlink()
    capsys.readouterr()
    out = run(evaluate__robustness=0)
    details = read(out.details)
    assert out.robustness.is_dir()
    assert not list(out.robustness.iterdir())
    assert {path.stem for path in out.figures_dir.iterdir()} == FIGURES
    assert details == {key: full[key] for key in details}
    measured = {"test/robustness_images", "test/clean_accuracy"}
    assert {
        key for key in full if key.startswith(("test/corruption", "test/shift"))
    } | measured == full.keys() - details
    assert set(out.card.read_text().splitlines()) < set(card.splitlines())
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["evaluating", "test"]
