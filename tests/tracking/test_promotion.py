"""A champion is replaced for a reason, and given back: on a real MLflow store with real ONNX files."""

import hashlib
import shutil
from collections.abc import Callable

import mlflow
import numpy as np
import onnx
import pytest

from pipeline.errors import PromotionError
from pipeline.experiments.repository import Repository
from pipeline.tracking import promotion, store, sync
from tests.forge import Forge

SETTINGS = {"experiment": "cifar10", "model": "cifar10-cnn"}


def graph(bias: float) -> bytes:
    """Return a small valid ONNX graph that differs by a constant."""
    from onnx import TensorProto, helper

    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 32, 32, 3])
    out = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 10])
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "one"], ["column"]),
        helper.make_node("Add", ["column", "bias"], ["probabilities"]),
    ]
    constants = [
        onnx.numpy_helper.from_array(np.array([1, 2, 3]), "axes"),
        onnx.numpy_helper.from_array(np.array([1]), "one"),
        onnx.numpy_helper.from_array(np.full(10, bias, np.float32), "bias"),
    ]
    made = helper.make_graph(nodes, "g", [images], [out], constants)
    return helper.make_model(made, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()


@pytest.fixture
def forge(tmp_path, empty_store) -> Forge:
    """Three experiments in git, DVC's cache and MLflow: good, as good, and bad."""
    made = Forge(tmp_path / "repository")
    shutil.copyfile(empty_store, made.folder / empty_store.name)
    for number, (name, wrong) in enumerate({"good": 100, "as-good": 103, "bad": 300}.items()):
        made.experiment(name, predicted=made.right(range(wrong)), outputs={"export/model.onnx": graph(number)})
    with Repository(made.folder) as repository:
        plan = sync.plan(repository, SETTINGS)
        for change in plan.changes:
            sync.apply(repository, SETTINGS, change)
        assert plan.skipped == {}
    return made


@pytest.fixture
def promote(forge) -> Callable:
    """A function that promotes an experiment by name."""

    def call(name: str, *, min_accuracy: float = 0.0, force: bool = False) -> promotion.Promotion:
        with Repository(forge.folder) as repository:
            revision = repository.resolve(name)
            return promotion.promote(
                repository, SETTINGS, revision, "champion", min_accuracy=min_accuracy, force=force
            )

    return call


def champion(forge: Forge) -> str:
    client = mlflow.MlflowClient(store.uri(forge.folder))
    return str(client.get_model_version_by_alias("cifar10-cnn", "champion").version)


def test_the_first_and_an_equal_one_are_promoted(forge, promote):
    """No champion yet: nothing to be worse than. Three images fewer of a thousand: not significantly worse."""
    assert promote("good").version == champion(forge) == "1"
    done = promote("as-good")
    assert (done.version, done.before) == (champion(forge), "1") == ("2", "1")
    assert done.comparison.startswith("-0.30 points against version 1 on the same 1,000 images (95 % interval -0.")
    assert promote("as-good").comparison == "no change"


def test_a_significantly_worse_one_is_refused_unless_forced(forge, promote):
    """The reason is given, and recorded where it was overruled."""
    promote("good")
    with pytest.raises(PromotionError, match=r"bad: not promoted: significantly worse .*: -20.00 points"):
        promote("bad")
    assert champion(forge) == "1"
    assert promote("bad", force=True).objections[0].startswith("significantly worse")
    version = mlflow.MlflowClient(store.uri(forge.folder)).get_model_version("cifar10-cnn", champion(forge))
    assert version.tags["promotion_forced"].startswith("significantly worse than the current version")


def test_too_low_an_accuracy_and_another_file_are_refused(forge, promote):
    """export.min_accuracy, and a file in MLflow that is not the one DVC recorded."""
    with pytest.raises(PromotionError, match=r"test accuracy 90.00%, expected at least 95.00% \(export.min"):
        promote("good", min_accuracy=0.95)
    (served,) = [path for path in (forge.folder / "mlartifacts").rglob("*.onnx") if path.read_bytes() == graph(0)]
    served.write_bytes(graph(7))
    recorded = hashlib.md5(graph(0), usedforsecurity=False).hexdigest()
    with pytest.raises(PromotionError, match=rf"is not the export/model.onnx that DVC .* expected MD5 {recorded}"):
        promote("good")


def test_going_back_is_one_command(forge, promote):
    """To the version before, and no further than there was one."""
    promote("good")
    promote("as-good")
    with Repository(forge.folder) as repository:
        assert promotion.undo(repository, SETTINGS, "champion").version == champion(forge) == "1"
        with pytest.raises(PromotionError, match="expected a previous version, found none"):
            promotion.undo(repository, SETTINGS, "champion")


def test_what_has_no_version_names_the_command_that_makes_one(forge, promote):
    """A result that MLflow has not seen."""
    forge.experiment("new", predicted=forge.right(range(7)))
    with pytest.raises(PromotionError, match=r"no version of this result; python -m pipeline sync --rev new "):
        promote("new")


def test_what_was_not_exported_names_the_commands_that_do_it(forge, promote):
    """A search's trial ends with evaluate; force does not help where there is no model."""
    forge.experiment("trial-0001", predicted=forge.right(range(7)), stages=("preprocess", "train", "evaluate"))
    expected = r"^trial-0001: expected an exported model, found none; dvc exp apply trial-0001; dvc repro exports it$"
    for force in (False, True):
        with pytest.raises(PromotionError, match=expected):
            promote("trial-0001", force=force)


def test_a_lost_store_gets_its_champion_back(forge, promote, monkeypatch):
    """Promotions are kept in git, too: sync restores the alias."""
    promote("good")
    promote("as-good")
    (forge.folder / "mlflow.db").unlink()
    # Another address of the same file: MLflow keeps a connection to the lost one under the first.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{store.uri(forge.folder)}?timeout=61")
    with Repository(forge.folder) as repository:
        for change in sync.plan(repository, SETTINGS).changes:
            sync.apply(repository, SETTINGS, change)
    client = mlflow.MlflowClient(store.uri(forge.folder))
    version = client.get_model_version_by_alias("cifar10-cnn", "champion")
    assert client.get_run(version.run_id).info.run_name == "as-good"
