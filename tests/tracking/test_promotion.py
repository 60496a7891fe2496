"""A champion is replaced for a reason, and given back: on a real MLflow store with real ONNX files."""

import hashlib
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import mlflow
import numpy as np
import onnx
import pytest

from pipeline.config import loading
from pipeline.errors import PromotionError
from pipeline.experiments.predictions import Predictions
from pipeline.experiments.repository import Repository
from pipeline.tracking import promotion, store, sync
from tests.forge import Forge
from tests.paths import ROOT

pytestmark = pytest.mark.e2e

SETTINGS = {"experiment": "cifar10", "model": "cifar10-cnn"}


WRONG = {"good": 500, "as-good": 503, "bad": 1500} | {f"worse-{number}": 500 + 6 * number for number in range(1, 5)}
"""Experiment -> images of 5,000 that it classifies wrongly."""


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


def published(folder: Path, empty_store: Path, names: Iterable[str]) -> Forge:
    """Return a repository whose experiments are in git, DVC's cache and MLflow."""
    made = Forge(folder, images=5000)
    shutil.copyfile(empty_store, made.folder / empty_store.name)
    for number, name in enumerate(names):
        made.experiment(name, predicted=made.right(range(WRONG[name])), outputs={"export/model.onnx": graph(number)})
    with pytest.MonkeyPatch.context() as patch, Repository(made.folder) as repository:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)  # an earlier test's
        plan = sync.plan(repository, SETTINGS)
        for change in plan.changes:
            sync.apply(repository, SETTINGS, change)
        assert plan.skipped == {}
    return made


@pytest.fixture(scope="module")
def forge(tmp_path_factory, empty_store) -> Forge:
    """All of them, published once for all tests: each has an alias of its own."""
    return published(tmp_path_factory.mktemp("promotion") / "repository", empty_store, WRONG)


@pytest.fixture
def alias(request) -> str:
    """The alias of a test."""
    return request.node.name.replace("_", "-")


@pytest.fixture
def promote(forge, alias) -> Callable:
    """A function that promotes an experiment by name."""

    def call(name: str, *, force: bool = False, **requirements: float) -> promotion.Promotion:
        return promoted(forge, name, alias, force=force, **requirements)

    return call


def promoted(forge: Forge, name: str, alias: str, *, force: bool = False, **requirements: float):
    export = loading.load(ROOT / "params.yaml").export.model_copy(update=requirements)
    with Repository(forge.folder) as repository:
        revision = repository.resolve(name)
        return promotion.promote(repository, SETTINGS, revision, alias, requirements=export, force=force)


def champion(forge: Forge, alias: str) -> str:
    client = mlflow.MlflowClient(store.uri(forge.folder))
    return str(client.get_model_version_by_alias("cifar10-cnn", alias).version)


def test_the_first_and_an_equal_one_are_promoted(forge, promote, alias):
    """No champion yet: nothing to be worse than. Three images fewer of 5,000: within half a point, and shown to be."""
    assert promote("good").version == champion(forge, alias) == "1"
    done = promote("as-good")
    assert (done.version, done.before) == (champion(forge, alias), "1") == ("2", "1")
    expected = "-0.06 points against version 1, the best champion so far, on the same 5,000 images (95 % interval -0."
    assert done.comparison.startswith(expected)
    assert promote("as-good").comparison == "no change"


def test_one_that_may_be_worse_is_refused_unless_forced(forge, promote, alias):
    """The reason is given, and recorded where it was overruled; what was forced sets no lower standard."""
    promote("good")
    refusal = r"bad: not promoted: may lose more than 0.5 points \(export.max_drop\): -20.00 points against version 1"
    with pytest.raises(PromotionError, match=refusal):
        promote("bad")
    assert champion(forge, alias) == "1"
    assert promote("bad", force=True).objections[0].startswith("may lose more than")
    version = mlflow.MlflowClient(store.uri(forge.folder)).get_model_version("cifar10-cnn", champion(forge, alias))
    assert version.tags["promotion_forced"].startswith("may lose more than 0.5 points")
    with pytest.raises(PromotionError, match="against version 1, the best champion so far"):
        promote("worse-4")
    assert promote("as-good").before == str(version.version)


