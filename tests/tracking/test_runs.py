"""Results published to MLflow: told twice, late or in parts, none is lost and none is there double."""

import mlflow
import pytest

from pipeline.errors import TrackingError
from pipeline.tracking import runs, store
from pipeline.tracking.owner import Owner
from tests.conftest import start_python
from tests.tracked import all_runs, curve

pytestmark = pytest.mark.e2e


def test_publishing_twice_adds_nothing(tmp_path, publish):
    """One run, one version of the model, no point of a curve repeated."""
    first = publish()
    before = all_runs(tmp_path)[0].to_dictionary()
    second = publish()
    assert (first.existed, second.existed) == (False, True)
    assert (first.run_id, first.model_version) == (second.run_id, second.model_version)
    (run,) = all_runs(tmp_path)
    assert run.to_dictionary() == before
    client = mlflow.MlflowClient(store.uri(tmp_path))
    assert len(client.search_model_versions("name = 'cifar10-cnn'")) == 1
    assert client.get_model_version("cifar10-cnn", "1").description == "# A card"
    assert curve(tmp_path, run.info.run_id, "val/accuracy") == [(1, 0.3), (2, 0.4)]


def test_a_run_shows_what_inspect_found(tmp_path, publish, record):
    """Its numbers as metrics, its tables and figures beside the others; results without that stage lack nothing."""
    without = publish()
    (tmp_path / "inspection/figures").mkdir(parents=True)
    for name in ("shifts.csv", "figures/shifts.png"):
        (tmp_path / "inspection" / name).write_text("content")
    paths = {**record.paths, "inspect": {"out": "inspection", "metrics": "inspect.json"}}
    metrics = {**record.metrics, "test/shift_consistency": 0.75}
    published = publish(paths=paths, metrics=metrics, content="c" * 64)
    client = mlflow.MlflowClient(store.uri(tmp_path))
    before, after = (client.get_run(done.run_id) for done in (without, published))
    shown, drawn = (
        {file.path for file in client.list_artifacts(after.info.run_id, folder)}
        for folder in ("inspection", "inspection/figures")
    )
    assert shown == {"inspection/shifts.csv", "inspection/figures"}
    assert drawn == {"inspection/figures/shifts.png"}
    assert after.data.metrics["test/shift_consistency"] == 0.75
    assert runs.MISSING_TAG not in before.data.tags
    assert not client.list_artifacts(before.info.run_id, "inspection")


def test_a_run_tells_when_its_results_were_made(tmp_path, publish, record):
    """Not when they were published: a rebuilt store is in the order of the work."""
    publish()
    (run,) = all_runs(tmp_path)
    assert run.info.start_time == record.started.timestamp() * 1000
    assert run.info.end_time == record.ended.timestamp() * 1000
    assert run.data.tags["dataset"] == "shapes10"
    assert run.data.params["model.cnn.widths"] == "[8, 16]"


def test_experiments_with_equal_results_have_a_run_each(tmp_path, publish):
    """A name given by the user is never lost; results without one need no run beside those that show the same."""
    for name, baseline in (("one", "c" * 40), ("two", "c" * 40), ("one", "c" * 40), ("one", "d" * 40)):
        publish(Owner(name, baseline))
    assert publish().existed
    found = [(run.info.run_name, run.data.tags["DVC_EXP_BASELINE_REV"][0]) for run in all_runs(tmp_path)]
    assert sorted(found) == [("one", "c"), ("one", "d"), ("two", "c")]


def test_other_results_under_an_old_name_have_a_run_of_their_own(tmp_path, publish):
    """`dvc exp run --force -n one` replaces the experiment, not its history."""
    first, second = publish(Owner("one", "c" * 40)), publish(Owner("one", "c" * 40), content="e" * 64)
    assert first.run_id != second.run_id
    assert {run.data.tags["content_sha256"][0] for run in all_runs(tmp_path)} == {"b", "e"}


def test_what_is_missing_is_named_and_added_when_it_is_there(tmp_path, publish):
    """A model that neither cache nor remote has leaves a run that says so, until it turns up."""
    graph = (tmp_path / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").unlink()
    first = publish()
    assert first.model_version == ""
    assert all_runs(tmp_path)[0].data.tags["missing"] == "model.onnx"
    (tmp_path / "model.onnx").write_bytes(graph)
    second = publish()
    assert (second.run_id, second.model_version) == (first.run_id, "1")
    assert "missing" not in all_runs(tmp_path)[0].data.tags


def test_many_first_starts_at_once_make_one_store(tmp_path, environment):
    """Processes that find no store race to make it; the lock lets one of them."""
    code = (
        "from pathlib import Path; from pipeline.tracking import store;"
        f"print(store.experiment(Path({str(tmp_path)!r}), 'cifar10')[1])"
    )
    started = [start_python(code, environment=environment) for _ in range(4)]
    outputs = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0] * 4, outputs
    assert len({output.strip() for output, _ in outputs}) == 1


def test_a_store_that_cannot_be_reached_is_one_line(publish, monkeypatch):
    """What is missing, and that nothing is lost."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackingError, match=r"MLflow store http://127.0.0.1:9: .*run python -m pipeline sync"):
        publish()
