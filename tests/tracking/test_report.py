"""The description of a run in MLflow."""

import dataclasses
from types import SimpleNamespace

from pipeline.tracking import report
from pipeline.tracking.owner import Owner

RUN = SimpleNamespace(info=SimpleNamespace(experiment_id="1", run_id="abc"))


def test_it_has_what_differs_the_headline_and_the_command_that_runs_it_again(record):
    """Beside each value its difference to the baseline's; a metric that the baseline lacks has none."""
    before = record
    after = dataclasses.replace(record, metrics={**record.metrics, "test/accuracy": 0.52, "test/loss": 1.5})
    text = report.describe(RUN, after, Owner("tanh", "0123456789"), {"model.cnn.activation": "tanh"}, before)
    lines = text.splitlines()
    assert lines[0] == "Differs from params.yaml at 0123456: `model.cnn.activation=tanh`"
    assert "| test accuracy | 52.00% | +2.00% |" in lines
    assert "| test loss | 1.5000 |  |" in lines
    assert "| parameters | 1,234 | +0 |" in lines
    assert "Run it again: `dvc exp run --temp -n tanh-again -S 'model.cnn.activation=tanh'`" in lines
    assert "compare" in text
    assert "[confusion](#/experiments/1/runs/abc/artifacts/figures/confusion.png)" in text


def test_a_commit_has_no_baseline(record):
    """And no experiment to run again."""
    text = report.describe(RUN, record, Owner(), {}, None)
    assert "| result | value |" in text
    assert "Differs" not in text
    assert "again" not in text
