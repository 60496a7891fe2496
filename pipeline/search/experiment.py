"""An experiment run by DVC in the background: `dvc exp run --temp` with all the processes that it starts."""

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

POLL_SECONDS = 0.2
GRACE_SECONDS = 60
"""How long processes that are asked to end may take: train waits up to 30 s for MLflow."""


class Experiment:
    """One named experiment: its process, its log and its training's report.

    The log is a lock, too: all its processes hold it, as their stdout, so it is known of an experiment whether it
    is still running, even if who started it was killed.
    """

    def __init__(self, root: Path, folder: Path, name: str, values: Mapping[str, Any]) -> None:
        """Describe an experiment; nothing runs yet.

        Args:
            root: the repository.
            folder: for the log and the report.
            values: parameters that differ from params.yaml.
        """
        self.root, self.folder, self.name = root, folder, name
        self.log = folder / f"{name}.log"
        changes = [f"--set-param={key}={json.dumps(value)}" for key, value in values.items()]
        self.command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", "--name", name, *changes]
        self.report = epoch_reports.Reader(epoch_reports.path(folder, name))
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = 0

    def held(self) -> bool:
        """Tell whether processes of an earlier start are still running."""
        with self.log.open("ab") as log:
            return not _lock(log.fileno())

    def start(self, *, threads: int | None) -> None:
        """Start DVC; what earlier starts have reported is deleted, what they logged is kept.

        Args:
            threads: processor threads for each process; None: as many as there are.
        """
        self.report = epoch_reports.Reader(epoch_reports.path(self.folder, self.name))
        self.report.file.unlink(missing_ok=True)
        environment = os.environ | {"PYTHONUNBUFFERED": "1", epoch_reports.FOLDER_VARIABLE: str(self.folder)}
        environment["PATH"] = search_path()
        if threads:
            environment.setdefault("OMP_NUM_THREADS", str(threads))
        with self.log.open("ab") as log:
            while not _lock(log.fileno()):  # processes that were killed take a moment to vanish
                time.sleep(POLL_SECONDS)
            self.started_at = log.tell()
            self.process = subprocess.Popen(  # noqa: S603  # our own command
                self.command,
                cwd=self.root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for who started it, which then ends its experiments in order
            )

    def running(self) -> bool:
        """Tell whether the process that `start` started has not ended."""
        return self.process is not None and self.process.poll() is None

    def launched(self) -> bool:
        """Tell whether DVC has taken this experiment from its stash and begun with the stages."""
        return f"Reproducing experiment '{self.name}'" in self.output()

    def output(self) -> str:
        """Return what was logged since the last start."""
        return self.log.read_bytes()[self.started_at :].decode(errors="replace")

    def reason(self) -> str:
        """Say in one line why the experiment failed."""
        lines = [line.strip() for line in self.output().splitlines()]
        said = [line for line in lines if line.startswith(("error:", "ERROR:"))] or [line for line in lines if line]
        first = said[0] if said else "it said nothing"
        return f"{first.removeprefix('error:').removeprefix('ERROR:').strip()} ({self.log})"

    def interrupt(self, hurry: threading.Event) -> None:
        """End all its processes, as Ctrl-C would, and remove what they leave; `hurry` kills them at once."""
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
        """Remove the temporary folders in which this experiment ran and that DVC had no time to remove."""
        folder = self.root / ".dvc/tmp/exps"
        for file in (*folder.glob("run/*/*.run"), *folder.glob("standalone/run/*/*.run")):
            try:
                info = files.read_json(file)
            except (OSError, ValueError):  # another experiment's, being written at this moment
                continue
            workspace = Path(info.get("root_dir", ""))
            if info.get("name") == self.name and workspace.is_relative_to(folder):
                shutil.rmtree(workspace, ignore_errors=True)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
