"""The curves of a training while it runs."""

import queue
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from pipeline.tracking import runs, store

WAIT_SECONDS = 30
"""How long train waits at its end for requests still under way."""


class LiveRun:
    """Sends each epoch's metrics as it ends, from a thread of its own: training never waits for MLflow.

    Nor does it fail with it. Whatever goes wrong is one warning, and `runs.publish` completes the run later.
    """

    def __init__(self, root: Path, experiment: str, training: str, arch: str) -> None:
        self.rows: queue.Queue[Mapping[str, float] | None] = queue.Queue()
        self.status = "FAILED"
        store.lose_patience()  # a server that is away is to cost training nothing
        self.thread = threading.Thread(target=self._send_all, args=(root, experiment, training, arch), daemon=True)
        self.thread.start()

    def log(self, row: Mapping[str, float]) -> None:
        """Hand over one epoch: "epoch" (from 1) and its metrics."""
        self.rows.put(row)

    def __enter__(self) -> "LiveRun":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.status = "RUNNING" if kind is None else "FAILED"  # publish ends a run whose training succeeded
        self.rows.put(None)
        self.thread.join(WAIT_SECONDS)

    def _send_all(self, root: Path, experiment: str, training: str, arch: str) -> None:
        try:
            client, experiment_id = store.experiment(root, experiment)
            owner = runs.Owner.of_this_process()
            known = runs.of_training(client, experiment_id, training, owner)
            if any(run.data.tags.get(runs.COMPLETE_TAG) == "true" for run in known):
                return  # trained before, to the same bytes: its run has these curves already
            run = known[0] if known else runs.create(client, experiment_id, training, arch, owner)
            client.update_run(run.info.run_id, status="RUNNING")
            while (row := self.rows.get()) is not None:
                runs.log_history(client, run, [row])
            client.update_run(run.info.run_id, status=self.status)
        except Exception as error:  # a store may fail in any way; training must survive all of them
            print(
                f"warning: MLflow: {store.short(error)}; training goes on, the track stage completes the run",
                file=sys.stderr,
                flush=True,
            )
