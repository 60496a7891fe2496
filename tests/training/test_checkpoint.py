"""Weights and training state: they come back bit for bit or not at all, and nothing in them can run code."""

import json
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pipeline.config import architectures
from pipeline.data import dataset
from pipeline.errors import CheckpointError
from pipeline.models.common.saved import SIDECAR, WEIGHTS, load_model, save_model
from pipeline.training import checkpoint, optim
from pipeline.training.loop import initial_model
from tests.paths import ROOT

METADATA = dataset.Metadata(
    "shapes10", "0" * 64, tuple("abcdefghij"), (120.1, 110.2, 100.3), (50.5, 51.6, 52.7), train_images=500
)
SGD = {"optimizer.name": "sgd"}
CHANGES = {
    "model.mlp.hidden": [16],
    "model.resnet.depth": 8,
    "model.resnet.width": 4,
    "model.speednet.widths": [4],
    "model.vit.depth": 1,
    "model.torchvision.name": "mobilenet_v3_small",
}


NOISE = dataset.Split(
    np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), dtype=np.uint8), np.arange(10, dtype=np.uint8)
)


def network(params):
    return initial_model(params.model, params.train, dataset.Dataset(METADATA, {"train": NOISE}), torch.device("cpu"))


def images(count=8, seed=0):
    """Random (N, 3, 32, 32) uint8."""
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def steps(model, optimizer, first, last):
    """Train on batches that depend on the step's number alone."""
    model.train()
    for step in range(first, last):
        labels = torch.arange(8) + step
        loss = F.cross_entropy(model(images(seed=step)), labels % 10)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def same(one, other) -> bool:
    one, other = one.state_dict(), other.state_dict()
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def saved(small_params, tmp_path):
    """A saved cnn: its folder, which a test may damage, and the network in it."""
    params = small_params()
    model = network(params)
    save_model(tmp_path / "model", model, params.model, METADATA)
    return tmp_path / "model", model


def complaint(folder) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)
    assert "run dvc " in str(caught.value)
    return str(caught.value)


# Models


@pytest.mark.parametrize("arch", architectures.NAMES)
def test_a_saved_network_gives_identical_logits(arch, small_params, tmp_path):
    """After some training, so that batch norm's running statistics count; the sidecar says all that is needed."""
    params = small_params({**CHANGES, "model.arch": arch})
    model = network(params)
    steps(model, optim.build(params.optimizer, model, precision="fp32"), 0, 2)
    save_model(tmp_path / "model", model, params.model, METADATA)
    found = load_model(tmp_path / "model")
    assert not found.model.training
    with torch.inference_mode():
        # The layout in memory selects the convolution's algorithm and so its rounding.
        model, loaded = (net.eval().to(memory_format=torch.contiguous_format) for net in (model, found.model))
        assert torch.equal(model(images()), loaded(images()))
    assert found.arch == arch
    assert found.params == getattr(params.model, arch)
    assert found.metadata == METADATA


def test_saving_twice_gives_the_same_bytes(saved, small_params, tmp_path):
    """DVC sees an unchanged model as unchanged, whatever the layout in memory was."""
    folder, model = saved
    save_model(tmp_path / "again", model.to(memory_format=torch.contiguous_format), small_params().model, METADATA)
    for name in (WEIGHTS, SIDECAR):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "weights.safetensors"]


@pytest.mark.parametrize("at", [0, 20, -1])
def test_one_changed_byte_in_the_weights_is_noticed(saved, at):
    """In the header as in the last weight; the message has both hashes."""
    folder, _ = saved
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[at] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    message = complaint(folder)
    assert f"{folder / WEIGHTS}: expected SHA-256 " in message
    assert json.loads((folder / SIDECAR).read_text())["weights_sha256"] in message


