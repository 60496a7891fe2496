"""Training: it learns, it is reproducible to the bit, it survives being killed, it stops before it breaks weights."""

import csv
import dataclasses
import hashlib
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipeline import files
from pipeline.config import architectures
from pipeline.data import dataset
from pipeline.errors import ParamsError, TrainingError
from pipeline.models.common.saved import load_model, save_model
from pipeline.training import checkpoint, loop, probe, step
from pipeline.training.checkpoint import TrainingState
from tests.conftest import SMALL, stage_command, write_params
from tests.paths import ROOT


def run(params, data, folder, listeners=()):
    return loop.train(params, data, TrainingState(folder), listeners=listeners)


def digest(model) -> str:
    state = model.state_dict()
    return hashlib.sha256(
        b"".join(state[key].cpu().contiguous().numpy().tobytes() for key in sorted(state))
    ).hexdigest()


class KilledError(Exception):
    """Stands for a crash between two epochs."""


def kill_after(epoch):
    def listener(row):
        if row["epoch"] == epoch:
            raise KilledError

    return listener


@pytest.mark.parametrize("optimizer", ["muon", "sgd", "adamw"])
def test_a_small_network_learns_a_hundred_images_by_heart(small_params, data, tmp_path, optimizer):
    """With nothing that hinders it, and the history tells the way there."""
    rates = {"muon": (0.1, 0.6), "sgd": (0.05, 0.9), "adamw": (0.01, 0.9)}
    lr, momentum = rates[optimizer]
    quiet = {
        "augment.flip": "none",
        "augment.translate": 0,
        "train.label_smoothing": 0.0,
        f"optimizer.{optimizer}.weight_decay": 0.0,
    }
    params = small_params(
        quiet
        | {
            "optimizer.name": optimizer,
            f"optimizer.{optimizer}.lr": lr,
            f"optimizer.{optimizer}.{'beta1' if optimizer == 'adamw' else 'momentum'}": momentum,
            "train.epochs": 30,
            "train.batch_size": 25,
            "model.cnn.hidden": [32],
        }
    )
    few = dataset.Split(data["train"].images[:100], data["train"].labels[:100])
    result = run(params, dataset.Dataset(data.metadata, {"train": few, "val": few}), tmp_path)
    assert result.history[-1]["val/accuracy"] > 0.9
    assert result.history[-1]["train/loss"] < 0.5 * result.history[0]["train/loss"]
    assert [row["epoch"] for row in result.history] == list(range(1, 31))


def test_the_same_seed_gives_the_same_weights_and_another_does_not(small_params, data, tmp_path):
    """Reproducible means to the bit."""
    first = run(small_params(), data, tmp_path / "1")
    again = run(small_params(), data, tmp_path / "2")
    other = run(small_params({"train.seed": 1}), data, tmp_path / "3")
    assert digest(first.model) == digest(again.model)
    assert first.history == again.history
    assert digest(first.model) != digest(other.model)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer.name": "adamw", "optimizer.adamw.lr": 0.001, "model.cnn.dropout": 0.3},
        {"train.ema": 0.9, "augment.flip": "random", "augment.cutout": 8, "augment.brightness": 0.1},
        {"model.arch": "mlp", "model.mlp.hidden": [32], "model.mlp.dropout": 0.2, "train.schedule": "cosine"},
        {
            "model.arch": "speednet",
            "model.speednet.widths": [8, 8],
            "train.hardest": 0.4,
            "train.resolutions": [24, 32],
        },
        {"train.diagnostics": True, "model.cnn.dropout": 0.3, "model.cnn.activation": "tanh"},
    ],
    ids=["muon", "adamw, dropout", "ema, augmentation", "mlp", "speednet, hardest images, growing images", "watched"],
)
def test_a_killed_training_ends_with_the_weights_of_an_uninterrupted_one(small_params, data, tmp_path, changes):
    """Optimiser, moving average, batch norm, dropout and augmentation all go on where they were."""
    params = small_params({"train.epochs": 3, **changes})
    whole = run(params, data, tmp_path / "whole")
    with pytest.raises(KilledError):
        run(params, data, tmp_path / "parts", [kill_after(1)])
    with pytest.raises(KilledError):
        run(params, data, tmp_path / "parts", [kill_after(2)])
    seen = []
    resumed = run(params, data, tmp_path / "parts", [seen.append])
    assert digest(resumed.model) == digest(whole.model)
    assert resumed.history == whole.history
    assert resumed.progress.layers == whole.progress.layers
    assert [row["epoch"] for row in seen] == [1, 2, 3]


