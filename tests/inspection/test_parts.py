"""The inspect stage in this process: what it leaves, that it leaves the same again, and what it leaves when off."""

import csv
import json
import struct

import numpy as np
import pytest
import torch

from pipeline.config.loading import load
from pipeline.data import dataset
from pipeline.errors import CheckpointError
from pipeline.evaluation import inference
from pipeline.models.common.build import build
from pipeline.models.common.saved import load_model, save_model
from stages import inspect
from tests.conftest import SMALL, write_params

pytestmark = pytest.mark.e2e

QUICK = {"inspect.enabled": True, "inspect.images": 40}
LEARNED = ("first_layer", "patches", "embedding", "confusions", "label_errors")


@pytest.fixture
def run(tmp_path, processed):
    """A function that saves a network with random weights, inspects it and returns its folder and metrics."""

    def inspected(folder: str = "out", **changes) -> tuple:
        keys = {key.replace("__", "."): value for key, value in changes.items()}
        params = write_params(tmp_path / "params.yaml", SMALL | QUICK | keys)
        settings, metadata = load(params), dataset.load_metadata(processed)
        torch.manual_seed(1)
        options = {"mean": metadata.mean, "std": metadata.std, "classes": 10}
        model = build(settings.model.arch, settings.model.section, **options)
        save_model(tmp_path / "model", model, settings.model, metadata)
        details, out = tmp_path / f"{folder}.json", tmp_path / folder
        inspect.main(params, processed, tmp_path / "model", out, details, tmp_path / "runtime.json")
        return out, json.loads(details.read_text())[0]

    return inspected


def files(out) -> set[str]:
    """Return the files in a folder and those below it."""
    return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}