@pytest.mark.parametrize("name", [WEIGHTS, SIDECAR])
def test_a_missing_file_is_named(saved, name):
    """With the command that makes it."""
    folder, _ = saved
    (folder / name).unlink()
    assert f"{folder / name}: no such file; run dvc repro train" in complaint(folder)


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "{}", '"text"', "\xff"])
def test_a_sidecar_that_is_nonsense_is_refused(saved, text):
    """Whatever the file holds, it is one line that names it."""
    folder, _ = saved
    (folder / SIDECAR).write_text(text, encoding="latin-1")
    assert f"{folder / SIDECAR}: not a model's description" in complaint(folder)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("arch", "transformer", "no architecture 'transformer'"),
        ("arch", "arch", "no architecture 'arch'"),
        ("arch", "mlp", "not a model's description"),
        ("params", {}, "not a model's description"),
        ("dataset", {"name": "x"}, "not a model's description"),
        ("params.widths", [8, 17], "not the network of weights.safetensors"),
        ("params.convs_per_block", [1, 1, 1], "not the network of weights.safetensors"),
        ("dataset.mean", ["a", "b", "c"], "not the network of weights.safetensors"),
        ("dataset.mean", [1.0], "not the network of weights.safetensors"),
        ("dataset.classes", ["a", "b"], "not the network of weights.safetensors"),
    ],
)
def test_a_sidecar_that_describes_another_network_is_refused(saved, key, value, expected):
    """Valid JSON, edited by hand."""
    folder, _ = saved
    sidecar = json.loads((folder / SIDECAR).read_text())
    *sections, last = key.split(".")
    target = sidecar[sections[0]] if sections else sidecar
    target[last] = value
    (folder / SIDECAR).write_text(json.dumps(sidecar))
    message = complaint(folder)
    assert message.startswith(f"{folder / SIDECAR}: ")
    assert expected in message


# Training state


@pytest.mark.parametrize(
    "changes",
    [
        SGD | {"optimizer.sgd.momentum": 0.9},
        SGD | {"optimizer.sgd.momentum": 0.0},
        {"optimizer.name": "adamw"},
        {"optimizer.name": "muon"},
    ],
)
@pytest.mark.parametrize("fused", [False, True])
def test_a_restored_training_goes_on_as_if_never_interrupted(small_params, tmp_path, changes, fused):
    """Two steps, a save, two steps in a fresh process's place: identical to four steps, moving average included.

    Fused kernels, as on a GPU, take it for granted that state and weights have the same strides.
    """
    params = small_params(changes)

    def fresh():
        model = network(params)
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
        optimizer = optim.build(params.optimizer, model, precision="fp32")
        for group in optimizer.param_groups:
            group["fused"] = fused
        return model, average, optimizer

    model, average, optimizer = fresh()
    steps(model, optimizer, 0, 2)
    average.update_parameters(model)
    history = [{"epoch": 1, "lr": 0.1 + 0.2}]
    checkpoint.TrainingState(tmp_path / "state").save({"model": model, "average": average}, optimizer, history, {})
    steps(model, optimizer, 2, 4)
    average.update_parameters(model)

    other, other_average, other_optimizer = fresh()
    steps(other, other_optimizer, 7, 8)  # a state of its own, which restoring has to replace
    modules = {"model": other, "average": other_average}
    assert checkpoint.TrainingState(tmp_path / "state").restore(modules, other_optimizer, {}) == history
    assert not same(model, other)
    steps(other, other_optimizer, 2, 4)
    other_average.update_parameters(other)
    assert same(model, other)
    assert same(average, other_average)


def test_without_a_saved_state_training_starts_anew(small_params, tmp_path):
    """Nothing is touched."""
    params = small_params()
    model = network(params)
    optimizer = optim.build(params.optimizer, model, precision="fp32")
    assert checkpoint.TrainingState(tmp_path / "absent").restore({"model": model}, optimizer, {}) is None
    assert same(model, network(params))


