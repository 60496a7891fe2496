"""GPUs shared out among real processes; only the last test needs a GPU, the others share out names."""

import os
import signal
import subprocess
import sys
import time
from typing import ClassVar

import pynvml
import pytest
import torch

from pipeline.hardware import gpu_lock
from tests.conftest import start_python
from tests.paths import ROOT

WORKER = """
import sys, time
from pathlib import Path
from pipeline.hardware import gpu_lock
folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
with gpu_lock.first_free(["0", "GPU-1"], folder) as gpu:
    started = time.monotonic()
    print(gpu, flush=True)
    time.sleep(seconds)
    print(started, time.monotonic())
"""


def worker(folder, environment, seconds: float) -> subprocess.Popen:
    return start_python(WORKER, str(folder), str(seconds), environment=environment)


def test_processes_never_share_a_gpu_and_all_get_one(tmp_path, environment):
    """Four processes, two GPUs: each GPU serves one after the other, both at the same time; who waits says so once."""
    started = [worker(tmp_path / "locks", environment, 1.5) for _ in range(4)]
    uses: dict[str, list[tuple[float, float]]] = {}
    waited = []
    for process in started:
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        gpu, times = output.splitlines()
        begin, end = map(float, times.split())
        uses.setdefault(gpu, []).append((begin, end))
        waited += errors.splitlines()
    assert sorted(map(len, uses.values())) == [2, 2]
    for times in uses.values():
        (_, first_end), (second_begin, _) = sorted(times)
        assert first_end <= second_begin
    (a, b) = (min(times) for times in uses.values())
    assert max(a[0], b[0]) < min(a[1], b[1]), "one GPU lay idle while processes waited"
    assert 1 <= len(waited) <= 2  # a slow start may find a GPU that is free again
    assert set(waited) == {"all 2 GPUs are in use by other runs: waiting (train.device=cuda:0 shares one)"}


def test_a_killed_process_frees_its_gpu(tmp_path, environment):
    """SIGKILL leaves nothing to clean up: the one that waits goes on with that GPU."""
    holders = [worker(tmp_path, environment, 60) for _ in range(2)]
    held = [process.stdout.readline().strip() for process in holders]
    assert sorted(held) == ["0", "GPU-1"]
    waiting = worker(tmp_path, environment, 0)
    assert "waiting" in waiting.stderr.readline()
    time.sleep(2 * gpu_lock.POLL_SECONDS)
    assert waiting.poll() is None
    holders[1].send_signal(signal.SIGKILL)
    output, _ = waiting.communicate(timeout=30)
    assert output.split()[0] == held[1]
    holders[0].kill()
    for process in holders:
        process.communicate()


def test_the_first_free_gpu_is_taken_and_freed_by_an_error(tmp_path, capsys):
    """In the order given; nothing is printed as long as there is a free one."""
    with gpu_lock.first_free(["0", "1"], tmp_path) as first, gpu_lock.first_free(["0", "1"], tmp_path) as second:
        assert (first, second) == ("0", "1")
    with pytest.raises(ValueError, match="of its own"), gpu_lock.first_free(["0"], tmp_path):
        raise ValueError("of its own")
    with gpu_lock.first_free(["0"], tmp_path) as again:
        assert again == "0"
    assert capsys.readouterr() == ("", "")


class Driver:
    """Stands in for NVIDIA's driver, which answers only where there is a GPU: three GPUs, the last one partitioned."""

    SLICES: ClassVar = {"GPU-5ebe": [], "GPU-77aa": None, "GPU-90cd": ["MIG-1", None, "MIG-3"]}

    def __getattr__(self, name):
        return getattr(pynvml, name)  # its errors

    def nvmlInit(self):  # noqa: N802  # as pynvml spells them
        pass

    def nvmlDeviceGetCount(self):  # noqa: N802
        return len(self.SLICES)

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return [*self.SLICES][index]

    def nvmlDeviceGetUUID(self, handle):  # noqa: N802
        return handle

    def nvmlDeviceGetMigMode(self, handle):  # noqa: N802
        if self.SLICES[handle] is None:
            raise pynvml.NVMLError_NotSupported
        return bool(self.SLICES[handle]), 0

    def nvmlDeviceGetMaxMigDeviceCount(self, handle):  # noqa: N802
        return len(self.SLICES[handle])

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle, index):  # noqa: N802
        if self.SLICES[handle][index] is None:
            raise pynvml.NVMLError_NotFound
        return self.SLICES[handle][index]


