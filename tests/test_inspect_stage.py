"""The inspect stage in this process: what it leaves, that it leaves the same again, and what it leaves out."""

import csv
import json
import struct

import pytest
import torch

from pipeline import checkpoint, dataset, evaluation, inference, models
from pipeline.errors import CheckpointError
from pipeline.params import load
from pipeline.schema import architecture
from stages import inspect
from tests.conftest import SMALL, write_params

QUICK = {"inspect.images": 40, "inspect.shift": 2, "inspect.shift_step": 2}


@pytest.fixture
def run(tmp_path, processed):
    """A function that saves a network with random weights, inspects it and returns its folder and metrics."""

    def inspected(folder: str = "out", **changes) -> tuple:
        keys = {key.replace("__", "."): value for key, value in changes.items()}
        params = write_params(tmp_path / "params.yaml", SMALL | QUICK | keys)
        settings, metadata = load(params), dataset.load_metadata(processed)
        torch.manual_seed(1)
        options = {"mean": metadata.mean, "std": metadata.std, "classes": 10}
        model = models.build(settings.model.arch, architecture(settings.model), **options)
        checkpoint.save_model(tmp_path / "model", model, settings.model, metadata)
        metrics, out = tmp_path / f"{folder}.json", tmp_path / folder
        runtime = tmp_path / "runtime.json"
        inspect.main(params, processed, tmp_path / "model", out, metrics, runtime)
        assert json.loads(runtime.read_text())["inspect/device"] == "cpu"
        return out, json.loads(metrics.read_text())

    return inspected


def rows(path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_it_leaves_tables_figures_and_their_means(run, tmp_path, processed, cpu):
    """The means are those of the tables; the clean accuracy is that of the first four images of each class."""
    out, metrics = run()
    names = {f"{name}.{kind}" for name in ("corruptions", "shifts", "layers") for kind in ("csv", "png")}
    assert {path.name for path in out.iterdir()} == names
    corrupted, shifted, layers = (rows(out / f"{name}.csv") for name in ("corruptions", "shifts", "layers"))
    assert (len(corrupted), len(shifted), len(layers)) == (25, 2 * 9, 2)
    mean = sum(float(row["accuracy"]) for row in corrupted) / 25
    assert metrics["inspect/corruption_accuracy"] == pytest.approx(mean)
    moved = [row for row in shifted if (row["dx"], row["dy"]) != ("0", "0")]
    mean = sum(float(row["consistency"]) for row in moved) / 16
    assert metrics["inspect/shift_consistency"] == pytest.approx(mean)
    assert [(row["layer"], row["units"]) for row in layers] == [("blocks.0.2", "8"), ("blocks.1.2", "16")]
    test = dataset.load(processed, "test")["test"]
    first = [index for index, label in enumerate(test.labels) if list(test.labels[:index]).count(label) < 4]
    chosen = dataset.Split(test.images[first], test.labels[first])
    probs = inference.predict(checkpoint.load_model(tmp_path / "model").model, chosen, batch_size=50, place=cpu)
    assert metrics["inspect/images"] == 40
    assert metrics["inspect/clean_accuracy"] == evaluation.accuracy(probs, chosen.labels)
    assert 0 <= metrics["inspect/dead_share"] <= 1
    assert all(isinstance(value, int | float) for value in metrics.values())
    for name in ("corruptions", "shifts", "layers"):
        content = (out / f"{name}.png").read_bytes()
        width, height = struct.unpack(">II", content[16:24])
        assert 500 <= width <= 1400, name
        assert 150 <= height <= 1400, name


def test_the_same_inputs_give_the_same_bytes_and_another_seed_other_corruptions(run):
    """Tables and figures alike; shifts and layers have nothing to do with the seed."""
    first, again, other = (run(name, inspect__seed=seed)[0] for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    for path in first.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name
        assert (path.read_bytes() != (other / path.name).read_bytes()) == (path.stem == "corruptions"), path.name


def test_what_is_switched_off_is_neither_measured_nor_drawn(run, capsys):
    """Then only layers are left, of a network that saturates."""
    changes = {"inspect__corruptions": False, "inspect__shift": 0, "model__cnn__activation": "tanh"}
    out, metrics = run(**changes)
    assert {path.name for path in out.iterdir()} == {"layers.csv", "layers.png"}
    assert metrics.keys() == {"inspect/images", "inspect/clean_accuracy", "inspect/saturated_share"}
    assert capsys.readouterr().out.splitlines()[0] == "inspecting cnn on 40 test images of shapes10 (cpu)"


def test_a_network_without_activation_layers_has_no_table_of_them(run):
    """A linear model can still be shown corrupted and shifted images."""
    out, metrics = run(model__arch="mlp", model__mlp__hidden=[])
    assert {path.stem for path in out.iterdir()} == {"corruptions", "shifts"}
    assert not any("dead" in key or "saturated" in key for key in metrics)


def test_a_missing_model_is_one_line(run, tmp_path, processed):
    """With what to do about it, before anything is measured."""
    run()
    absent = tmp_path / "absent"
    with pytest.raises(CheckpointError, match=r"absent/model.json: no such file; run dvc repro train"):
        inspect.main(tmp_path / "params.yaml", processed, absent, tmp_path / "o", tmp_path / "m", tmp_path / "r")
    assert not (tmp_path / "o").exists()