@pytest.mark.parametrize("damage", ["cut", "another network's"])
def test_a_state_that_cannot_be_restored_costs_its_epochs_and_no_more(small_params, data, tmp_path, capsys, damage):
    """The training begins anew, says so, and ends as if there had been no state."""
    params = small_params({"train.ema": 0.9})
    whole = run(params, data, tmp_path / "whole")
    source = small_params({"model.cnn.widths": [8, 17], "train.ema": 0.9}) if damage != "cut" else params
    with pytest.raises(KilledError):
        run(source, data, tmp_path / "damaged", [kill_after(1)])
    (path,) = (tmp_path / "damaged").rglob("*.safetensors")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    seen = []
    again = run(params, data, tmp_path / "damaged", [seen.append])
    assert digest(again.model) == digest(whole.model)
    assert [row["epoch"] for row in seen] == [1, 2]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {path}: not a training state that fits (")
    assert line.endswith("; training from the start")


@pytest.mark.gpu
@pytest.mark.parametrize("arch", architectures.NAMES)
def test_on_a_gpu_too_a_killed_training_ends_with_the_weights_of_an_uninterrupted_one(
    small_params, data, tmp_path, arch
):
    """Deterministic kernels, bfloat16, channels_last: the same bytes again, and after an interruption."""
    changes = {"train.device": "cuda", "train.epochs": 3, "model.arch": arch, "model.resnet.depth": 8}
    whole = run(small_params(changes), data, tmp_path / "whole")
    params = small_params(changes | {"train.diagnostics": True})  # between recorded steps, and changes nothing
    with pytest.raises(KilledError):
        run(params, data, tmp_path / "parts", [kill_after(2)])
    resumed = run(params, data, tmp_path / "parts")
    assert digest(resumed.model) == digest(whole.model)
    assert resumed.history == whole.history
    assert sorted({row["epoch"] for row in resumed.progress.layers}) == [0, 1, 2, 3]


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() == 1, reason="needs a second GPU")
@pytest.mark.parametrize("arch", ["cnn", "speednet"])
def test_the_second_gpu_gives_the_weights_of_the_first(small_params, data, tmp_path, arch):
    """Steps are recorded on the device that trains, which is not the first one."""
    changes = {"train.epochs": 3, "model.arch": arch, "train.batch_size": 50}
    first, second = (
        run(small_params(changes | {"train.device": name}), data, tmp_path / name) for name in ("cuda:0", "cuda:1")
    )
    assert {parameter.device.index for parameter in second.model.parameters()} == {1}
    assert digest(first.model) == digest(second.model)


@pytest.mark.e2e
def test_a_train_stage_killed_by_the_system_goes_on_bit_identically(tmp_path, processed, environment):
    """SIGKILL in the middle, the same command again: same weights, history and metrics, and no state left behind."""
    changes = SMALL | {"train.epochs": 12, "train.diagnostics": True, "tracking.enabled": False}
    parameters = write_params(tmp_path / "params.yaml", changes)

    def start(name: str) -> subprocess.Popen:
        command = stage_command("train", tmp_path / name, params=parameters, data=processed)
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)

    with start("killed") as killed:
        for line in killed.stdout:
            if line.startswith("epoch   3/12"):
                killed.send_signal(signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed/model").exists()
    assert len(list((tmp_path / "killed/.checkpoints").rglob("*.safetensors"))) == 1
    resumed, whole = start("killed"), start("whole")
    said = resumed.communicate()[0]
    whole.communicate()
    assert resumed.returncode == whole.returncode == 0
    assert "epoch   2/12" in said
    assert "restored" in said
    written = [Path("metrics/train.json"), Path("metrics/details/train.json")]
    written += [path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole/model").iterdir()]
    assert len(written) == 6
    for path in written:
        assert files.sha256(tmp_path / "killed" / path) == files.sha256(tmp_path / "whole" / path), path
    assert not list((tmp_path / "killed/.checkpoints").iterdir())
    with (tmp_path / "whole/model/layers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(probe.COLUMNS)
    layers = ["blocks.0.0", "blocks.0.2", "blocks.1.0", "blocks.1.2", "classifier.0"]
    assert [(row["epoch"], row["layer"]) for row in rows] == [(str(n), layer) for n in range(13) for layer in layers]
    assert files.read_row(tmp_path / "whole/metrics/runtime/train.json")["train/diagnostics_seconds"] > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"model.cnn.dropout": 0.3, "train.ema": 0.9},
        {"model.arch": "speednet", "model.speednet.widths": [8], "train.hardest": 0.4, "train.resolutions": [24, 32]},
    ],
    ids=["cnn, dropout, ema", "speednet"],
)
def test_a_watched_training_is_the_same_to_the_bit(small_params, data, tmp_path, changes):
    """Weights and history; only the rows come on top, of the network before the first epoch and after each."""
    on, off = (
        run(small_params(changes | {"train.diagnostics": value}), data, tmp_path / str(value))
        for value in (True, False)
    )
    assert digest(on.model) == digest(off.model)
    assert on.history == off.history
    assert off.progress.layers == []
    assert off.progress.diagnostics_seconds == 0
    assert sorted({row["epoch"] for row in on.progress.layers}) == [0, 1, 2]