def rows(path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_it_leaves_tables_figures_and_their_means(run, tmp_path, processed, cpu):
    """The means are those of the table; the clean accuracy is that of the first four images of each class."""
    out, metrics = run()
    assert files(out) == {"layers.csv"} | {f"figures/{name}.png" for name in ("layers", *LEARNED)}
    layers = rows(out / "layers.csv")
    assert [(row["layer"], row["units"]) for row in layers] == [("blocks.0.2", "8"), ("blocks.1.2", "16")]
    dead = sum(float(row["dead"]) * int(row["units"]) for row in layers)
    assert metrics["inspect/dead_share"] == pytest.approx(dead / 24)
    test = dataset.load(processed, "test")["test"]
    first = [index for index, label in enumerate(test.labels) if list(test.labels[:index]).count(label) < 4]
    chosen = dataset.Split(test.images[first], test.labels[first])
    probs = inference.predict(load_model(tmp_path / "model").model, chosen, batch_size=50, place=cpu)
    assert metrics["inspect/images"] == 40
    assert metrics["inspect/clean_accuracy"] == inference.accuracy(probs, chosen.labels)
    assert all(isinstance(value, int | float) for value in metrics.values())
    runtime = json.loads((tmp_path / "runtime.json").read_text())[0]
    assert runtime["inspect/device"] == "cpu"
    assert {"inspect/started", "inspect/ended", "inspect/stage_seconds", "inspect/peak_memory_mib"} <= runtime.keys()
    for name in ("layers", *LEARNED):
        width, height = struct.unpack(">II", (out / f"figures/{name}.png").read_bytes()[16:24])
        assert 500 <= width <= 1400, name
        assert 150 <= height <= 1400, name


def test_it_draws_what_the_network_has_learned(run, processed, capsys):
    """Five pictures, a line for each finding, and numbers between their bounds, chance beside them."""
    out, metrics = run(inspect__images=200)
    assert files(out) == {"layers.csv"} | {f"figures/{name}.png" for name in ("layers", *LEARNED)}
    measures = {
        *(f"first_layer/{name}{end}" for name in ("selectivity", "edge_cosine") for end in ("", "_random", "_p")),
        *(f"patch_agreement/{name}" for name in ("first", "last", "random")),
        *("neighbour_accuracy", "neighbour_accuracy/pixels", "suspicious_labels"),
    }
    others = {"inspect/images", "inspect/clean_accuracy", "inspect/dead_share"}
    assert metrics.keys() == {f"inspect/{name}" for name in measures} | others
    assert all(0 <= metrics[f"inspect/{name}"] <= 1 for name in measures)
    assert metrics["inspect/first_layer/selectivity_p"] > 0.01, "the network has random weights"
    test = dataset.first_of_each_class(dataset.load(processed, "test")["test"], 200)
    pixels = test.images.reshape(200, -1).astype(float)
    pixels -= pixels.mean(0)
    cosines = pixels @ pixels.T / np.outer(*2 * [np.linalg.norm(pixels, axis=1)])
    np.fill_diagonal(cosines, -2)
    near = test.labels[np.argsort(-cosines, axis=1)[:, :10]]
    votes = np.array([np.bincount(labels, minlength=10).argmax() for labels in near])
    assert metrics["inspect/neighbour_accuracy/pixels"] > 0
    assert metrics["inspect/neighbour_accuracy/pixels"] == pytest.approx((votes == test.labels).mean())
    said = capsys.readouterr().out
    assert "orientation selectivity of the first layer 0." in said
    assert f"{round(200 * metrics['inspect/suspicious_labels'])} of 200 test labels are suspicious (accuracy " in said


def test_the_same_inputs_give_the_same_bytes_and_another_seed_other_random_filters(run):
    """Tables and figures alike; the seed sets the random filters with which the first layer is compared."""
    first, again, other = (run(name, inspect__seed=seed)[0] for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    seeded = {"figures/first_layer.png"}
    assert files(first) == files(again) == files(other)
    for name in files(first):
        assert (first / name).read_bytes() == (again / name).read_bytes(), name
        assert ((first / name).read_bytes() != (other / name).read_bytes()) == (name in seeded), name


def test_the_fewest_images_are_enough(run):
    """One of each class: nine neighbours, nine images for each channel."""
    out, metrics = run(inspect__images=10)
    assert metrics["inspect/images"] == 10
    assert {f"figures/{name}.png" for name in LEARNED} <= files(out)


def test_a_network_that_saturates_has_a_share_of_saturated_outputs(run, capsys):
    """Instead of dead units, which it cannot have."""
    out, metrics = run(model__cnn__activation="tanh")
    assert [(row["dead"], row["saturated"] != "") for row in rows(out / "layers.csv")] == [("", True)] * 2
    assert 0 <= metrics["inspect/saturated_share"] <= 1
    assert "inspect/dead_share" not in metrics
    assert capsys.readouterr().out.splitlines()[0] == "inspecting cnn on 40 test images of shapes10 (cpu)"


def test_a_network_without_activation_layers_has_no_table_of_them(run, capsys):
    """What needs neither activations nor filters is drawn; the rest is left out with a line each."""
    out, metrics = run(model__arch="mlp", model__mlp__hidden=[])
    left_out = [line.split(":")[1].strip() for line in capsys.readouterr().out.splitlines() if line[:8] == "left out"]
    assert left_out == ["first_layer", "patches"]
    assert files(out) == {f"figures/{name}.png" for name in LEARNED if name not in left_out}
    assert not any("dead" in key or "saturated" in key for key in metrics)


def test_disabled_it_leaves_an_empty_folder_and_no_metrics(run, tmp_path, capsys):
    """DVC takes a missing output for a failed stage; neither the data nor the model is read."""
    out, metrics = run(inspect__enabled=False)
    assert metrics == {}
    assert files(out) == {"figures/off.png"}, "DVC cannot draw an empty folder"
    assert set(json.loads((tmp_path / "runtime.json").read_text())[0]) == {
        f"inspect/{name}" for name in ("started", "ended", "stage_seconds")
    }
    expected = (
        "inspect.enabled is false; to add learned features: dvc exp run --temp -n NAME -S inspect.enabled=true\n"
    )
    assert capsys.readouterr().out == expected
    absent = tmp_path / "absent"
    inspect.main(tmp_path / "params.yaml", absent, absent, tmp_path / "o", tmp_path / "d", tmp_path / "r")
    assert json.loads((tmp_path / "d").read_text()) == [{}]


def test_a_missing_model_is_one_line(run, tmp_path, processed):
    """With what to do about it, before anything is measured."""
    run()
    absent = tmp_path / "absent"
    with pytest.raises(CheckpointError, match=r"absent/model.json: no such file; run dvc repro train"):
        inspect.main(tmp_path / "params.yaml", processed, absent, tmp_path / "o", tmp_path / "m", tmp_path / "r")
    assert not files(tmp_path / "o")