def test_a_save_replaces_the_one_before_and_leaves_no_litter(small_params, tmp_path):
    """One file, that of the last epoch."""
    params = small_params()
    model = network(params)
    optimizer = optim.build(params.optimizer, model, precision="fp32")
    state = checkpoint.TrainingState(tmp_path / "state")
    for epoch in range(3):
        state.save({"model": model}, optimizer, epoch, {})
    assert [path.name for path in state.path.parent.iterdir()] == [checkpoint.STATE]
    assert state.restore({"model": model}, optimizer, {}) == 2


@pytest.mark.parametrize("damage", ["header", "progress", "weights", "cut", "empty", "text"])
def test_a_damaged_state_is_refused(small_params, tmp_path, damage):
    """Also where only a weight has changed, which safetensors itself does not notice."""
    params = small_params()
    model = network(params)
    optimizer = optim.build(params.optimizer, model, precision="fp32")
    state = checkpoint.TrainingState(tmp_path / "state")
    state.save({"model": model}, optimizer, {"seconds": 1234}, {})
    content = bytearray(state.path.read_bytes())
    if damage == "header":
        content[2] ^= 1
    elif damage == "progress":
        content[content.index(b"1234")] ^= 1
    elif damage == "weights":
        content[-1] ^= 1
    content = {"cut": content[:-100], "empty": b"", "text": b"not a state " * 10}.get(damage, content)
    state.path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        state.restore({"model": model}, optimizer, {})
    assert str(caught.value).startswith(f"{state.path}: not a training state that fits (")
    assert len(str(caught.value).splitlines()) == 1


def test_the_state_of_another_network_is_refused(small_params, tmp_path):
    """It cannot happen while the fingerprint names the folder; a copied file can make it happen."""
    params, other = small_params(), small_params({"model.cnn.widths": [8, 17]})
    state = checkpoint.TrainingState(tmp_path / "state")
    model = network(params)
    state.save({"model": model}, optim.build(params.optimizer, model, precision="fp32"), None, {})
    model = network(other)
    with pytest.raises(CheckpointError, match="not a training state that fits"):
        state.restore({"model": model}, optim.build(other.optimizer, model, precision="fp32"), {})


def test_a_finished_training_removes_its_state(small_params, tmp_path):
    """File and folder, but not the folder of another training; a second time does no harm."""
    params = small_params()
    model = network(params)
    one, other = (checkpoint.TrainingState(tmp_path / "states" / name) for name in ("one", "other"))
    for state in (one, other):
        state.save({"model": model}, optim.build(params.optimizer, model, precision="fp32"), None, {})
    for _ in range(2):
        one.remove()
        assert [path.name for path in (tmp_path / "states").iterdir()] == ["other"]


def test_removing_spares_what_is_not_its_own(tmp_path):
    """Somebody's file in the folder stays."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "notes.txt").write_text("mine")
    checkpoint.TrainingState(tmp_path / "state").remove()
    assert (tmp_path / "state" / "notes.txt").exists()


# Fingerprint


def test_fingerprint_changes_with_settings_data_and_code():
    """Any of them can change a training's result; the order of settings cannot."""
    settings = {"params": {"optimizer.muon.lr": 0.1, "train.epochs": 2}, "machine": {"device": "cpu"}}
    digests = [checkpoint.fingerprint(settings, "data", "code")]
    for key, value in (("machine", {"device": "cuda"}), ("params", {"optimizer.muon.lr": 0.1})):
        digests += [checkpoint.fingerprint(settings | {key: value}, "data", "code")]
    digests.append(checkpoint.fingerprint(settings, "other data", "code"))
    digests.append(checkpoint.fingerprint(settings, "data", "other code"))
    assert len(set(digests)) == 5
    assert all(len(digest) == 64 for digest in digests)
    assert checkpoint.fingerprint(dict(reversed(settings.items())), "data", "code") == digests[0]


def test_no_array_may_hold_a_pickle():
    """What ruff's banned functions (pyproject.toml) leave out: an argument of numpy's."""
    sources = [path.read_text() for folder in ("pipeline", "stages") for path in (ROOT / folder).rglob("*.py")]
    assert set(re.findall(r"allow_pickle=(\w+)", "".join(sources))) == {"False"}
