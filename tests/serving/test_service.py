"""The HTTP service as users start it: a process without PyTorch, DVC and MLflow, asked over the network."""

import asyncio
import io
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import mlflow
import numpy as np
import pytest
import requests
from PIL import Image

from pipeline.errors import PredictionError
from pipeline.serving import prediction
from pipeline.serving.batching import Batcher, FullError
from pipeline.serving.current import Current
from pipeline.tracking import store
from tests.conftest import heed_ctrl_c
from tests.paths import ROOT
from tests.serving.test_prediction import SIDE, graph

WITHOUT = """
import sys
for name in ("torch", "dvc", "mlflow", "pandas", "sklearn", "scipy", "matplotlib", "onnx", "ruamel"):
    sys.modules[name] = None  # importing it raises
from pipeline.cli import main
main()
"""
HTTP = requests.Session()
CLASSES = ("red", "green", "blue")
COLOURS = np.eye(3, dtype=np.uint8) * 255


def png(colour, side: int = SIDE) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (side, side), tuple(map(int, colour))).save(content, "PNG")
    return content.getvalue()


def npy(images) -> bytes:
    content = io.BytesIO()
    np.save(content, images, allow_pickle=images.dtype == object)
    return content.getvalue()


def arrays(*labels: int) -> np.ndarray:
    """Return an image (SIDE, SIDE, 3) for each label."""
    return np.stack([np.broadcast_to(COLOURS[label], (SIDE, SIDE, 3)) for label in labels])


@contextmanager
def running(model: Path, environment, *options: str) -> Iterator[tuple[str, subprocess.Popen]]:
    """Start the service on a free port; yield its address."""
    command = [sys.executable, "-c", WITHOUT, "serve", "--model", str(model), "--port", "0", *options]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=heed_ctrl_c,
    )
    try:
        line = process.stdout.readline()
        found = re.search(r"serving .* version (\S+) on (http://\S+);", line)
        assert found, line + process.stdout.read()
        yield found[2], process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return graph(tmp_path_factory.mktemp("served") / "model.onnx")


@pytest.fixture(scope="module")
def address(model, environment) -> Iterator[str]:
    with running(model, environment, "--max-mib", "1", "--max-images", "20", "--data", "nowhere") as (url, _):
        yield url


