"""The benchmarks: sides take turns, what is timed is what trains, results agree with themselves; no speed matters."""

import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks import inference, inputs, loops, measuring, overhead, overhead_repro, overhead_train, throughput
from benchmarks.apart import Apart
from benchmarks.measuring import BenchmarkError, Timing
from pipeline.errors import ParamsError
from pipeline.models.common import numerics
from pipeline.training import loop
from pipeline.training.checkpoint import TrainingState
from tests.conftest import SMALL, write_params
from tests.paths import ROOT


def test_sides_take_turns_and_are_timed_but_for_the_first_round(cpu):
    """Who is first changes from round to round; between two calls there is time for a progress bar."""
    calls = []
    sides = {"quick": lambda: calls.append("quick"), "slow": lambda: (calls.append("slow"), time.sleep(0.01))}
    found = measuring.interleaved(sides, 3, cpu, on_call=lambda: calls.append("-"))
    assert calls[1::2] == ["-"] * 8
    assert calls[::2] == ["slow", "quick", "quick", "slow", "slow", "quick", "quick", "slow"]
    assert {name: len(timing.seconds) for name, timing in found.items()} == {"quick": 3, "slow": 3}
    assert min(found["slow"].seconds) >= 0.01
    assert min(found["quick"].seconds) > 0


def test_a_ratio_is_the_median_of_the_rounds_ratios():
    """Not the ratio of the medians: here 2, where the latter would be 3."""
    one, other = Timing([6.0, 3.0, 4.0]), Timing([3.0, 1.0, 4.0])
    assert (one.median, other.median) == (4.0, 3.0)
    assert measuring.ratio(one, other) == 2.0
    assert measuring.ratio(one, one) == 1.0


def stubborn(folder):
    """Build a function that answers, then fails as a user could make it fail, then breaks off."""
    calls = []

    def run():
        calls.append(None)
        if len(calls) == 2:
            raise ParamsError("a mistake")
        if len(calls) == 3:
            os._exit(7)
        return os.getpid(), folder

    return run


def test_a_side_apart_answers_from_another_process_and_its_failures_arrive(tmp_path):
    """Errors that a user can cause stay what they are; an end is an error that tells the exit code."""
    with Apart(stubborn, tmp_path) as side:
        process, folder = side()
        assert process != os.getpid()
        assert folder == tmp_path
        with pytest.raises(ParamsError, match="a mistake"):
            side()
        for _ in range(2):
            with pytest.raises(BenchmarkError, match="exit code 7"):
                side()


def test_what_throughput_times_is_what_trains(small_params, data, tmp_path, monkeypatch):
    """The same weights after each epoch as in `training.train`, moving average included."""
    params = small_params({"train.ema": 0.5, "model.cnn.dropout": 0.2})
    seen = []
    original = loop.train_epoch

    def recorded(step, average, epoch, *rest):
        row = original(step, average, epoch, *rest)
        seen.append((row, *(weight.clone() for net in (step.model, average.model) for weight in net.parameters())))
        return row

    monkeypatch.setattr(loop, "train_epoch", recorded)
    loop.train(params, data, TrainingState(tmp_path))
    epoch = loops.ours(params, data)
    for _ in range(params.train.epochs):
        assert epoch() > 0
    whole, timed = seen[: params.train.epochs], seen[params.train.epochs :]
    for (row, *weights), (other_row, *others) in zip(whole, timed, strict=True):
        assert row == other_row
        assert all(map(torch.equal, weights, others))


@pytest.mark.parametrize("allocator", [True, False])
def test_the_allocator_setting_can_be_left_out(small_params, data, monkeypatch, allocator):
    """It is one of the sides that are compared."""
    calls = []
    monkeypatch.setattr(numerics, "keep_freed_memory", lambda: calls.append(None))
    loops.ours(small_params(), data, allocator=allocator)
    assert len(calls) == allocator


def test_generated_images_repeat_where_they_do_not_suffice(monkeypatch):
    """Splits have the sizes asked for; the validation images come after the training images."""
    monkeypatch.setattr(inputs, "GENERATED_IMAGES", 20)
    data = inputs.images(None, train=30, val=10)
    images = data["train"].images
    assert (images.shape, images.dtype, len(data["val"])) == ((30, 32, 32, 3), "uint8", 10)
    assert (images[20:] == images[:10]).all()
    assert (data["val"].images == images[10:20]).all()