def test_gpus_are_known_by_their_uuids_and_slices(monkeypatch):
    """Slices of a partitioned GPU count as GPUs; places without a slice and GPUs that cannot be partitioned do not."""
    monkeypatch.setattr(gpu_lock, "pynvml", Driver())
    assert gpu_lock.installed() == {"GPU-5ebe": [], "GPU-77aa": [], "GPU-90cd": ["MIG-1", "MIG-3"]}
    monkeypatch.delenv(gpu_lock.VISIBLE, raising=False)
    assert gpu_lock.visible() == ["GPU-5ebe", "GPU-77aa", "MIG-1", "MIG-3"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a driver; the test below compares with it")
def test_without_a_driver_there_are_no_gpus():
    """No error, no warning."""
    assert gpu_lock.installed() == {}


@pytest.mark.gpu
def test_gpus_are_those_that_pytorch_sees():
    """Not partitioned."""
    seen = {f"GPU-{torch.cuda.get_device_properties(index).uuid}" for index in range(torch.cuda.device_count())}
    assert seen <= gpu_lock.installed().keys()


@pytest.mark.parametrize(
    ("named", "uuids"),
    [
        (None, ["GPU-5ebe", "GPU-77aa", "MIG-1", "MIG-3"]),
        ("", []),
        ("-1", []),
        ("1, 0", ["GPU-77aa", "GPU-5ebe"]),
        ("1,7,0", ["GPU-77aa"]),
        ("2", ["MIG-1", "MIG-3"]),
        ("GPU-77aa,GPU-5", ["GPU-77aa", "GPU-5ebe"]),
        ("GPU-,0", []),
        ("MIG-3", ["MIG-3"]),
        ("MIG-GPU-90cd/1/0", ["MIG-GPU-90cd/1/0"]),
    ],
)
def test_cuda_visible_devices_limits_the_choice(named, uuids):
    """Indices or UUIDs, up to the first that does not exist; the same GPU has one name, however it was named."""
    assert gpu_lock.allowed(named, {"GPU-5ebe": [], "GPU-77aa": [], "GPU-90cd": ["MIG-1", "MIG-3"]}) == uuids


def test_who_does_not_wait_computes_on_the_cpu(monkeypatch, tmp_path, capsys):
    """While a training holds the GPU: "auto" is the CPU then, and a line says so."""
    monkeypatch.setenv(gpu_lock.VISIBLE, "MIG-a")
    monkeypatch.setattr(gpu_lock.tempfile, "tempdir", str(tmp_path))
    with gpu_lock.claim("auto") as held, gpu_lock.claim("auto", wait=False) as other:
        assert (held, other) == ("MIG-a", None)
        assert os.environ[gpu_lock.VISIBLE] == "-1"
    assert capsys.readouterr().err == "the GPU is in use by other runs: computing on the CPU\n"


@pytest.mark.parametrize(
    ("device", "named"),
    [("auto", ""), ("cuda", ""), ("cpu", "MIG-a,MIG-b"), ("mps", "MIG-a,MIG-b"), ("cuda:1", "MIG-a,MIG-b")],
)
def test_nothing_is_claimed_without_a_visible_gpu_or_where_the_user_names_one(
    device, named, monkeypatch, tmp_path, capsys
):
    """No lock, no folder, no word, and the environment stays as it is: who names a GPU may share it."""
    monkeypatch.setenv(gpu_lock.VISIBLE, named)
    monkeypatch.setattr(gpu_lock.tempfile, "tempdir", str(tmp_path))
    with gpu_lock.claim(device) as gpu:
        assert gpu is None
    assert os.environ[gpu_lock.VISIBLE] == named
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr() == ("", "")


def test_cuda_sees_the_claimed_gpu_and_no_other(environment, tmp_path):
    """Two claims at once, each in a process that may use two: different ones, and CUDA is not initialised by it."""
    code = (
        "import os, sys, torch; from pipeline.hardware import gpu_lock\n"
        "with gpu_lock.claim('auto') as gpu:\n"
        "    assert not torch.cuda.is_initialized()\n"
        "    print(gpu, os.environ['CUDA_VISIBLE_DEVICES'], flush=True)\n"
        "    sys.stdin.read()\n"
    )
    surroundings = environment | {"CUDA_VISIBLE_DEVICES": "MIG-a,MIG-b", "TMPDIR": str(tmp_path)}
    started = [start_python(code, environment=surroundings) for _ in range(2)]
    seen = {process.stdout.readline().strip() for process in started}
    for process in started:
        _, errors = process.communicate("done")
        assert process.returncode == 0, errors
    assert seen == {"MIG-a MIG-a", "MIG-b MIG-b"}


@pytest.mark.gpu
def test_a_claimed_gpu_computes(environment, tmp_path):
    """`cuda` is the claimed GPU, counted anew after the choice."""
    code = (
        "import torch; from pipeline.hardware import gpu_lock\n"
        "with gpu_lock.claim('cuda') as gpu:\n"
        "    print(gpu, torch.cuda.device_count(), torch.ones(2, device='cuda').sum().item())\n"
    )
    surroundings = environment | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=surroundings, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [gpu_lock.visible()[0], "1", "2.0"]
    assert done.stderr == ""
