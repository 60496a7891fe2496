"""The record of a finished pipeline: what dvc.lock says, and what it refuses to believe."""

import pytest
from ruamel.yaml import YAML

from pipeline.errors import ResultsError
from pipeline.experiments import results
from tests.forge import Forge


@pytest.fixture
def forge(tmp_path) -> Forge:
    """A finished pipeline in its workspace."""
    made = Forge(tmp_path / "repository", images=100)
    made.commit(predicted=made.right(range(10)), params={"model.cnn": {"widths": [8, 16], "norm": "batch"}})
    return made


def change(forge: Forge, edit) -> None:
    path = forge.folder / "dvc.lock"
    lock = YAML(typ="safe").load(path)
    edit(lock["stages"])
    YAML(typ="safe").dump(lock, path)


def test_params_paths_and_metrics_come_from_the_lock(forge):
    """Not from params.yaml, which may have been edited since."""
    (forge.folder / "params.yaml").write_text("train: {seed: 99}\n")
    record = results.read(results.reader(forge.folder))
    assert record.params["train.seed"] == 0
    assert record.params["model.cnn.widths"] == [8, 16]
    assert record.metrics["test/accuracy"] == 0.9
    assert record.paths["train"]["history"] == "model/history.csv"
    assert record.outputs[record.paths["preprocess"]["out"]] == record.dataset_hash
    assert (record.ended - record.started).total_seconds() == 60


def test_content_is_what_the_inputs_decide(forge):
    """Another output or parameter is another content; what a clock says is not, nor where the data came from."""
    before = results.read(results.reader(forge.folder)).content
    (forge.folder / "metrics/runtime/export.json").write_text('{"export/ended": "2027-01-01T00:00:00+00:00"}')
    change(forge, lambda stages: _rehash(forge, stages, "export", "metrics/runtime/export.json"))
    change(forge, lambda stages: stages["train"]["params"]["params.yaml"].update({"data.archive": "elsewhere"}))
    assert results.read(results.reader(forge.folder)).content == before
    change(forge, lambda stages: stages["train"]["outs"][0].update(md5="0" * 32))
    other = results.read(results.reader(forge.folder)).content
    change(forge, lambda stages: stages["train"]["params"]["params.yaml"].update({"train.seed": 1}))
    assert len({before, other, results.read(results.reader(forge.folder)).content}) == 3


def _rehash(forge, stages, name, path):
    import hashlib

    (out,) = [out for out in stages[name]["outs"] if out["path"] == path]
    out["md5"] = hashlib.md5((forge.folder / path).read_bytes(), usedforsecurity=False).hexdigest()


def test_what_track_read_is_told_apart(forge):
    """Where runs go has no effect on results; and while track runs, its entry is of the time before."""
    tracking = {"enabled": True, "experiment": "other", "model": "m"}
    track = {
        "cmd": "python3 -m stages.track --params params.yaml",
        "deps": [{"path": "export/model.onnx", "hash": "md5", "md5": "of the time before"}],
        "params": {"params.yaml": {"tracking": tracking}},
    }
    change(forge, lambda stages: stages.update(track=track))
    record = results.read(results.reader(forge.folder))
    assert record.tracking == tracking
    assert not any(key.startswith("tracking") for key in record.params)


def test_results_are_complete_without_export(forge):
    """Searches and studies run no stage after evaluate."""
    whole = results.read(results.reader(forge.folder))
    change(forge, lambda stages: stages.pop("export"))
    record = results.read(results.reader(forge.folder))
    assert "export" in whole.paths
    assert "export" not in record.paths
    assert not [key for key in record.metrics if key.startswith("export/")]
    assert "export/onnx_bytes" in whole.headline
    assert record.headline == {key: value for key, value in whole.headline.items() if not key.startswith("export/")}
    assert record.content != whole.content


def ran_before(stages, **changes):
    """Give export and inspect the dependencies of this model, but for the changes of one."""
    (model,) = [out["md5"] for out in stages["train"]["outs"] if out["path"] == "model"]
    stages["evaluate"]["params"] = {"params.yaml": {"evaluate.batch_size": 1000}}
    inspect = {
        "cmd": "python3 -m stages.inspect --out results/inspection",
        "outs": [{"path": "results/inspection", "hash": "md5", "md5": "2" * 32 + ".dir"}],
        "params": {"params.yaml": {"evaluate.batch_size": changes.get("batch_size", 1000), "inspect.seed": 0}},
    }
    stages["inspect"] = inspect
    for name in ("export", "inspect"):
        stages[name]["deps"] = [{"path": "model", "hash": "md5", "md5": changes.get(name, model)}]


@pytest.mark.parametrize(
    ("changes", "dropped"),
    [
        ({}, set()),
        ({"export": "1" * 32}, {"export"}),
        ({"inspect": "1" * 32}, {"inspect"}),
        ({"batch_size": 500}, {"inspect"}),
        ({"export": "1" * 32, "inspect": "1" * 32}, {"export", "inspect"}),
    ],
)
def test_an_optional_stage_that_ran_on_something_else_is_left_out(forge, changes, dropped):
    """dvc.lock keeps its entry of a previous training; its outputs, metrics and parameters are not the result's."""
    change(forge, lambda stages: ran_before(stages, **changes))
    record = results.read(results.reader(forge.folder))
    assert {"export", "inspect"} - record.paths.keys() == dropped
    assert ("export/onnx_bytes" in record.metrics) == ("export" not in dropped)
    assert ("export/model.onnx" in record.outputs) == ("export" not in dropped)
    assert ("results/inspection" in record.outputs) == ("inspect" not in dropped)
    assert ("inspect.seed" in record.params) == ("inspect" not in dropped)
    assert record.params["evaluate.batch_size"] == 1000
    without = {name for name in ("export", "inspect") if name in dropped}
    change(forge, lambda stages: [stages.pop(name) for name in without])
    assert results.read(results.reader(forge.folder)).content == record.content


def test_results_that_do_not_belong_together_are_refused(forge):
    """A stage that ran on something else than is recorded, a metric changed by hand, a stage that never ran."""

    def other_model(stages):
        stages["evaluate"]["deps"] = [{"path": "model", "hash": "md5", "md5": "1" * 32}]

    for edit, message in (
        (other_model, "stage evaluate ran on another model than the recorded one"),
        (lambda stages: stages.pop("evaluate"), "stage evaluate has not run"),
        (
            lambda stages: stages["train"]["outs"].clear(),
            "another version of the pipeline made them",
        ),
    ):
        saved = (forge.folder / "dvc.lock").read_bytes()
        change(forge, edit)
        with pytest.raises(ResultsError, match=message):
            results.read(results.reader(forge.folder))
        (forge.folder / "dvc.lock").write_bytes(saved)
    (forge.folder / "metrics/evaluate.json").write_text('{"test/accuracy": 0.99}')
    with pytest.raises(ResultsError, match=r"metrics/evaluate.json is not the file that dvc.lock recorded"):
        results.read(results.reader(forge.folder))
    (forge.folder / "dvc.lock").write_text("stages: [")
    with pytest.raises(ResultsError, match=r"dvc.lock is damaged"):
        results.read(results.reader(forge.folder))
    (forge.folder / "dvc.lock").unlink()
    with pytest.raises(ResultsError, match=r"expected dvc.lock, found none"):
        results.read(results.reader(forge.folder))
