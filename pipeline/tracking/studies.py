"""The parent run of a search or study; the runs of its experiments are the children."""

import math
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.experiments.repository import Repository
from pipeline.experiments.results import text_of
from pipeline.tracking import groups, runs, store, sync
from pipeline.tracking.owner import EXPERIMENT_TAG

if TYPE_CHECKING:
    from mlflow.entities import Run

STUDY_TAG = "study"
PRUNED_TAG = "pruned"
VERDICT_TAG = "verdict"


class StudyRun:
    """The parent run of a search or study, with its space and outcome.

    Later errors of the store only give a warning: the experiments' results are in git.
    """

    def __init__(self, root: Path, settings: Mapping[str, str], name: str, run_id: str | None) -> None:
        """Reopen the run of an earlier start, or create one.

        Args:
            root: the repository.
            settings: "experiment" and "model" of params.yaml's `tracking`.
            name: of the search or study.
            run_id: of the earlier start.

        Raises:
            TrackingError: the store cannot be reached.
        """
        self.root, self.settings, self.lock = root, settings, threading.Lock()
        with store.errors(root):
            self.client, self.experiment = store.experiment(root, settings["experiment"])
            self.run_id = run_id if run_id and self._exists(run_id) else self._new(name)
            self.client.update_run(self.run_id, status="RUNNING")

    def describe(self, space: Mapping[str, Any]) -> None:
        """Log the search space as parameters, one for each parameter of the space."""
        from mlflow.entities import Param

        described = [Param(f"space.{key}", text_of(spec)) for key, spec in space.items()]
        self._try(lambda: self.client.log_batch(self.run_id, params=described))

    def complete(self, experiment: str) -> None:
        """Publish the results of a DVC experiment, which ran no track stage, as a child of this one."""
        self._try(lambda: self._complete(experiment))

    def adopt(self, experiment: str) -> None:
        """Make the runs of a DVC experiment children of this one."""
        self._try(lambda: self._adopt(experiment))

    def prune(self, experiment: str, reason: str) -> None:
        """Make the run of a pruned trial a child of this one and end it as killed."""
        self._try(lambda: self._prune(experiment, reason))

    def best(self, experiment: str, value: float, values: Mapping[str, Any], trials: int) -> None:
        """Log the best experiment of the first `trials` trials, its val/accuracy and its parameters."""
        self._try(lambda: self._best(experiment, value, values, trials))

    def conclude(self, verdict: str, quantities: Mapping[str, float]) -> None:
        """Log the verdict of a study and its quantities, without missing values."""
        self._try(lambda: self._conclude(verdict, quantities))

    def end(self, status: str) -> None:
        """Set the status: "FINISHED", "FAILED", or "KILLED" if it can be continued."""
        self._try(lambda: self.client.set_terminated(self.run_id, status))

    def _try(self, action: Callable[[], object]) -> None:
        try:
            with self.lock:
                action()
        except Exception as error:  # experiments must survive any error of a store
            print(f"warning: MLflow: {store.short(error)}; the experiments continue", file=sys.stderr, flush=True)

    def _exists(self, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            return bool(self.client.get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException:  # another store than at the earlier start
            return False

    def _new(self, name: str) -> str:
        tags = {STUDY_TAG: name, "mlflow.source.name": "dvc.yaml"}
        return str(self.client.create_run(self.experiment, tags=tags, run_name=name).info.run_id)

    def _of(self, experiment: str) -> list["Run"]:
        return runs.search(self.client, self.experiment, f"tags.{EXPERIMENT_TAG} = '{experiment}'")

    def _complete(self, experiment: str) -> None:
        with Repository(self.root) as repository:
            for change in sync.plan(repository, self.settings, [experiment]).changes:
                sync.apply(repository, self.settings, change)
        self._adopt(experiment)

    def _adopt(self, experiment: str) -> None:
        for run in self._of(experiment):
            groups.adopt(self.client, run, self.run_id)

    def _prune(self, experiment: str, reason: str) -> None:
        self._adopt(experiment)
        for run in self._of(experiment):
            if run.info.status != "FINISHED":
                self.client.set_tag(run.info.run_id, PRUNED_TAG, reason)
                self.client.set_terminated(run.info.run_id, "KILLED")

    def _best(self, experiment: str, value: float, values: Mapping[str, Any], trials: int) -> None:
        from mlflow.entities import Metric, RunTag

        tags = {"best.experiment": experiment, **{f"best.{key}": text_of(found) for key, found in values.items()}}
        metrics = [Metric("best/val/accuracy", value, int(time.time() * 1000), trials)]
        self.client.log_batch(self.run_id, metrics, tags=[RunTag(key, text) for key, text in tags.items()])

    def _conclude(self, verdict: str, quantities: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(key, value, now, 0) for key, value in quantities.items() if not math.isnan(value)]
        self.client.log_batch(self.run_id, metrics=metrics)
        self.client.set_tag(self.run_id, VERDICT_TAG, verdict)
