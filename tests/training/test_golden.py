"""The first steps of every preset: a change of what is computed shows here, on every machine."""

import copy
import json
from itertools import islice
from pathlib import Path

import pytest

from pipeline.config import loading, presets
from pipeline.training import loop, optim
from tests.paths import ROOT

FILE = Path(__file__).with_name("golden.json")
STEPS, OF_THE_LARGEST = 20, 5
RATE = 0.01
"""Share of the learning rates: at all of them, differences in rounding would grow tenfold every few steps."""
SMALL = {"train.batch_size": 10, "train.precision": "fp32", "train.device": "cpu"}
"""What makes the steps small, and the same on processors with and without bfloat16."""
LOSS, MOVED = 2e-3, 2e-2
"""Relative tolerances; other numbers of threads and memory formats differ by less than half."""
NAMES = [preset.name for preset in presets.every()]


def first_steps(name: str, data, **changes: object) -> dict[str, list[float]]:
    """Take a preset's first steps, all of them in its first epoch.

    Returns:
        "losses" of the steps, and how far each parameter has "moved" in the end: the norm of its change.
    """
    tree = loading.changed(loading.read(ROOT / "params.yaml"), presets.find(name).values | SMALL | changes)
    params = loading.validate(tree, name)
    step, _ = loop.set_up(params, data)
    before = copy.deepcopy(step.model)
    step.model.train()
    optim.set_rate(step.optimizer, RATE)
    batches = step.loader.begin(0, loop.resolution(params.train, 0))
    steps = OF_THE_LARGEST if name.startswith("best") else STEPS
    losses = [float(f"{float(step(indices)[0]):.6g}") for indices in islice(batches, steps)]
    pairs = zip(step.model.parameters(), before.parameters(), strict=True)
    return {"losses": losses, "moved": [float(f"{float((new - old).detach().norm()):.5g}") for new, old in pairs]}


@pytest.mark.parametrize("name", NAMES)
def test_the_first_steps_are_those_on_file(data, name):
    """Where a change is meant to move them, golden.json gets the new numbers."""
    found, expected = first_steps(name, data), json.loads(FILE.read_text())[name]
    assert found["losses"] == pytest.approx(expected["losses"], rel=LOSS)
    assert found["moved"] == pytest.approx(expected["moved"], rel=MOVED)


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer.muon.lr": 0.124},
        {"optimizer.muon.lr_vectors": 37.0},
        {"optimizer.muon.lr_head": 0.028},
        {"optimizer.muon.momentum": 0.62},
        {"optimizer.muon.steps": 4},
        {"train.label_smoothing": 0.23},
        {"augment.flip": "none"},
        {"train.seed": 1},
    ],
    ids=str,
)
def test_small_changes_show(data, change):
    """More than rounding does."""
    found, expected = first_steps("fast", data, **change), json.loads(FILE.read_text())["fast"]
    same = found["losses"] == pytest.approx(expected["losses"], rel=LOSS)
    assert not (same and found["moved"] == pytest.approx(expected["moved"], rel=MOVED))
