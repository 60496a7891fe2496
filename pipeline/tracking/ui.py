"""MLflow's UI, opened at the runs table of this project: one row a configuration, headline columns, best first."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import webbrowser
from pathlib import Path

from pipeline.errors import TrackingError
from pipeline.tracking import groups, store

COLUMNS = (
    "val/accuracy",
    "val/accuracy_sd",
    "n",
    "test/accuracy",
    "test/accuracy_sd",
    "test/corruption_accuracy",
    "model/parameters",
    "model/macs",
    "train/seconds",
    "export/latency_ms",
)
"""Metrics of the table, which is sorted by the first."""

HOST = "runs.localhost"
"""Name of 127.0.0.1 (RFC 6761) at which MLflow's assistant does not cover a third of the page, as at the address."""

NAME = "attributes.`Run Name`"
VIEW = "headline"
"""Key of the table's columns, filter and order, which MLflow keeps in a tag of the experiment."""

START_SECONDS, STOP_SECONDS = 120, 10


def prepare(root: Path, experiment: str) -> str:
    """Write columns, filter and order of the table to the MLflow experiment, which is created if it does not exist.

    Returns:
        The path and query of the table's address.

    Raises:
        TrackingError: the store cannot be reached.
    """
    with store.errors(root):
        client, number = store.experiment(root, experiment)
        columns = [f"metrics.`{name}`" for name in COLUMNS]
        state = {
            "selectedColumns": columns,
            "columnOrder": [NAME, "attributes.`Created`", *columns],
            "columnWidths": {NAME: 260, **dict.fromkeys(columns, 110), "metrics.`n`": 50},
            "searchFilter": f"tags.{groups.KIND_TAG} = '{groups.KIND}'",
            "orderByKey": f"metrics.`{COLUMNS[0]}`",
            "orderByAsc": False,
        }
        client.set_experiment_tag(number, f"mlflow.sharedViewState.{VIEW}", json.dumps(state))
    return f"/#/experiments/{number}/runs?workflowType=machine_learning&viewStateShareKey={VIEW}"


def serve(root: Path, experiment: str, port: int, *, browse: bool) -> None:
    """Serve MLflow's UI on 127.0.0.1 until Ctrl-C, and print the address of the runs table.

    With `MLFLOW_TRACKING_URI` set to a server, only the address on that server is printed.

    Args:
        browse: open the address in a browser.

    Raises:
        TrackingError: the store cannot be reached, or the server does not start.
    """
    address = prepare(root, experiment)
    backend = store.uri(root)
    if backend.startswith(("http://", "https://")):
        print(f"{backend.rstrip('/')}{address}")
        return
    hosts = [f"{name}:{port}" for name in (HOST, "127.0.0.1", "localhost")]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", backend, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1", "--allowed-hosts", ",".join(hosts)]
    command += ["--cors-allowed-origins", ",".join(f"http://{host}" for host in hosts)]
    url = f"http://127.0.0.1:{port}"
    print(f"starting MLflow on {url}; Ctrl-C ends it", flush=True)
    with subprocess.Popen(  # noqa: S603  # our own command
        command, env=store.SETTINGS | os.environ, stderr=subprocess.DEVNULL, start_new_session=True
    ) as server:
        threading.Thread(target=_announce, args=(server, url, address, browse), daemon=True).start()
        try:
            code = server.wait()
        except KeyboardInterrupt:
            _end(server)
            return
    if code:
        raise TrackingError(f"mlflow server ended with exit code {code}; is port {port} in use? --port takes another")


def _end(server: "subprocess.Popen[bytes]") -> None:
    """End MLflow's processes, those that do not end when asked to by force: it keeps nothing but the store."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(STOP_SECONDS)


def _announce(server: "subprocess.Popen[bytes]", url: str, address: str, browse: bool) -> None:
    """Print the address as soon as the server answers."""
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=1):  # noqa: S310  # our own address
                break
        except OSError:
            time.sleep(0.2)
    else:
        return
    page = url.replace("127.0.0.1", HOST) + address
    print(f"compare configurations: {page}", flush=True)
    if browse:
        webbrowser.open(page)