def classes(response: requests.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [one["class"] for one in response.json()["predictions"]]


def test_images_are_taken_in_each_form(address, model, tmp_path):
    """Files in a form, one file, arrays; the answer is what ONNX Runtime computes in this process."""
    url = f"{address}/predict"
    expected = prediction.load(str(model), tmp_path)(arrays(0, 2))
    form = HTTP.post(url, files=[("file", ("a.png", png(COLOURS[0]))), ("file", ("b.png", png(COLOURS[2])))])
    one = HTTP.post(url, png(COLOURS[2]), headers={"Content-Type": "image/png"})
    nested = HTTP.post(url, json={"images": arrays(0, 2).tolist()})
    single = HTTP.post(url, json={"images": arrays(1)[0].tolist()})
    binary = HTTP.post(url, npy(arrays(0, 2)), headers={"Content-Type": "application/x-npy"})
    assert [one["image"] for one in form.json()["predictions"]] == ["a.png", "b.png"]
    assert [classes(response) for response in (form, one, nested, single, binary)] == [
        ["red", "blue"],
        ["blue"],
        ["red", "blue"],
        ["green"],
        ["red", "blue"],
    ]
    for response in (form, nested, binary):
        found = [[row["probabilities"][label] for label in CLASSES] for row in response.json()["predictions"]]
        assert np.allclose(found, expected, atol=1e-6)
        assert [row["probability"] for row in response.json()["predictions"]] == [max(row) for row in found]


OCTETS, IMAGE, JSON, NPY = (
    {"headers": {"Content-Type": kind}}
    for kind in ("application/octet-stream", "image/png", "application/json", "application/x-npy")
)


@pytest.mark.parametrize(
    ("request_", "status", "sentence"),
    [
        ({"data": b"x", **OCTETS}, 415, r"found content type application/octet-stream, expected multipart/form-data "),
        ({"data": b"x"}, 415, r"found content type none, "),
        ({"data": b"x", **IMAGE}, 400, r"image: not an image in a supported format \(AVIF, "),
        ({"data": png(COLOURS[0])[:45], **IMAGE}, 400, r"image: "),
        ({"data": png(COLOURS[0], 9000), **IMAGE}, 400, r"image: Image size \(81000000 pixels\) exceeds limit"),
        ({"files": [("file", ("a.txt", b"hello"))]}, 400, r"a\.txt: not an image"),
        ({"files": [("file", ("a.png", png(COLOURS[0])))] * 21}, 400, r"Too many files"),
        ({"data": b"--x", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 400, r"found no image"),
        ({"data": b"--x", "headers": {"Content-Type": "multipart/form-data"}}, 400, r"Missing boundary"),
        ({"data": b"{", **JSON}, 400, r'expected {"images": \[\.\.\.\]}'),
        ({"data": b"[" * 100_000, **JSON}, 400, r'expected {"images": '),
        ({"data": b'{"images": [' + b"9" * 5000 + b"]}", **JSON}, 400, r'expected {"images": '),
        ({"json": {"images": []}}, 400, r'expected {"images": '),
        ({"json": {"images": [[1], [2, 3]]}}, 400, r'expected {"images": '),
        ({"json": {"images": [256]}}, 400, r"with images as nested lists of integers 0\.\.255"),
        ({"json": {"images": [0.5]}}, 400, r"integers 0\.\.255"),
        ({"json": {"images": [1, 2]}}, 400, r"found an array of shape \(2,\), expected \(N, 8, 8, 3\)"),
        ({"json": {"images": np.zeros((21, SIDE, SIDE, 3), int).tolist()}}, 413, r"found 21 images, expected at most"),
        ({"data": b"NUMPY", **NPY}, 400, r"expected an array of uint8 as numpy\.save writes it"),
        ({"data": npy(np.zeros((1, SIDE, SIDE, 3))), **NPY}, 400, r"expected an array of uint8"),
        ({"data": npy(np.array([{}])), **NPY}, 400, r"expected an array of uint8"),
        ({"data": npy(np.zeros((0, SIDE, SIDE, 3), np.uint8)), **NPY}, 400, r"found no image"),
        ({"data": bytes(2**20 + 1), **IMAGE}, 413, r"found more than 1,048,576 bytes"),
        ({"data": iter([bytes(2**19)] * 3), **IMAGE}, 413, r"found more than 1,048,576 bytes"),
    ],
)
def test_bad_requests_get_one_sentence(address, request_, status, sentence):
    """What was found and expected; the service goes on."""
    response = HTTP.post(f"{address}/predict", **request_)
    assert response.status_code == status, response.text
    assert re.search(sentence, response.json()["detail"])
    assert "\n" not in response.json()["detail"]
    assert HTTP.get(f"{address}/health").json()["status"] == "ok"


def test_concurrent_requests_get_their_own_answers(address):
    """Of one image or several, from thirty clients: no batch mixes them up."""
    rng = np.random.default_rng(0)
    wanted = [tuple(rng.integers(0, 3, rng.integers(1, 6))) for _ in range(300)]

    def ask(labels) -> list[str]:
        body = npy(arrays(*labels))
        return classes(HTTP.post(f"{address}/predict", body, headers={"Content-Type": "application/x-npy"}))

    with ThreadPoolExecutor(30) as clients:
        found = list(clients.map(ask, wanted))
    assert found == [[CLASSES[label] for label in labels] for labels in wanted]


def test_model_metrics_and_description_are_there(address, model):
    """The card beside the file; counts that grow; no path of a request becomes a metric."""
    described = HTTP.get(f"{address}/model").json()
    assert described["classes"] == list(CLASSES)
    assert described["input"] == {"dtype": "uint8", "shape": ["N", SIDE, SIDE, 3]}
    assert described["model"] == str(model)
    assert HTTP.get(f"{address}/made/up").status_code == 404

    def count(name: str) -> float:
        text = HTTP.get(f"{address}/metrics").text
        return float((re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE) or [0])[0])

    before = count('predictions_total{label="green"}')
    HTTP.post(f"{address}/predict", png(COLOURS[1]), headers={"Content-Type": "image/png"})
    assert count('predictions_total{label="green"}') == before + 1
    assert count(f'model{{name="{model}",version="{described["version"]}"}}') == 1
    assert count('requests_total{path="other",status="404"}') >= 1
    assert "made" not in HTTP.get(f"{address}/metrics").text
    assert "/predict" in HTTP.get(f"{address}/openapi.json").json()["paths"]


def test_a_request_that_has_begun_is_answered_before_the_service_ends(model, environment):
    """SIGTERM while a file arrives."""
    with running(model, environment, "--data", "nowhere") as (url, process):
        host, port = url.removeprefix("http://").split(":")
        body = png(COLOURS[2])
        with socket.create_connection((host, int(port))) as client:
            head = (
                f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            client.sendall(head.encode() + body[:20])
            assert HTTP.get(f"{url}/health").ok  # it has read what was sent
            process.send_signal(signal.SIGTERM)
            time.sleep(1)
            with pytest.raises(OSError, match="refused"):
                socket.create_connection((host, int(port)))
            client.sendall(body[20:])
            assert b'"class":"blue"' in client.makefile("rb").read()
        output, _ = process.communicate(timeout=30)
    assert process.returncode in (0, -signal.SIGTERM)
    assert output == ""


def test_ctrl_c_ends_it_without_a_traceback(model, environment):
    with running(model, environment, "--data", "nowhere") as (url, process):
        assert HTTP.get(f"{url}/health").ok
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    assert (process.returncode, output) == (0, "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "no.onnx"], "error: no.onnx: no such file; dvc repro creates export/model.onnx, "),
        (["--model", "models:/m@a"], "error: ruamel.yaml is not installed; pip install '.[train]' "),
        (
            ["--host", "127.0.0.1", "--port", "{taken}"],
            "error: --host 127.0.0.1 --port {taken}: Address already in use; ",
        ),
        (["--host", "no.such.host.invalid"], "error: --host no.such.host.invalid --port 8000: "),
    ],
)
def test_what_cannot_be_served_is_one_line(model, environment, options, message):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = str(other.getsockname()[1])
        options = [option.format(taken=taken) for option in options]
        given = options if "--model" in options else ["--model", str(model), *options]
        command = [sys.executable, "-c", WITHOUT, "serve", "--data", "nowhere", *given]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(message.format(taken=taken))
    assert len(done.stderr.splitlines()) == 1


def watched(current: Current, change, seconds: float = 20) -> None:
    """Change what is served while a service watches it, until it serves that or the time is over."""

    async def run() -> None:
        before = current.stamp
        task = asyncio.create_task(current.watch(0.05))
        await asyncio.sleep(0.2)
        change()
        for _ in range(round(seconds / 0.05)):
            if current.stamp != before:
                break
            await asyncio.sleep(0.05)
        task.cancel()

    asyncio.run(run())


def test_a_new_file_is_taken_on(tmp_path, caplog):
    """And one that is no model is not: the old one goes on answering."""
    path = graph(tmp_path / "model.onnx")
    current = Current(str(path), tmp_path)
    first = current.served
    other = graph(tmp_path / "other.onnx", classes="cyan,lime,navy")
    watched(current, lambda: other.replace(path))
    assert current.served.classifier.classes == ("cyan", "lime", "navy")
    assert current.served.version != first.version
    served, stamp = current.served, current.stamp
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    watched(current, lambda: (tmp_path / "broken.onnx").replace(path), seconds=1)
    assert (current.served, current.stamp) == (served, stamp)
    assert any("still serving version" in record.getMessage() for record in caplog.records)


def test_another_version_of_an_alias_is_taken_on(tmp_path, publish):
    """Moved in the registry while the service runs, as `promote` does."""
    publish()
    client = mlflow.MlflowClient(store.uri(tmp_path))
    client.set_registered_model_alias("cifar10-cnn", "champion", "1")
    current = Current("models:/cifar10-cnn@champion", tmp_path)
    assert (current.served.version, current.served.card) == (
        "1",
        client.get_model_version("cifar10-cnn", "1").description,
    )
    publish(content="2" * 64)
    watched(current, lambda: client.set_registered_model_alias("cifar10-cnn", "champion", "2"))
    assert current.served.version == "2"


class Slow:
    """A classifier that notes the sizes of its batches and computes while others wait."""

    def __init__(self) -> None:
        self.batches = []

    def __call__(self, images):
        self.batches.append(len(images))
        if images[0, 0] == 99:
            raise PredictionError("out of order")
        return images * 2


def test_what_arrives_during_a_batch_is_the_next_batch():
    """Results go where they belong, an error to its batch only; models are not mixed; a full queue refuses."""
    first, second = Slow(), Slow()

    async def run() -> list:
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(pool, batch=4, queue=12)
            numbers = [(first, 1), (first, 2), (first, 99), (second, 4), (first, 5)]
            tasks = [asyncio.create_task(batcher.classify(one, np.full((2, 1), number))) for one, number in numbers]
            await asyncio.sleep(0)
            with pytest.raises(FullError):
                await batcher.classify(first, np.zeros((9, 1)))
            tasks[4].cancel()
            return await asyncio.gather(*tasks, return_exceptions=True)

    results = asyncio.run(run())
    assert [result.tolist() for result in results[:2]] == [[[2], [2]], [[4], [4]]]
    assert isinstance(results[2], PredictionError)
    assert results[3].tolist() == [[8], [8]]
    assert isinstance(results[4], asyncio.CancelledError)
    assert first.batches[:2] == [4, 2]
    assert second.batches == [2]


def test_the_documented_requests_work(model, environment, tmp_path):
    """Those of docs/serving.md, as they stand but for the port."""
    text = (ROOT / "docs/serving.md").read_text()
    (shell,) = (block for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) if "curl" in block)
    (python,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for name, colour in (("photo.jpg", COLOURS[0]), ("other.png", COLOURS[2])):
        Image.new("RGB", (50, 40), tuple(map(int, colour))).save(tmp_path / name)
    with running(model, environment, "--data", "nowhere") as (url, _):
        done = [
            subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
            for command in (
                ["bash", "-ec", shell.replace("http://127.0.0.1:8000", url)],
                [
                    sys.executable,
                    "-c",
                    python.replace("http://127.0.0.1:8000", url).replace("32, 32", f"{SIDE}, {SIDE}"),
                ],
            )
        ]
    assert re.findall(r'"class":"(\w+)"', done[0]) == ["red", "blue", "red"]
    assert done[1] == "['red', 'red']\n"
