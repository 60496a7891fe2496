"""The measured cost model: floors and exponents against closed forms, the command on a minuscule setting."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from matplotlib import image

from benchmarks import growth, roofline, scaling, trainings
from pipeline import stage
from pipeline.config import loading
from pipeline.config.schema import Params
from pipeline.data.dataset import Dataset
from pipeline.errors import PipelineError
from pipeline.training import loop
from pipeline.training.checkpoint import TrainingState
from tests.models.test_networks import network
from tests.paths import ROOT

PEAKS = roofline.Peaks(
    gflops={"bf16": {"matmul": 200.0, "convolution": 100.0}, "fp32": {"matmul": 50.0, "convolution": 40.0}},
    gb_per_s=10.0,
)


@pytest.fixture
def defaults() -> Params:
    return loading.load(ROOT / "params.yaml")


@pytest.mark.parametrize("power", [-0.5, 0.0, 1.0, 1.7])
def test_the_exponent_of_a_power_law_comes_out(power):
    """Whatever its factor."""
    sizes = [16, 20, 24, 32]
    assert growth.exponent(sizes, [0.3 * size**power for size in sizes]) == pytest.approx(power)


def test_a_layers_floor_is_the_slower_of_computing_and_moving(defaults):
    """Products at the best rate of the precision, all else at the rate of copying."""
    model, batch = network("mlp", hidden=(200,)), 50
    sgd = defaults.optimizer.model_copy(update={"name": "sgd"})
    floors = {
        floor.name: floor
        for floor in roofline.step_floors(model, sgd, side=32, batch=batch, precision="bf16", peaks=PEAKS)
    }
    hidden = floors["classifier.0"]  # no gradient of its input
    assert hidden.forward_gflop == pytest.approx(2e-9 * batch * 3072 * 200)
    assert hidden.backward_gflop == pytest.approx(hidden.forward_gflop)
    own = 4 * (3072 + 1) * 200
    assert hidden.gb == pytest.approx(1e-9 * (batch * 2 * (4 * 3072 + 2 * 200) + 2 * own))
    assert hidden.intensity == pytest.approx(hidden.gflop / hidden.gb)
    assert (hidden.bound, hidden.seconds) == ("memory", pytest.approx(hidden.gb / 10))
    assert floors["classifier.1"].gflop == 0
    weights = 3073 * 200 + 201 * 10
    assert floors["optimiser"].gb == pytest.approx(1e-9 * 4 * (3 * weights + 2 * weights))  # with its momentum
    large = roofline.step_floors(model, sgd, side=32, batch=100 * batch, precision="bf16", peaks=PEAKS)
    hidden = next(floor for floor in large if floor.name == "classifier.0")
    assert (hidden.bound, hidden.seconds) == ("compute", pytest.approx(hidden.gflop / 200))


def test_muons_products_are_counted(defaults):
    """Five iterations of two large products and a square one for the one hidden matrix, in float32 on a processor."""
    model = network("mlp", hidden=(20,))
    floors = roofline.step_floors(model, defaults.optimizer, side=32, batch=1, precision="bf16", peaks=PEAKS)
    gflop = 1e-9 * defaults.optimizer.muon.steps * 2 * (2 * 20 * 20 * 3072 + 20**3)
    assert floors[-1].gflop == pytest.approx(gflop)
    assert floors[-1].seconds == pytest.approx(max(gflop / 50, floors[-1].gb / 10))


def test_a_step_is_set_against_its_floor_and_the_peak(defaults):
    """The median counts; a step as fast as its floor has a fraction of 1."""
    floors = roofline.step_floors(network("cnn"), defaults.optimizer, side=32, batch=10, precision="fp32", peaks=PEAKS)
    least = math.fsum(floor.seconds for floor in floors)
    step = roofline.compare(floors, 10, [least, 2 * least, 9 * least], PEAKS.flops("fp32"))
    assert (step.median, step.fraction_of_floor) == (2 * least, 0.5)
    assert step.fraction_of_peak == pytest.approx(step.gflop / 50 / (2 * least))


@pytest.mark.parametrize("arch", ["speednet", "cnn", "resnet"])
def test_each_quantity_varies_alone(arch, defaults):
    """Its sizes differ in one thing from one another; a cnn's resolution cannot."""
    quantities = trainings.quantities(defaults, arch, scale=0.5)
    assert ("resolution" in quantities) == (arch != "cnn")
    for name, quantity in quantities.items():
        cases = list(quantity.cases.values())
        settings = [
            {
                "images": case.images,
                "width": str(case.params.model.section),
                "resolution": case.train.resolutions,
                "epochs": case.train.epochs,
                "batch": case.train.batch_size,
            }
            for case in cases
        ]
        varied = {key for key in settings[0] if len({str(setting[key]) for setting in settings}) > 1}
        assert varied == {name}
        assert len(cases) == 4
        assert list(quantity.cases) == sorted(quantity.cases)
        assert all(case.train.batch_size <= case.images for case in cases)
    assert list(quantities["images"].cases) == [500, 1000, 2000, 4000]


