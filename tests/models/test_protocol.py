"""Architectures that no code outside their folders knows, through all that asks a network about itself."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from torch import nn

from pipeline import models
from pipeline.config import architectures
from pipeline.config.loading import parse_architecture
from pipeline.data import dataset
from pipeline.data.dataset import Split
from pipeline.errors import InspectionError
from pipeline.evaluation import inference
from pipeline.explanation import command
from pipeline.inspection import filters, parts, receptive_field
from pipeline.inspection.network import Network
from pipeline.models.common import cost, features
from pipeline.models.common.build import build, head
from pipeline.models.common.saved import save_model
from pipeline.training import optim, probe
from pipeline.training.step import train_step
from tests.models.test_networks import network, pictures
from tests.paths import ROOT

FOLDER = ROOT / "tests/architectures"
NAMES = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())

NO_FILTERS = "this network has no first-layer filters: no layer has weights (F, 3, k, k)"
NO_MAPS = "this network has no feature maps: none of its parts has an output (N, C, H, W)"
NO_FEATURES = "features: expected a network with a `head` or a torch.nn.Linear, found neither"
NO_GRAD_CAM = "Grad-CAM: this network has no convolution whose outputs are feature maps (N, C, H, W)"


@pytest.fixture
def added(monkeypatch):
    """A function that returns a network of tests/architectures, whose folders are as if in pipeline/models."""
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(FOLDER)])
    monkeypatch.setattr(architectures, "NAMES", (*architectures.NAMES, *NAMES))
    torch.manual_seed(0)
    statistics = {"mean": (120.0, 115.0, 110.0), "std": (60.0, 61.0, 62.0)}
    yield lambda name: build(name, params(name), **statistics, classes=10)
    for module in [module for module in sys.modules if module.removeprefix("pipeline.models.").split(".")[0] in NAMES]:
        del sys.modules[module]


def params(name: str):
    """The values in an architecture's params.yaml, parsed by its `Params`."""
    return parse_architecture(name, YAML(typ="safe").load(FOLDER / name / "params.yaml")[name])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("optimizer", ["muon", "sgd", "adamw"])
def test_it_is_trained_by_every_optimizer(name, optimizer, added, small_params):
    """A step lowers the loss on its own batch, and changes each parameter."""
    model, settings = added(name), small_params({"optimizer.name": optimizer})
    before = [parameter.clone() for parameter in model.parameters()]
    images, labels = pictures(40), torch.arange(40) % 10
    stepper = optim.build(settings.optimizer, model, precision="fp32")
    optim.set_rate(stepper, 0.02)
    first, second = (train_step(model, stepper, images, labels, settings.train, precision="fp32")[0] for _ in range(2))
    assert second < first
    assert not any(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("name", "parameters", "macs", "last"),
    [
        ("allconv", 9 * 3 * 8 + 8 + 9 * 8 * 16 + 16 + 16 * 10 + 10, 16**2 * 216 + 8**2 * (9 * 8 * 16 + 160), None),
        ("foreign", 304 + 808 + 200 * 20 + 20 + 20 * 10 + 10, 28**2 * 300 + 10**2 * 800 + 4000 + 200, "fc2"),
        ("tinyvit", None, None, "head"),
    ],
)
def test_its_cost_is_counted_and_its_head_found(name, parameters, macs, last, added):
    """By closed forms; a network without a linear layer has no head, and one made first is found."""
    model = added(name)
    found = cost.cost(model)
    assert found[0] == sum(parameter.numel() for parameter in model.parameters())
    assert parameters is None or found == (parameters, macs)
    layers = cost.by_layer(model)
    assert 0 < sum(layer.macs for layer in layers) <= found[1]
    assert head(model) is (dict(model.named_modules())[last] if last else None)


@pytest.mark.parametrize("name", NAMES)
def test_its_gradients_and_activations_are_recorded(name, added):
    """A row for each layer with matrices, finite, attention among them; activations that are functions have none."""
    rows = probe.look(added(name), pictures(20), torch.arange(20) % 10, label_smoothing=0.0, epoch=0)
    kinds = {row["kind"] for row in rows}
    assert (
        kinds
        == {
            "allconv": {"Conv2d", "ReLU"},
            "foreign": {"Conv2d", "Linear"},
            "tinyvit": {"Linear", "MultiheadAttention", "GELU"},
        }[name]
    )
    assert all(row["gradient_norm"] > 0 for row in rows if row["kind"] not in ("ReLU", "GELU"))
    assert len({row["layer"] for row in rows}) == len(rows)


