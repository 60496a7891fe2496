"""What a training tells a process that watches it."""

from pathlib import Path

import pytest

from pipeline.errors import TrainingError
from pipeline.experiments import epoch_reports


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """The file in which the training of the experiment `one` reports."""
    monkeypatch.setenv(epoch_reports.FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setenv("DVC_EXP_NAME", "one")
    return epoch_reports.path(tmp_path, "one")


def test_epochs_are_read_while_the_training_goes_on(watched):
    """Each line once, and a line that is only half written not yet."""
    reader = epoch_reports.Reader(watched)
    assert reader.new() == []
    with epoch_reports.reporting(Path("state"), 3) as tell:
        assert reader.new() == [{"state": "state", "epochs": 3}]
        tell({"epoch": 1, "val/accuracy": 0.25})
        tell({"epoch": 2, "val/accuracy": 0.5})
        assert [line["epoch"] for line in reader.new()] == [1, 2]
        with watched.open("a") as file:
            file.write('{"epoch": ')
        assert reader.new() == []
        with watched.open("a") as file:
            file.write("3}\n")
        assert reader.new() == [{"epoch": 3}]


def test_a_training_that_cannot_go_on_says_why(watched):
    """Its parameters are at fault; other errors are not the training's to tell."""
    with pytest.raises(TrainingError), epoch_reports.reporting(Path("state"), 3):
        raise TrainingError("the loss is nan")
    with pytest.raises(ValueError, match="a bug"), epoch_reports.reporting(Path("state"), 3):
        raise ValueError("a bug")
    assert epoch_reports.Reader(watched).new() == [
        {"state": "state", "epochs": 3},
        {"failed": "the loss is nan"},
        {"state": "state", "epochs": 3},
    ]


@pytest.mark.parametrize("absent", [epoch_reports.FOLDER_VARIABLE, "DVC_EXP_NAME"])
def test_nothing_is_written_if_nobody_watches(watched, monkeypatch, absent):
    """Neither outside of a search nor outside of an experiment."""
    monkeypatch.delenv(absent)
    with epoch_reports.reporting(Path("state"), 3) as tell:
        tell({"epoch": 1})
    assert not list(watched.parent.iterdir())
