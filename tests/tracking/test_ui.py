"""What `python -m pipeline ui` writes to the store; tests/tracking/test_browser.py looks at the page."""

import json
import re

import mlflow

from pipeline.tracking import ui


def test_the_table_is_kept_in_the_store(tmp_path, empty_store):
    """As MLflow reads it: columns, filter and order under the key in the address."""
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    address = ui.prepare(tmp_path, "cifar10")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("cifar10")
    key = re.search(r"viewStateShareKey=(\w+)", address)[1]
    state = json.loads(experiment.tags[f"mlflow.sharedViewState.{key}"])
    assert address.startswith(f"/#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning")
    assert state["selectedColumns"][0] == state["orderByKey"] == "metrics.`val/accuracy`"
