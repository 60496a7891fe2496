"""Requests per second and latency of `python -m pipeline serve`, and of `mlflow models serve` on the same network.

Clients are threads of this process that send random images as arrays, each over one connection, one request after the
other. They share the processors with the service, as does ONNX Runtime called in this process, the upper bound.
"""

import contextlib
import http.client
import io
import json as json_module
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import inputs, measuring
from benchmarks.measuring import BenchmarkError
from pipeline import stage
from pipeline.experiments.repository import search_path
from pipeline.serving.prediction import Classifier, load

SIZES, CLIENTS = (1, 32, 256), (1, 8, 64)
BAD = b"not an image"
START_SECONDS = 120

Body = tuple[bytes, dict[str, str]]
"""Of a request: content and headers."""


@dataclass
class Outcome:
    """What clients saw.

    Attributes:
        latencies: of each request, in seconds.
        statuses: how many answers had each HTTP status; 0: none came.
    """

    latencies: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    seconds: float = 0.0


def main(
    model: Annotated[Path, typer.Option(help="ONNX file of the export stage.")] = Path("export/model.onnx"),
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of each measurement.")] = 5,
    peer: Annotated[bool, typer.Option("--peer", help="Measure mlflow models serve, too.")] = False,
    soak: Annotated[int, typer.Option(min=0, help="Requests of a soak test, every tenth one a bad one.")] = 0,
    json: inputs.JsonOption = None,
) -> None:
    classifier = load(str(model), Path())
    results: dict[str, Any] = {"in_process_images_per_second": {}}
    for size in SIZES:
        rate = in_process(classifier, size, seconds)
        results["in_process_images_per_second"][size] = round(rate, 1)
    with ours(model) as (port, process):
        results["ours"] = measure("/predict", port, npy_body, classifier, seconds)
        if soak:
            results["soak"] = soaked(port, process, classifier, soak)
    if peer:
        with mlflows(model) as port:
            results["mlflow"] = measure("/invocations", port, json_body, classifier, seconds)
    show(results)
    measuring.report(results, torch.device("cpu"), json)


def in_process(classifier: Classifier, size: int, seconds: float) -> float:
    """Return images per second of ONNX Runtime called directly."""
    images, calls, started = pictures(classifier, size), 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        classifier(images)
        calls += 1
    return calls * size / (time.perf_counter() - started)


def measure(
    path: str, port: int, body: Callable[[Any], Body], classifier: Classifier, seconds: float
) -> list[dict[str, Any]]:
    """Return a row for each number of images in a request and of clients."""
    rows = []
    cases = [(size, clients) for size in SIZES for clients in CLIENTS]
    with measuring.bar(f"port {port}, {path}", len(cases)) as advance:
        for size, clients in cases:
            content = body(pictures(classifier, size))
            ask(path, port, [content], clients, seconds=min(1, seconds))  # warm-up
            found = ask(path, port, [content], clients, seconds=seconds)
            answered = found.statuses.get(200, 0)
            if not answered:
                raise BenchmarkError(f"expected status 200, found {found.statuses}")
            per_second = answered / found.seconds
            rows.append(
                {
                    "images": size,
                    "clients": clients,
                    "requests_per_second": round(per_second, 1),
                    "images_per_second": round(per_second * size, 1),
                    "p50_ms": round(1e3 * statistics.median(found.latencies), 2),
                    "p99_ms": round(1e3 * float(np.quantile(found.latencies, 0.99)), 2),
                    "failed": sum(found.statuses.values()) - answered,
                }
            )
            advance()
    return rows