def test_what_is_timed_is_the_training_itself(defaults, tmp_path, cpu):
    """The same weights, bit for bit, as `loop.train` gives for the same images."""
    case = trainings.base(defaults, "cnn", 60, width=0.125, epochs=2, batch_size=25, device="cpu", precision="fp32")
    timed = trainings.Training(case, cpu)
    timed()
    noise = trainings.noise(60)
    data = Dataset(noise.metadata, {"train": noise["train"], "val": noise["train"]})
    whole = loop.train(case.params, data, TrainingState(tmp_path))
    assert timed.steps == 6
    for mine, other in zip(timed.step.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.e2e
def test_the_command_measures_writes_and_draws(tmp_path, environment, monkeypatch):
    """A minuscule setting, all of it; then the same pictures from the JSON alone."""
    result, figure, layers = tmp_path / "result.json", tmp_path / "growth.png", tmp_path / "layers.png"
    options = ["--device", "cpu", "--images", "0.01", "--sizes", "2", "--repeats", "2"]
    written = ["--json", str(result), "--figure", str(figure), "--layers", str(layers)]
    command = [sys.executable, "-m", "benchmarks.scaling", *options, *written]
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    for title in ("Best rates of this machine", "Layers of a step", "Growth of seconds", "Peak memory"):
        assert title in done.stdout

    content = json.loads(result.read_text())
    assert list(content) == ["machine", "settings", "peaks", "layers", "step", "growth", "memory"]
    assert list(content["growth"]) == ["images", "width", "resolution", "epochs", "batch"]
    for one in content["growth"].values():
        assert [len(seconds) for seconds in one["seconds"]] == [2, 2]
        assert min(one["medians"] + one["floors"]) > 0
        assert math.isfinite(one["exponent"] + one["floor_exponent"])
    assert content["growth"]["images"]["floor_exponent"] < 1.0
    assert content["growth"]["epochs"]["floor_exponent"] == pytest.approx(1)
    assert list(content["memory"]) == ["batch", "width"]
    for one in content["memory"].values():
        assert all(peak > start > 0 for start, peak in zip(one["start_mib"], one["peak_mib"], strict=True))
        assert one["peak_mib"][1] > one["peak_mib"][0]
    assert content["step"]["floor_seconds"] == pytest.approx(sum(layer["seconds"] for layer in content["layers"]))
    assert content["step"]["fraction_of_floor"] > 0

    for path in (figure, layers):
        pixels = image.imread(path)
        assert min(pixels.shape[:2]) > 500
        assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 50
        assert (pixels[..., :3].min(2) < 0.9).mean() > 0.02
    first = [path.read_bytes() for path in (figure, layers)]
    monkeypatch.setattr(sys, "argv", ["scaling.py", "--from-json", *written[1:]])
    with pytest.raises(SystemExit) as ended:
        stage.command(scaling.main)
    assert ended.value.code == 0
    assert [path.read_bytes() for path in (figure, layers)] == first


def test_another_json_is_refused_by_name(tmp_path):
    """One line that says which file."""
    path = tmp_path / "other.json"
    path.write_text("[1]")
    with pytest.raises(PipelineError, match=r"other\.json: not a result of benchmarks\.scaling"):
        scaling.read(path)