def test_images_of_an_archive_are_its_first(archive):
    """As the preprocess stage reads them."""
    data = inputs.images(archive, train=50)
    assert data["train"].images.shape == (50, 32, 32, 3)
    assert (data["train"].images == inputs.images(archive, train=60)["train"].images[:50]).all()


@pytest.mark.parametrize(
    ("main", "arguments", "expected"),
    [
        (throughput.main, {"images": 50}, "--images: found 50, expected at least"),
        (throughput.main, {"arch": ["vgg"]}, 'model.arch: found "vgg", expected'),
        (throughput.main, {"params": ROOT / "README.md"}, "README.md"),
        (inference.main, {"arch": ["vgg"]}, 'model.arch: found "vgg", expected'),
        (overhead.main, {"part": ["all"]}, "--part: found all, expected one of train, startup, repro, loop"),
        (overhead.main, {"stages": ["all"]}, "--stage: found all, expected one of download, preprocess,"),
        (overhead.main, {"images": 50}, "--images: found 50, expected at least"),
    ],
)
def test_mistakes_are_told_before_anything_runs(main, arguments, expected, tmp_path):
    """As errors that the command line prints in one line."""
    params = write_params(tmp_path / "params.yaml", SMALL)
    with pytest.raises(Exception, match=expected) as caught:  # which kind is asserted below
        main(**{"params": params, "device": "cpu"} | arguments)
    assert isinstance(caught.value, BenchmarkError | ParamsError)


@pytest.fixture
def benchmark(environment, tmp_path):
    """A function that runs a benchmark with small parameters on the processor; returns the output and the JSON."""

    def run(name: str, *arguments: str) -> tuple[str, dict]:
        params, out = write_params(tmp_path / "params.yaml", SMALL), tmp_path / "results" / "out.json"
        options = ["--params", str(params), "--device", "cpu", "--json", str(out), *arguments]
        command = [sys.executable, "-m", f"benchmarks.{name}", *options]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        found = json.loads(out.read_text())
        machine = found.pop("machine")
        told = ["python", *(Path(word).name if Path(word).is_absolute() else word for word in command[1:])]
        assert (machine["device"], machine["command"]) == ("cpu", " ".join(told))  # files by their names only
        assert all(math.isfinite(number) and number > 0 for number in numbers(found))
        return done.stdout, found

    return run


def numbers(tree):
    """Yield all numbers of nested dicts and lists."""
    if isinstance(tree, dict | list):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from numbers(value)
    elif isinstance(tree, int | float):
        yield tree


@pytest.mark.e2e
def test_throughput(benchmark):
    """Images per second and ratios are those of the rounds in the same file."""
    said, found = benchmark("throughput", "--arch", "cnn", "--images", "350", "--rounds", "2")
    assert (found["images"], found["data"]) == (300, "shapes10")  # whole batches
    cnn = found["cnn"]
    ratios = {"vs_conventional": "conventional", "vs_bare_step": "bare_step"}
    if sys.platform == "linux":
        ratios["allocator"] = "without_allocator"
    assert set(cnn) == {"ours", *ratios, *ratios.values(), "peak_memory_mib", "seconds"}
    for side in ("ours", *ratios.values()):
        assert cnn[side] == pytest.approx(300 / statistics.median(cnn["seconds"][side]), rel=1e-3)
        assert f"{cnn[side]:,.0f}" in said
        assert side in cnn["peak_memory_mib"]
    for key, side in ratios.items():
        pairs = zip(cnn["seconds"][side], cnn["seconds"]["ours"], strict=True)
        assert cnn[key] == pytest.approx(statistics.mean(other / ours for other, ours in pairs), rel=1e-3)