def test_a_layer_that_runs_several_times_has_a_row_for_each():
    """With a number after its name; units are those of each time."""

    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu, self.first, self.second = nn.ReLU(), nn.Linear(5, 4), nn.Linear(4, 3)

        def forward(self, x):
            return self.relu(self.second(self.relu(self.first(x))))

    rows = probe.look(Shared(), torch.randn(6, 5), torch.zeros(6, dtype=torch.int64), label_smoothing=0.0, epoch=0)
    assert [row["layer"] for row in rows] == ["first", "relu", "second", "relu (2)"]


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("name", "left_out", "maps"),
    [
        ("allconv", [f"embedding: {NO_FEATURES}"], ["body.0", "body.2", "body.4"]),
        ("foreign", [], ["conv1", "conv2"]),
        ("tinyvit", [f"first_layer: {NO_FILTERS}", f"patches: {NO_MAPS}"], []),
    ],
)
def test_it_is_inspected(name, left_out, maps, added, data, cpu, tmp_path, capsys):
    """All parts of the stage; what it lacks is left out with a line each, and metrics are shares."""
    model = added(name).eval()
    test = dataset.first_of_each_class(data["test"], 60)
    probs = inference.predict(model, test, batch_size=60, place=cpu)
    subject = Network(model, data.metadata.classes, test, probs, 60, cpu, 0)
    metrics = parts.measure(subject, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("left out")] == [f"left out: {line}" for line in left_out]
    pictures_there = {path.stem for path in (tmp_path / "figures").iterdir()}
    absent = {line.split(":")[0] for line in left_out} | ({"layers"} if name == "foreign" else set())
    every = {"layers", "first_layer", "patches", "embedding", "confusions", "label_errors"}
    assert pictures_there == every - absent
    assert all(0 <= value <= 1 for key, value in metrics.items() if key != "inspect/images")
    if maps:
        assert list(features.stages(model)) == maps
    else:
        with pytest.raises(InspectionError, match="no feature maps"):
            features.stages(model)


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("allconv", [f"similar training images: {NO_FEATURES}", f"a map of the classes: {NO_FEATURES}"]),
        ("foreign", []),
        (
            "tinyvit",
            [
                *(NO_GRAD_CAM, NO_GRAD_CAM),
                *(f"{topic}: {NO_FILTERS}" for topic in ("edges", "the first layer's filters")),
                *(f"{topic}: {NO_MAPS}" for topic in ("feature maps", "patches that activate channels")),
            ],
        ),
    ],
)
def test_a_prediction_of_it_is_explained(name, left_out, added, data, tmp_path, capsys):
    """All sections; what it lacks is left out with a line each."""
    section = params(name)
    save_model(tmp_path / "model", added(name), SimpleNamespace(arch=name, section=section), data.metadata)
    few = {name: Split(data[name].images[:60], data[name].labels[:60]) for name in ("train", "test")}
    dataset.save(tmp_path / "data", dataset.Dataset(data.metadata, few))
    command.run(tmp_path / "model", tmp_path / "data", tmp_path / "out", 3, seed=0)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("left out")] == [f"left out: {line}" for line in left_out]
    assert sum("rank correlation with random networks' maps" in line for line in lines) == (
        4 if name == "tinyvit" else 6
    )
    assert (tmp_path / "out/explanation.html").stat().st_size > 10_000


def test_first_layer_filters_of_a_network_without_normalize_are_its_weights(added):
    """It divides by itself, so no mean is taken off and nothing divides the filters."""
    model = added("foreign")
    found = filters.first_layer(model)
    assert np.allclose(found.filters, model.conv1.weight.detach().numpy())
    assert not found.mean.any()
    assert found.learned


def test_receptive_fields_of_an_unknown_network_are_those_of_the_closed_form(added):
    """Also through functions; each 3x3 convolution of stride 2 adds twice its input's stride."""
    fields = receptive_field.fields(added("allconv"))
    assert [(field.size, field.rows[0].tolist()) for field in fields.values()] == [
        ((3, 3), [-1, 2]),
        ((7, 7), [-3, 4]),
        ((7, 7), [-3, 4]),
    ]
    first, second = receptive_field.fields(added("foreign")).values()
    assert (first.size, first.rows[1].tolist(), len(first.rows)) == ((5, 5), [1, 6], 28)
    assert (second.size, second.rows[1].tolist(), len(second.rows)) == ((14, 14), [2, 16], 10)


class Stages(nn.Module):
    """A network that is its parts, one after the other, then the mean of each channel."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, images):
        x = images.float()
        for part in self.parts:
            x = part(x)
        return x.mean((2, 3))


class Function(nn.Module):
    """A function as a layer."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def measured(*before: nn.Module) -> receptive_field.Field:
    """The receptive field of a convolution after some layers."""
    model = Stages(*before, nn.Conv2d(3, 2, 3, padding=1))
    model.feature_stages = [model.parts[-1]]
    (field,) = receptive_field.fields(model).values()
    return field


def test_receptive_fields_are_as_high_and_as_wide_as_filters_are():
    """A filter of 5 x 1 px before one of 3 x 3."""
    field = measured(nn.Conv2d(3, 3, (5, 1), padding=(2, 0)))
    assert field.size == (7, 3)
    assert field.box(10, 20) == (7, 19, 14, 22)


def test_a_network_that_scales_its_input_has_fields_in_pixels_of_the_image():
    """At twice the side, 3 px are 2 or 3 px of the image; whatever the image's side, it becomes 64 px."""
    field = measured(Function(lambda x: nn.functional.interpolate(x, size=(64, 64))))
    assert field.size == (2, 2)
    assert {tuple(row) for row in field.rows[10:14].tolist()} <= {(4, 6), (5, 7), (6, 8)}


@pytest.mark.parametrize(
    "function",
    [lambda x: x - x.mean((2, 3), keepdim=True), torch.nan_to_num, lambda x: torch.full_like(x, 1 / int(x.sum() + 1))],
    ids=["depends on all", "stops NaN", "rejects NaN"],
)
def test_a_field_is_the_whole_image_where_it_is_so_or_cannot_be_measured(function):
    """Never less than what a number depends on."""
    assert measured(Function(function)).is_whole(32)


def test_default_stages_are_those_that_the_project_names():
    """Parts with weights and what follows them; normalisation of the input is none."""
    assert list(features.stages(network("cnn"))) == ["blocks.0", "blocks.1"]
    assert list(features.stages(network("cnn", widths=(4,)))) == ["blocks.0"]
    assert list(features.stages(network("speednet"))) == ["first", "groups.0", "groups.1"]
    speednet = network("speednet")
    assert features.stages(speednet)["first"] is speednet.activation
    assert list(features.stages(network("resnet"))) == ["stem", "stages.0", "stages.1", "stages.2"]
    with pytest.raises(InspectionError, match="no feature maps"):
        features.stages(network("mlp"))
