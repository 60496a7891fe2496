"""Tables for notebooks hold what the commands print."""

import numpy as np
import pytest

from pipeline.errors import PipelineError, PredictionError
from pipeline.notebook import compare, predict, results
from tests.forge import Forge
from tests.serving.test_prediction import graph, solid


@pytest.fixture
def forge(tmp_path):
    """Three seeds of relu, 10 % wrong, and two of tanh, 20 % wrong, of a thousand images."""
    made = Forge(tmp_path / "repository")
    for activation, wrong, seeds in (("relu", 100, (0, 1, 2)), ("tanh", 200, (0, 1))):
        for seed in seeds:
            params = {"model.cnn.activation": activation, "train.seed": seed}
            made.experiment(f"{activation}-{seed}", predicted=made.right(range(seed, wrong + seed)), params=params)
    return made


def test_results_have_parameters_and_metrics(forge):
    """A row each."""
    table = results(forge.folder)
    assert sorted(table.index) == ["relu-0", "relu-1", "relu-2", "tanh-0", "tanh-1"]
    assert table.loc["tanh-1", "model.cnn.activation"] == "tanh"
    assert table.loc["tanh-1", ["seed", "train.seed"]].tolist() == [1, 1]
    assert table.loc["relu-0", "test/accuracy"] == 0.9
    assert table.groupby("model.cnn.activation")["test/accuracy"].mean().round(6).to_dict() == {
        "relu": 0.9,
        "tanh": 0.8,
    }


def test_comparison_groups_seeds_and_has_verdicts(forge):
    """Best first; the interval holds the difference."""
    table = compare(forge.folder, baseline="relu-0")
    assert table["verdict"].tolist() == ["baseline", "worse"]
    assert table["n"].tolist() == [3, 2]
    assert table["model.cnn.activation"].tolist() == ["relu", "tanh"]
    other = table.iloc[1]
    assert other["difference"] == pytest.approx(-0.1)
    assert other["low"] < -0.1 < other["high"] < 0
    assert other["p"] < 0.05
    assert np.isnan(table.iloc[0]["difference"])
    with pytest.raises(PipelineError, match="nothing"):
        compare(forge.folder, baseline="nothing")


def test_a_repository_without_results_gives_an_empty_table(tmp_path):
    assert results(Forge(tmp_path / "repository").folder).empty


def test_images_are_classified(tmp_path):
    """A folder, or several files; one that is no image is an error that names it."""
    model = str(graph(tmp_path / "means.onnx"))
    names = solid(tmp_path, "red", "blue")
    table = predict(tmp_path, model)
    assert table["class"].tolist() == ["red", "blue"]
    assert table[["red", "green", "blue"]].sum(axis=1).tolist() == pytest.approx([1, 1])
    assert predict([names[1]], model).index.tolist() == [names[1]]
    (tmp_path / "broken.png").write_bytes(b"nothing")
    with pytest.raises(PredictionError, match=r"broken\.png: not an image"):
        predict(tmp_path, model)
