"""The model card: what it has of a model and of its results."""

import json

import pytest

from pipeline.config.loading import load
from pipeline.evaluation import model_card
from pipeline.models.common.saved import Saved
from tests.conftest import SMALL, write_params

RESULTS = {
    "test/accuracy": 0.8125,
    "test/accuracy_low": 0.7871,
    "test/accuracy_high": 0.8355,
    "test/images": 1000,
    "test/accuracy_top2": 0.92,
    "test/f1_macro": 0.8111,
    "test/calibration_error": 0.0333,
}
ROBUST = {"test/corruption_accuracy": 0.625, "test/robustness_images": 250, "test/clean_accuracy": 0.8}
BY_CLASS = [{"class": "cat", "recall": 0.61}, {"class": "dog", "recall": 0.6}, {"class": "ship", "recall": 0.9}]
EPOCH = {"epoch": "8", "val/accuracy": "0.8210"}


@pytest.fixture
def card(data, tmp_path):
    """A function from changes of the results to the card of a network of 12,345 parameters."""
    section = load(write_params(tmp_path / "params.yaml", SMALL)).model.cnn
    saved = Saved("cnn", section, None, data.metadata, "e" * 64, 12_345, 6_789_000)
    return lambda **changes: model_card.render(saved, EPOCH, RESULTS | changes, BY_CLASS)


def test_the_card_has_the_model_its_data_and_its_results(card, data):
    """Each number once, in its row of the table."""
    text = card()
    rows = dict(
        line.strip("| ").split(" | ", 1) for line in text.splitlines() if line.startswith("| ") and " | " in line[2:-2]
    )
    assert text.startswith("# cnn for shapes10\n")
    assert ", ".join(data.metadata.classes) in text
    assert rows["data"] == f"shapes10, archive SHA-256 `{data.metadata.archive_sha256}`"
    assert rows["parameters"] == "12,345 trainable, 6,789,000 multiply-accumulates an image"
    assert rows["training"] == "8 epochs of 500 images; final validation accuracy 82.10%"
    assert rows["test accuracy"] == "**81.25%** (95 % interval 78.71% to 83.55%, 1,000 images)"
    assert (rows["top-2 accuracy"], rows["macro-F1"]) == ("92.00%", "0.8111")
    assert rows["expected calibration error"] == "0.0333"
    assert f"`{'e' * 64}`" in rows["weights"]
    assert "The class with the lowest recall is dog: 60%." in text
    params = json.loads(text.split("```json\n")[1].split("```")[0])
    assert params["widths"] == [8, 16]


def test_robustness_has_a_row_where_it_was_measured(card):
    """A row of the same table, and nothing of it where it was not."""
    without, text = card().splitlines(), card(**ROBUST).splitlines()
    (row,) = set(text) - set(without)
    assert row.startswith(
        "| accuracy on corrupted images | 62.50%, of 250 images, mean over 25 corruptions (unchanged 80.00%) |"
    )
    assert text[text.index(row) - 1].startswith("| expected calibration error")
    assert text[text.index(row) + 1].startswith("| weights")
    assert [line for line in text if line != row] == without


def test_its_program_is_python(card):
    """Braces of the template are doubled where Python has them."""
    code = card().split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert '{"images": images}' in code
