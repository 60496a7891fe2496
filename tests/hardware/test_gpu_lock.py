"""GPUs shared out among real processes; only the last test needs a GPU, the others share out names."""

import os
import signal
import subprocess
import sys
import time

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


@pytest.mark.parametrize(
    ("named", "count", "ids"),
    [
        (None, 0, []),
        (None, 3, ["0", "1", "2"]),
        ("", 0, []),
        ("-1", 0, []),
        ("2, 0", 2, ["2", "0"]),
        ("1,7,0", 1, ["1"]),
        ("GPU-5ebe,GPU-77aa", 2, ["GPU-5ebe", "GPU-77aa"]),
    ],
)
def test_cuda_visible_devices_limits_the_choice(named, count, ids):
    """Indexes or UUIDs, up to the first that does not exist; empty means none."""
    assert gpu_lock.allowed(named, count) == ids


def test_slices_of_a_gpu_count_as_gpus(monkeypatch):
    """CUDA_VISIBLE_DEVICES may name slices of one (MIG); they are taken as they are named."""
    monkeypatch.setenv(gpu_lock.VISIBLE, "MIG-a,MIG-b")
    assert gpu_lock.visible() == ["MIG-a", "MIG-b"]


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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU; the tests above share out names of GPUs")
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
    first = gpu_lock.visible()[0]
    assert done.stdout.split() == [first, "1", "2.0"]
    assert done.stderr == ""
