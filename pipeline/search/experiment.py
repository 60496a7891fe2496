"""A background experiment: `dvc exp run --temp` with all its child processes."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.experiments import epoch_reports
from pipeline.experiments.repository import search_path

LAST_STAGE = "evaluate"
"""The last stage of an experiment of a search or study: `dvc exp apply` and `dvc repro` add the others."""

POLL_SECONDS = 0.2
GRACE_SECONDS = 60
"""Time that interrupted processes have to end: train waits up to 30 s for MLflow."""


class Experiment:
    """One named experiment: its process, its log and the report of its training.

    The log is also a lock, which all its processes hold as their stdout: it shows whether the experiment is still
    running, even if the process that started it was killed.
    """

    def __init__(self, root: Path, folder: Path, name: str, values: Mapping[str, Any]) -> None:
        """Prepare an experiment without starting it.

        Args:
            root: the repository.
            folder: for the log and the report.
            values: parameters that differ from params.yaml.
        """
        self.root, self.folder, self.name = root, folder, name
        self.log = folder / f"{name}.log"
        self.command = [*exp_run("--temp", name, values), LAST_STAGE]
        self.report = epoch_reports.Reader(epoch_reports.path(folder, name))
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = 0

    def held(self) -> bool:
        """Return whether processes of an earlier start are still running."""
        with self.log.open("ab") as log:
            return not _lock(log.fileno())

    def start(self, *, threads: int | None) -> None:
        """Start DVC; the report of earlier starts is deleted, their log is kept.

        Args:
            threads: CPU threads of each process; None means all.
        """
        self.report = epoch_reports.Reader(epoch_reports.path(self.folder, self.name))
        self.report.file.unlink(missing_ok=True)
        environment = os.environ | {"PYTHONUNBUFFERED": "1", epoch_reports.FOLDER_VARIABLE: str(self.folder)}
        environment["PATH"] = search_path()
        if threads:
            environment.setdefault("OMP_NUM_THREADS", str(threads))
        with self.log.open("ab") as log:
            while not _lock(log.fileno()):  # killed processes take a moment to end
                time.sleep(POLL_SECONDS)
            self.started_at = log.tell()
            self.process = subprocess.Popen(  # noqa: S603  # our own command
                self.command,
                cwd=self.root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C goes to the launcher, which then interrupts its experiments
            )

    def running(self) -> bool:
        """Return whether the process of `start` is running."""
        return self.process is not None and self.process.poll() is None

    def launched(self) -> bool:
        """Return whether DVC has taken this experiment from its stash and started the stages."""
        return f"Reproducing experiment '{self.name}'" in self.output()

    def output(self) -> str:
        """Return the log since the last start."""
        return self.log.read_bytes()[self.started_at :].decode(errors="replace")

    def reason(self) -> str:
        """Return why the experiment failed, in one line."""
        lines = [line.strip() for line in self.output().splitlines()]
        errors = [line for line in lines if line.startswith(("error:", "ERROR:"))]
        first = next(iter([*errors, *filter(None, lines)]), "no output")
        return f"{first.removeprefix('error:').removeprefix('ERROR:').strip()} ({self.log})"

    def interrupt(self, hurry: threading.Event) -> None:
        """Interrupt all its processes, like Ctrl-C, and remove their workspaces; `hurry` kills them immediately."""
        assert self.process
        deadline = time.monotonic() + GRACE_SECONDS
        if self.running():
            os.killpg(self.process.pid, signal.SIGINT)
        while self.running() and time.monotonic() < deadline and not hurry.is_set():
            time.sleep(POLL_SECONDS)
        if self.running():
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.remove_workspaces()

    def remove_workspaces(self) -> None:
        """Remove the temporary workspaces of this experiment that DVC did not remove."""
        folder = self.root / ".dvc/tmp/exps"
        for file in (*folder.glob("run/*/*.run"), *folder.glob("standalone/run/*/*.run")):
            try:
                info = files.read_json(file)
            except (OSError, ValueError):  # of another experiment, while it is written
                continue
            workspace = Path(info.get("root_dir", ""))
            if info.get("name") == self.name and workspace.is_relative_to(folder):
                shutil.rmtree(workspace, ignore_errors=True)


def exp_run(mode: str, name: str, values: Mapping[str, Any]) -> list[str]:
    """Return the command that runs ("--temp") or queues ("--queue") an experiment with changed parameters."""
    changes = [f"--set-param={key}={json.dumps(value)}" for key, value in values.items()]
    return [sys.executable, "-m", "dvc", "exp", "run", mode, "--name", name, *changes]


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
