"""The curves of a training while it runs, told to MLflow by a process beside it.

MLflow takes seconds to import and to connect. In a thread these would be taken from the training, which holds the
same interpreter; a process of its own has them done beside the stage's imports.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.tracking import runs, store

REPOSITORY = Path(__file__).resolve().parents[2]

WAIT_SECONDS = 30
"""How long train waits at its end for requests still under way."""


class LiveRun:
    """Sends each epoch's metrics as it ends; training neither waits for MLflow nor fails with it.

    Whatever goes wrong is one warning, and `runs.publish` completes the run later. A training that is killed, with
    whatever signal, leaves a run that says so: the process sees that nobody writes to it any more.
    """

    def __init__(self, root: Path, experiment: str) -> None:
        self.process = subprocess.Popen(  # noqa: S603  # our own command
            [sys.executable, "-m", "pipeline.tracking.live", str(root), experiment],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C and a killed process group are for the training; this one tells of them
        )

    @contextmanager
    def opened(self, training: str, arch: str) -> Iterator[Callable[[Mapping[str, float]], None]]:
        """Open the run of a training; yields what takes an epoch: "epoch" (from 1) and its metrics."""
        relay = threading.Thread(target=self._relay, daemon=True)
        relay.start()
        self._tell({"training": training, "arch": arch})
        status = "FAILED"
        try:
            yield self._tell
            status = "RUNNING"  # publish ends a run whose training succeeded
        finally:
            self._tell({"status": status})
            self._end()
            relay.join()

    def _tell(self, message: Mapping[str, Any]) -> None:
        assert self.process.stdin
        with suppress(BrokenPipeError):  # it has ended, and has said why
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()

    def _relay(self) -> None:
        """Print what the process says through this one, whose progress bar stays whole."""
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
    """Do what `LiveRun` says on stdin: a line of JSON that opens the run, one for each epoch, one that ends it."""
    store.lose_patience()  # a server that is away is to cost training nothing
    try:
        store.load()
        messages = _received()
        if (first := next(messages, None)) is not None:
            _send(root, experiment, first["training"], first["arch"], messages)
    except Exception as error:  # a store may fail in any way; training must survive all of them
        print(
            f"warning: MLflow: {store.short(error)}; training goes on, the track stage completes the run",
            file=sys.stderr,
        )


def _send(root: Path, experiment: str, training: str, arch: str, messages: Iterator[Mapping[str, Any]]) -> None:
    client, experiment_id = store.experiment(root, experiment)
    owner = runs.Owner.of_this_process()
    known = runs.of_training(client, experiment_id, training, owner)
    if any(runs.is_complete(run) for run in known):
        return  # trained before, to the same bytes: its run has these curves already
    run = known[0] if known else runs.create(client, experiment_id, training, arch, owner)
    client.update_run(run.info.run_id, status="RUNNING")
    status = "KILLED"  # unless the training says how it ended
    for message in messages:
        if "status" in message:
            status = message["status"]
        else:
            runs.log_history(client, run, [message])
    client.update_run(run.info.run_id, status=status)


def _received() -> Iterator[dict[str, Any]]:
    """Yield messages until nobody can send any more; a thread reads them, so that no sender ever waits."""
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
    os._exit(0)  # with MLflow in it, an interpreter's orderly end takes a second, which the training would wait for