def soaked(port: int, process: subprocess.Popen[str], classifier: Classifier, requests: int) -> dict[str, Any]:
    """Return statuses and memory of many requests of eight clients, every tenth of which is no image."""
    good, bad = npy_body(pictures(classifier, 1)), (BAD, {"Content-Type": "image/png"})
    service = psutil.Process(process.pid)
    ask("/predict", port, [good] * 9 + [bad], 8, requests=requests // 10)
    before = service.memory_info().rss
    found = ask("/predict", port, [good] * 9 + [bad], 8, requests=requests)
    return {
        "requests": sum(found.statuses.values()),
        "statuses": found.statuses,
        "seconds": round(found.seconds, 1),
        "memory_before_mib": round(before / 2**20, 1),
        "memory_after_mib": round(service.memory_info().rss / 2**20, 1),
    }


def ask(
    path: str, port: int, bodies: list[Body], clients: int, *, seconds: float = 1e9, requests: int = 2**31
) -> Outcome:
    """Let clients send requests in turn, until the time is over or so many are sent."""
    outcome, lock, sent = Outcome(), threading.Lock(), iter(range(requests))
    started = time.perf_counter()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        own: list[tuple[int, float]] = []
        while time.perf_counter() - started < seconds:
            with lock:
                number = next(sent, None)
            if number is None:
                break
            begun, status = time.perf_counter(), 0
            with contextlib.suppress(OSError, http.client.HTTPException):
                content, headers = bodies[number % len(bodies)]
                connection.request("POST", path, content, headers)
                response = connection.getresponse()
                response.read()
                status = response.status
            own.append((status, time.perf_counter() - begun))
        connection.close()
        with lock:
            for status, latency in own:
                outcome.statuses[status] = outcome.statuses.get(status, 0) + 1
                outcome.latencies.append(latency)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    outcome.seconds = time.perf_counter() - started
    return outcome


@contextmanager
def ours(model: Path) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Run this project's service."""
    command = [sys.executable, "-m", "pipeline", "serve", "--model", str(model), "--port", "0", "--data", "none"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        line = process.stdout.readline()
        found = re.search(r"http://[^:]+:(\d+)", line)
        if not found:
            raise BenchmarkError(f"python -m pipeline serve did not start: {line}")
        try:
            yield int(found[1]), process
        finally:
            process.terminate()


@contextmanager
def mlflows(model: Path) -> Iterator[int]:
    """Run MLflow's scoring server on the same graph."""
    import mlflow.onnx
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "model"
        graph = onnx.load(model)
        shape = [dimension.dim_value or -1 for dimension in graph.graph.input[0].type.tensor_type.shape.dim]
        signature = ModelSignature(Schema([TensorSpec(np.dtype("uint8"), shape, graph.graph.input[0].name)]))
        mlflow.onnx.save_model(graph, saved, signature=signature, save_as_external_data=False)
        command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(saved)]
        command += ["--env-manager", "local", "--port", str(port), "--host", "127.0.0.1"]
        environment = os.environ | {"PATH": search_path()}  # MLflow starts uvicorn by its name
        log = Path(folder) / "log"
        with (
            log.open("wb") as output,
            subprocess.Popen(command, stdout=output, stderr=output, env=environment) as process,
        ):
            try:
                wait_for(f"http://127.0.0.1:{port}/ping", process, log)
                yield port
            finally:
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.terminate()
                process.terminate()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a server answers."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError), urllib.request.urlopen(url, timeout=5):  # noqa: S310  # ours
            return
        time.sleep(0.2)
    lines = log.read_text().splitlines() or ["no output"]
    raise BenchmarkError(f"{url}: no answer within {START_SECONDS} s: {lines[-1]}")


def pictures(classifier: Classifier, size: int) -> Any:
    """Return random images (size, side, side, channels) uint8."""
    shape = (size, classifier.side, classifier.side, classifier.channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def npy_body(images: Any) -> Body:
    """Return images as this project's service takes them."""
    content = io.BytesIO()
    np.save(content, images)
    return content.getvalue(), {"Content-Type": "application/x-npy"}


def json_body(images: Any) -> Body:
    """Return images as MLflow's scoring server takes them."""
    return json_module.dumps({"inputs": {"images": images.tolist()}}).encode(), {"Content-Type": "application/json"}


def show(results: dict[str, Any]) -> None:
    """Print the rows of each side."""
    table = Table(
        "server", title_justify="left", title="requests of random images; server none: ONNX Runtime in this process"
    )
    for column in ("images", "clients", "requests/s", "images/s", "p50, ms", "p99, ms", "failed"):
        table.add_column(column, justify="right")
    for size, rate in results["in_process_images_per_second"].items():
        table.add_row("none", str(size), "", "", f"{rate:,.0f}", "", "", "")
    for side in ("ours", "mlflow"):
        for row in results.get(side, ()):
            numbers = (f"{row[key]:,.1f}" for key in ("requests_per_second", "images_per_second", "p50_ms", "p99_ms"))
            table.add_row(side, str(row["images"]), str(row["clients"]), *numbers, str(row["failed"]))
    Console().print(table)
    if "soak" in results:
        print("soak test:", ", ".join(f"{key} {value}" for key, value in results["soak"].items()))


if __name__ == "__main__":
    stage.command(main)