@pytest.mark.e2e
def test_inference(benchmark):
    """With one round a ratio is that of the two speeds."""
    sizes = ("--batch-size", "1", "--batch-size", "30")
    said, found = benchmark("inference", "--arch", "speednet", *sizes, "--rounds", "1", "--seconds", "0.01")
    bf16 = ["torch_bf16"] if numerics.choose_precision("auto", torch.device("cpu")) == "bf16" else []
    keys = ["images_per_second", "latency_ms", "latency_ms_p95"]
    expected = {
        f"speednet/{side}/{size}/{key}" for side in ["onnx", "torch", *bf16] for size in (1, 30) for key in keys
    }
    ratios = {f"speednet/{side}/{size}/vs_torch" for side in ["onnx", *bf16] for size in (1, 30)}
    assert set(found) - {"rounds", "seconds_a_turn"} == expected | ratios
    for key in ratios:
        _, side, size, _ = key.split("/")
        speed, torchs = (found[f"speednet/{name}/{size}/images_per_second"] for name in (side, "torch"))
        assert found[key] == pytest.approx(speed / torchs, rel=1e-2)
        assert found[f"speednet/{side}/{size}/latency_ms"] <= found[f"speednet/{side}/{size}/latency_ms_p95"]
        assert f"{speed:,.0f}" in said


@pytest.mark.e2e
def test_overhead_of_the_train_stage_and_of_the_start(benchmark):
    """The stage against the loop, and the start of one stage; one round each."""
    small = ["--images", "500", "--val-images", "100", "--epochs", "2", "--rounds", "1", "--repeats", "1"]
    said, found = benchmark("overhead", *small, "--part", "train", "--part", "startup", "--stage", "download")
    for key, ratio in (("work", "train_stage_vs_bare_loop"), ("loop", "loop_vs_bare_loop")):
        seconds = [found[f"{side}_{key}_seconds"] for side in ("stage", "bare")]
        assert found[ratio] == pytest.approx(seconds[0] / seconds[1], rel=1e-2)
    assert found["stage_loop_seconds"] < found["stage_work_seconds"]
    assert found["bare_loop_seconds"] < found["bare_work_seconds"]
    for kind in ("startup", "mistake"):
        seconds = [found[f"{name}/seconds"] for name in (f"{kind}/download", "startup/torch")]
        assert found[f"{kind}/download"] == pytest.approx(seconds[0] / seconds[1], rel=1e-2)
        assert f"{seconds[0]:.2f}" in said


def test_a_stage_that_fails_is_not_timed():
    """It runs in a terminal, and its last line says what went wrong."""
    code = "import sys; sys.exit(f'error: a mistake in a terminal: {sys.stdout.isatty()}')"
    with pytest.raises(BenchmarkError, match=r"exit code 1: error: a mistake in a terminal: True$"):
        overhead_train.in_terminal([sys.executable, "-c", code], dict(os.environ))


@pytest.fixture
def small_pipeline(tmp_path, monkeypatch):
    """A repository in this one's place: two stages, of which one runs only if the copy got small parameters."""
    folder = tmp_path / "small"
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".dvc" / "config").write_text("")
    write_params(folder / "params.yaml", {})
    (folder / "dvc.yaml").write_text(
        "stages:\n"
        "  first: {cmd: 'grep -q shapes10 params.yaml', params: [train]}\n"
        "  second: {cmd: 'true', deps: [params.yaml]}\n"
    )
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    subprocess.run(["git", "add", "-A"], cwd=folder, check=True)
    monkeypatch.setattr(inputs, "ROOT", folder)
    return folder


@pytest.mark.e2e
def test_overhead_of_a_repro_without_work(small_pipeline, tmp_path):
    """The copy runs before it is timed; where something is left to do, there is nothing to compare."""
    (tmp_path / "work").mkdir()
    found = overhead_repro.measure(small_pipeline / "params.yaml", 1, tmp_path / "work")
    seconds = [found[f"noop_repro/{side}/seconds"] for side in ("ours", "empty")]
    assert all(math.isfinite(number) and number > 0 for number in numbers(found))
    assert found["noop_repro"] == pytest.approx(seconds[0] / seconds[1], rel=1e-2)
    (tmp_path / "work" / "empty" / "input").write_text("something\n")
    with pytest.raises(BenchmarkError, match="expected nothing to do"):
        overhead_repro.expect_nothing(tmp_path / "work" / "empty")