def test_few_images_do_not_show_that_a_model_is_as_good(promote):
    """Equal accuracy, but the interval is wider than the margin."""
    promote("good")
    with pytest.raises(PromotionError, match=r"may lose more than 0.05 points .*: -0.06 points"):
        promote("as-good", max_drop=0.0005)


def test_champions_do_not_drift_down(promote):
    """Each of the chain is within half a point of the one before; against the best, the third is not."""
    promote("good")
    for number in (1, 2):
        promote(f"worse-{number}")
    for number in (3, 4):
        with pytest.raises(PromotionError, match="against version 1, the best champion so far"):
            promote(f"worse-{number}")


def test_of_twenty_candidates_each_a_little_worse_most_are_refused():
    """Each is six images of 5,000 worse than the one before, far from significant; none is a point below the first."""
    labels = np.zeros(5000, int)
    champions = {}
    for number in range(20):
        wrong = np.arange(5000) < 500 + 6 * number
        candidate = Predictions(labels, wrong.astype(int), ("a", "b"))
        if not champions or not promotion.non_inferiority(champions, candidate, 0.005)[1]:
            champions = {str(number): candidate} | champions
    assert list(champions) == ["2", "1", "0"]


def test_a_promotion_that_was_undone_sets_no_standard(forge, promote, alias):
    """It was undone for a reason."""
    promote("worse-3")
    promote("good")
    with Repository(forge.folder) as repository:
        promotion.undo(repository, SETTINGS, alias)
    assert "against version 6" in promote("worse-4").comparison


def test_too_low_an_accuracy_and_another_file_are_refused(forge, promote):
    """export.min_accuracy, and a file in MLflow that is not the one DVC recorded."""
    with pytest.raises(PromotionError, match=r"test accuracy 90.00%, expected at least 95.00% \(export.min"):
        promote("good", min_accuracy=0.95)
    (served,) = [path for path in (forge.folder / "mlartifacts").rglob("*.onnx") if path.read_bytes() == graph(0)]
    served.write_bytes(graph(7))
    recorded = hashlib.md5(graph(0), usedforsecurity=False).hexdigest()
    with pytest.raises(PromotionError, match=rf"is not the export/model.onnx that DVC .* expected MD5 {recorded}"):
        promote("good")
    served.write_bytes(graph(0))


def test_going_back_is_one_command(forge, promote, alias):
    """To the version before, and no further than there was one."""
    promote("good")
    promote("as-good")
    with Repository(forge.folder) as repository:
        assert promotion.undo(repository, SETTINGS, alias).version == champion(forge, alias) == "1"
        with pytest.raises(PromotionError, match="expected a previous version, found none"):
            promotion.undo(repository, SETTINGS, alias)


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


def test_a_lost_store_gets_its_champion_back(tmp_path, empty_store, monkeypatch):
    """Promotions are kept in git, too: sync restores the alias."""
    forge = published(tmp_path / "repository", empty_store, ("good", "as-good"))
    for name in ("good", "as-good"):
        promoted(forge, name, "champion")
    (forge.folder / "mlflow.db").unlink()
    # Another address of the same file: MLflow keeps a connection to the lost one under the first.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{store.uri(forge.folder)}?timeout=61")
    with Repository(forge.folder) as repository:
        for change in sync.plan(repository, SETTINGS).changes:
            sync.apply(repository, SETTINGS, change)
    client = mlflow.MlflowClient(store.uri(forge.folder))
    version = client.get_model_version_by_alias("cifar10-cnn", "champion")
    assert client.get_run(version.run_id).info.run_name == "as-good"