def test_the_first_rows_are_of_the_initial_network_and_the_last_of_the_trained_one(small_params, data, tmp_path, cpu):
    """With the loss that is trained with, on the fixed batch."""
    params = small_params({"train.diagnostics": True})
    result = run(params, data, tmp_path)
    loader = loop.set_up(params, data)[0].loader
    initial = loop.initial_model(params.model, params.train, data, cpu)
    for epoch, model in ((0, initial), (2, result.model)):
        expected = probe.look(model, *probe.fixed_batch(loader), label_smoothing=0.1, epoch=epoch)
        assert [row for row in result.progress.layers if row["epoch"] == epoch] == expected


def test_time_spent_watching_is_kept_apart(small_params, data, tmp_path, monkeypatch):
    """Neither training's nor validation's, however long it takes."""
    look = probe.look

    def slow(*arguments, **options):
        time.sleep(0.5)
        return look(*arguments, **options)

    monkeypatch.setattr(probe, "look", slow)
    started = time.perf_counter()
    progress = run(small_params({"train.diagnostics": True}), data, tmp_path).progress
    wall = time.perf_counter() - started
    assert progress.diagnostics_seconds > 3 * 0.5
    assert progress.seconds + progress.val_seconds + progress.diagnostics_seconds < wall


def test_training_stops_at_a_loss_that_is_not_finite_and_saves_nothing_of_it(small_params, data, tmp_path):
    """The message says where and what to do; the state is that of the epoch before."""
    usual = {
        "train.epochs": 3,
        "train.schedule": "constant",
        "optimizer.name": "sgd",
        "optimizer.sgd.lr": 0.01,
        "optimizer.sgd.weight_decay": 0.1,
        "model.cnn.norm": "none",
    }
    mild = small_params(usual)
    with pytest.raises(KilledError):
        run(mild, data, tmp_path, [kill_after(1)])
    saved = files.sha256(tmp_path / checkpoint.STATE)
    wild = small_params(usual | {"optimizer.sgd.lr": 1000.0})
    expected = r"epoch 2, step \d: the loss is (nan|inf) at lr 1000; .*lower optimizer.sgd.lr"
    with pytest.raises(TrainingError, match=expected):
        run(wild, data, tmp_path)
    assert files.sha256(tmp_path / checkpoint.STATE) == saved


@pytest.mark.parametrize("average", [0.0, 0.9])
@pytest.mark.parametrize("part", ["classifier.0.weight", "blocks.0.1.running_var"])
def test_weights_that_the_last_step_breaks_stop_the_training_and_are_not_saved(
    small_params, data, tmp_path, monkeypatch, part, average
):
    """No loss of the epoch shows them; the state is that of the epoch before, so that another try can go on."""
    params = small_params({"train.epochs": 3, "train.ema": average})
    epoch_of = loop.train_epoch

    def broken(step, average, epoch, on_step):
        row = epoch_of(step, average, epoch, on_step)
        if epoch == 1:
            step.model.state_dict()[part].view(-1)[0] = float("nan")
        return row

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_epoch", broken)
        with pytest.raises(TrainingError, match=r"stopped at epoch 2, .*; lower optimizer.muon.lr"):
            run(params, data, tmp_path)
    resumed = run(params, data, tmp_path)
    assert [row["epoch"] for row in resumed.history] == [1, 2, 3]
    assert digest(resumed.model) == digest(run(params, data, tmp_path / "whole").model)


