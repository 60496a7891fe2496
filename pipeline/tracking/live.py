"""Live training curves: a separate process logs each epoch to MLflow.

MLflow takes seconds to import and to connect. In a thread this would delay the training, as both share the
interpreter; a process does it in parallel with the imports of the stage.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from pipeline.tracking import runs, store
from pipeline.tracking.owner import Owner

REPOSITORY = Path(__file__).resolve().parents[2]

WAIT_SECONDS = 30
"""Time that train waits at its end for pending requests."""


class LiveRun:
    """Logs the metrics of each epoch; training neither waits for MLflow nor fails with it.

    An MLflow error gives one warning, and `publication.publish` completes the run later. The run of a killed training,
    with whatever signal, gets the status KILLED, as the process then reads the end of its input.
    """

    def __init__(self, root: Path, experiment: str, *, system_metrics: bool = False) -> None:
        """Start the process; `system_metrics`: log the machine's CPU, GPU and memory use, too."""
        self.system_metrics = system_metrics
        self.process = subprocess.Popen(  # noqa: S603  # our own command
            [sys.executable, "-m", "pipeline.tracking.live", str(root), experiment],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # not interrupted with the training, whose end it logs
        )

    @contextmanager
    def opened(self, training: str, arch: str) -> Iterator[Callable[[Mapping[str, float]], None]]:
        """Open the run of a training; yield the function that logs an epoch: "epoch" (from 1) and its metrics."""
        relay = threading.Thread(target=self._relay, daemon=True)
        relay.start()
        self._send_message({"training": training, "arch": arch, "system_metrics": self.system_metrics})
        status = "FAILED"
        try:
            yield self._send_message
            status = "RUNNING"  # `publication.publish` ends the run of a successful training
        finally:
            self._send_message({"status": status})
            self._end()
            relay.join()

    def _send_message(self, message: Mapping[str, Any]) -> None:
        assert self.process.stdin
        with suppress(BrokenPipeError):  # the process has ended and printed the reason
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()

    def _relay(self) -> None:
        """Print the output of the process from this one, which keeps the progress bar intact."""
        assert self.process.stderr
        with self.process.stderr as lines:
            for line in lines:
                print(line, end="", file=sys.stderr, flush=True)

    def _end(self) -> None:
        assert self.process.stdin
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def main(root: Path, experiment: str) -> None:
    """Log the messages of `LiveRun` on stdin: JSON lines that open the run, add an epoch, end the run."""
    store.limit_waiting()  # an unreachable server must not delay the training
    try:
        store.load()
        messages = _received()
        if (first := next(messages, None)) is not None:
            _send(root, experiment, first, messages)
    except Exception as error:  # training must survive any error of a store
        print(
            f"warning: MLflow: {store.short(error)}; training continues, the track stage completes the run",
            file=sys.stderr,
        )


def _send(root: Path, experiment: str, first: Mapping[str, Any], messages: Iterator[Mapping[str, Any]]) -> None:
    training = first["training"]
    client, experiment_id = store.experiment(root, experiment)
    owner = Owner.of_this_process()
    known = runs.of_training(client, experiment_id, training, owner)
    if any(runs.is_complete(run) for run in known):
        return  # an identical training is complete: its run has these curves
    run = known[0] if known else runs.create(client, experiment_id, training, first["arch"], owner)
    client.update_run(run.info.run_id, status="RUNNING")
    status = "KILLED"  # unless the training reports how it ended
    with _system_metrics(run.info.run_id) if first["system_metrics"] else nullcontext():
        for message in messages:
            if "status" in message:
                status = message["status"]
            else:
                runs.log_history(client, run, [message])
    client.update_run(run.info.run_id, status=status)


@contextmanager
def _system_metrics(run_id: str) -> Iterator[None]:
    """Log the machine's CPU, GPU and memory use while the block runs."""
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(run_id)  # type: ignore[no-untyped-call]
    monitor.start()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        monitor.finish()  # type: ignore[no-untyped-call]


def _received() -> Iterator[dict[str, Any]]:
    """Yield messages until the end of stdin; a thread reads them, so that the sender never blocks."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    return map(json.loads, iter(lines.get, ""))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
    sys.stderr.flush()
    os._exit(0)  # with MLflow loaded, a regular exit takes a second, for which the training would wait
