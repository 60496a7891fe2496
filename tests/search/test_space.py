"""The space of a search: every mistake in it is one line, every value in it one that params.yaml accepts."""

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pipeline.config import loading
from pipeline.errors import TuningError
from pipeline.search import space
from tests.paths import ROOT


@pytest.fixture
def base():
    """What the project's params.yaml holds."""
    return loading.read(ROOT / "params.yaml")


@pytest.fixture
def read(tmp_path, base):
    """A function from a space's text to the space."""

    def read_text(text: str) -> space.Space:
        (tmp_path / "space.yaml").write_text(text)
        return space.read(tmp_path / "space.yaml", base)

    return read_text


def test_ranges_and_choices_become_distributions(read):
    """Whole numbers where the parameter is one; lists are choices like others."""
    found = read(
        "optimizer.muon.lr: {low: 0.02, high: 0.5, log: true}\n"
        "train.epochs: {low: 4, high: 9, step: 2}\n"
        "optimizer.muon.momentum: {low: 0, high: 0.9, step: 0.1}\n"
        "train.compile: [true, false]\n"
        "model.cnn.widths: [[32, 64], [32, 64, 128]]\n"
    )
    assert found.distributions == {
        "optimizer.muon.lr": FloatDistribution(0.02, 0.5, log=True),
        "train.epochs": IntDistribution(4, 8, step=2),
        "optimizer.muon.momentum": FloatDistribution(0.0, 0.9, step=0.1),
        "train.compile": CategoricalDistribution(["true", "false"]),
        "model.cnn.widths": CategoricalDistribution(["[32, 64]", "[32, 64, 128]"]),
    }
    suggested = {"optimizer.muon.lr": 0.1, "train.compile": "false", "model.cnn.widths": "[32, 64, 128]"}
    assert found.values(suggested) == {
        "optimizer.muon.lr": 0.1,
        "train.compile": False,
        "model.cnn.widths": [32, 64, 128],
    }


def test_a_grid_is_all_combinations(read):
    """Of choices and of ranges with steps; without one there is no end to it."""
    grid = read("train.epochs: {low: 4, high: 8, step: 4}\ntrain.ema: {low: 0.1, high: 0.3, step: 0.1}\n").grid()
    assert grid == [{"train.epochs": epochs, "train.ema": ema} for epochs in (4, 8) for ema in (0.1, 0.2, 0.3)]
    with pytest.raises(TuningError, match=r"^optimizer\.muon\.lr: a grid needs finitely many values"):
        read("optimizer.muon.lr: {low: 0.1, high: 0.2}\n").grid()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimizer.muon.lrx: [1]", "optimizer.muon.lrx: unknown parameter; did you mean optimizer.muon.lr?"),
        ("train: [1]", "train: unknown parameter"),
        ("data.val_images: [10]", "data.val_images: expected a parameter of augment, model, optimizer, train"),
        ("tracking.enabled: [true]", "tracking.enabled: expected a parameter of augment, model, optimizer, train"),
        ("optimizer.muon.lr: 0.1", "optimizer.muon.lr: found 0.1, expected a list of choices, or a range"),
        ("optimizer.muon.lr: []", "optimizer.muon.lr: found an empty list, expected choices"),
        ("optimizer.muon.lr: [0.1, 0.1]", "optimizer.muon.lr: found 0.1 more than once"),
        ("optimizer.muon.lr: {low: 0.5, high: 0.1}", "optimizer.muon.lr: low: found 0.5, expected at most high, 0.1"),
        ("optimizer.muon.lr: {low: 0.5}", "optimizer.muon.lr: high: missing; a range needs both ends"),
        (
            "optimizer.muon.lr: {low: 0.1, high: 1, steps: 3}",
            "optimizer.muon.lr: steps: unknown key; a range has low, high, log, step",
        ),
        ("optimizer.muon.lr: {low: a, high: 1}", "optimizer.muon.lr: low: found a, expected a number"),
        ("optimizer.muon.lr: {low: 0.1, high: true}", "optimizer.muon.lr: high: found true, expected a number"),
        ("train.epochs: {low: 4.5, high: 8}", "train.epochs: low: found 4.5, expected a whole number"),
        ("train.ema: {low: 0, high: 0.5, log: true}", "train.ema: low: found 0, expected more than 0, as log is true"),
        ("train.ema: {low: 0, high: 0.5, log: 2}", "train.ema: log: found 2, expected true or false"),
        ("train.ema: {low: 0, high: 0.5, step: 0}", "train.ema: step: found 0, expected more than 0"),
        ("train.ema: {low: 0.1, high: 0.5, step: 0.1, log: true}", "train.ema: found log and step, expected one"),
        ("train.ema: {low: 0.1, high: 1.5}", "train.ema: found 1.5, expected less than or equal to 0.9999"),
        ("optimizer.name: [sgd, sdg]", "optimizer.name: found \"sdg\", expected 'muon', 'sgd' or 'adamw'"),
        ("model.cnn.norm: {low: 1, high: 1}", "model.cnn.norm: found 1, expected 'batch' or 'none'"),
        ("model.cnn.widths: [[0]]", "model.cnn.widths[0]: found 0, expected greater than or equal to 1"),
        ("", "expected parameters and their ranges"),
        ("optimizer.muon.lr: [", "not valid YAML"),
    ],
)
def test_a_mistake_is_one_line(read, text, message):
    """Where it is, what was found, what is allowed."""
    with pytest.raises(TuningError) as caught:
        read(text)
    first = str(caught.value).splitlines()[0]
    assert "space.yaml" in first
    assert message in first


def test_all_mistakes_are_told_at_once(read):
    """One line for each."""
    with pytest.raises(TuningError) as caught:
        read("optimizer.muon.lrx: [1]\noptimizer.muon.lr: {low: 2, high: 1}\n")
    assert len(str(caught.value).splitlines()) == 2