class NoFloat64(TorchDispatchMode):
    """Fails on float64 tensors, which some devices do not have."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves((args, kwargs, result)):
            assert not isinstance(value, torch.Tensor) or value.dtype != torch.float64, func
        return result


@pytest.mark.parametrize("arch", ["cnn", "vit", "speednet"])
@pytest.mark.parametrize("optimizer", ["muon", "sgd", "adamw"])
def test_a_training_computes_nothing_in_float64(small_params, data, arch, optimizer):
    """Steps, readings, validation, state and moving average."""
    changes = {"model.arch": arch, "optimizer.name": optimizer, "train.ema": 0.9, "train.clip_grad_norm": 1.0}
    changes |= {"model.vit.depth": 1, "model.speednet.widths": [8], "augment.translate": 2, "augment.brightness": 0.1}
    params = small_params(changes | {"train.epochs": 1})
    step, average = loop.set_up(params, data)
    with NoFloat64():
        loop.train_epoch(step, average, 0)
        loop.validate(average.model, data["val"], step.loader.device, step.precision)


def test_metrics_are_exact_over_all_images_of_a_split(small_params, data, cpu):
    """Sums over images divided by their number, also when the last batch is smaller."""
    params = small_params()
    model = loop.initial_model(params.model, params.train, data, cpu).eval()
    odd = dataset.Split(data["test"].images[:777], data["test"].labels[:777])
    loss, accuracy = loop.validate(model, odd, cpu, "fp32")
    with torch.no_grad():
        logits = model(torch.from_numpy(odd.images).permute(0, 3, 1, 2))
    labels = torch.from_numpy(odd.labels).long()
    assert accuracy == int((logits.argmax(1) == labels).sum()) / 777
    assert loss == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)


def test_bf16_stays_close_to_fp32_over_ten_steps(small_params, data, tmp_path):
    """Half the bits, nearly the same training."""
    losses = {}
    for precision in ("fp32", "bf16"):
        params = small_params({"train.precision": precision, "train.batch_size": 50, "train.epochs": 1})
        losses[precision] = run(params, data, tmp_path / precision).history[0]["train/loss"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)
    assert losses["bf16"] != losses["fp32"]


def test_channels_last_is_a_matter_of_speed_only(small_params, data, tmp_path):
    """The same training in either memory layout, up to rounding."""
    losses = [
        run(
            small_params({"train.channels_last": value, "train.precision": "fp32"}), data, tmp_path / str(value)
        ).history[-1]["train/loss"]
        for value in (True, False)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_moving_average_is_what_is_evaluated_and_returned(small_params, data, tmp_path):
    """After each step, average = decay * average + (1 - decay) * weights; the first step copies."""
    slow = run(small_params({"train.ema": 0.9999}), data, tmp_path / "slow")
    off = run(small_params(), data, tmp_path / "off")
    params = small_params()
    assert digest(slow.model) != digest(off.model)
    start = loop.initial_model(params.model, params.train, data, torch.device("cpu"))

    def distance(model):
        return sum((a - b).abs().sum().item() for a, b in zip(model.parameters(), start.parameters(), strict=True))

    assert distance(slow.model) < 0.5 * distance(off.model)


def test_gradient_clipping_bounds_the_update(small_params, data, cpu):
    """With plain SGD at lr 1 the weights move by exactly the allowed norm."""
    params = small_params({"train.clip_grad_norm": 0.01}).train
    model = loop.initial_model(small_params().model, params, data, cpu)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    images = torch.from_numpy(data["train"].images[:32]).permute(0, 3, 1, 2)
    labels = torch.from_numpy(data["train"].labels[:32]).long()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    step.train_step(model, optimizer, images, labels, params, precision="fp32")
    moved = torch.cat([(a - b).flatten() for a, b in zip(model.parameters(), before, strict=True)]).norm()
    assert moved.item() == pytest.approx(0.01, rel=1e-3)


def test_a_device_that_is_not_there_is_one_line(small_params, data, tmp_path):
    """Also on a machine with one GPU, nobody has a hundredth."""
    params = small_params({"train.device": "cuda:99"})
    with pytest.raises(ParamsError, match=r"train\.device: found cuda:99, but this machine has"):
        run(params, data, tmp_path)


def test_summary_names_the_final_and_the_best_epoch(small_params, data, tmp_path):
    """Both are val accuracies; neither is a time."""
    result = run(small_params(), data, tmp_path)
    history = [{**row, "val/accuracy": value} for row, value in zip(result.history, (0.4, 0.3), strict=True)]
    summary = loop.summary(dataclasses.replace(result, progress=loop.Progress(history)))
    assert (summary["val/accuracy"], summary["val/accuracy_best"], summary["val/epoch_best"]) == (0.3, 0.4, 1)
    assert summary["train/epochs"] == 2
    assert not any("second" in key for key in summary)


def test_a_saved_model_evaluated_again_gives_the_same_accuracy(small_params, data, tmp_path, cpu):
    """What is on disk is what was measured."""
    params = small_params({"train.precision": "fp32"})
    result = run(params, data, tmp_path / "state")
    save_model(tmp_path / "model", result.model, params.model, data.metadata)
    saved = load_model(tmp_path / "model")
    loss, accuracy = loop.validate(saved.model, data["val"], cpu, "fp32")
    assert accuracy == result.history[-1]["val/accuracy"]
    assert loss == pytest.approx(result.history[-1]["val/loss"], rel=1e-5)
