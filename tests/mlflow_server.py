"""A real MLflow server on a port of this machine, to be started and killed."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Server:
    """`mlflow server` or `mlflow ui`, with its log in a folder.

    Args:
        command: MLflow's, with the options that say where its store is.
    """

    def __init__(self, folder: Path, environment: dict[str, str], *command: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder, self.environment, self.command = folder, environment, command
        self.url = f"http://127.0.0.1:{self.port}"
        folder.mkdir()

    @contextmanager
    def running(self) -> Iterator["Server"]:
        """Start it; afterwards it is gone."""
        try:
            self.start()
            yield self
        finally:
            if self.process.poll() is None:
                self.kill()

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", *self.command]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=1):  # noqa: S310  # our own address
                    return
            except OSError:
                time.sleep(0.2)
        raise AssertionError((self.folder / "log").read_text())

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
