"""A training step, on the device as fast as it can: recorded, compiled or plain, the same arithmetic."""

import pytest
import torch

from pipeline.data.loader import TrainLoader
from pipeline.models.common import numerics
from pipeline.training import loop, optim
from pipeline.training import step as stepping
from pipeline.training.checkpoint import TrainingState
from pipeline.training.loop import initial_model
from tests.training import gpu


def stepper(params, data, place) -> stepping.Stepper:
    numerics.prepare(place, deterministic=True)
    model = initial_model(params.model, params.train, data, place)
    train = params.train
    loader = TrainLoader(
        data["train"],
        params.augment,
        batch_size=train.batch_size,
        seed=train.seed,
        device=place,
        mean=data.metadata.mean,
        hardest=train.hardest,
    )
    precision = numerics.choose_precision(train.precision, place)
    return stepping.Stepper(model, optim.build(params.optimizer, model, precision=precision), loader, train)


def test_a_step_is_forward_backward_update_on_the_loaders_batch(small_params, data, cpu):
    """Held against the same written out with PyTorch's own optimiser."""
    params = small_params({"optimizer.name": "sgd", "train.precision": "fp32", "train.label_smoothing": 0.1})
    step = stepper(params, data, cpu)
    model = initial_model(params.model, params.train, data, cpu)
    weights = [weight for weight in model.parameters() if weight.ndim >= 2]
    vectors = [vector for vector in model.parameters() if vector.ndim < 2]
    decay = params.optimizer.sgd.weight_decay
    reference = torch.optim.SGD(
        [{"params": weights, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=params.optimizer.sgd.lr,
        momentum=params.optimizer.sgd.momentum,
        nesterov=True,
    )
    for (images, labels), indices in zip(list(step.loader.epoch(0)), step.loader.begin(0), strict=True):
        loss, correct = step(indices)
        logits = model(images)
        expected = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
        assert correct.item() == (logits.argmax(1) == labels).sum().item()
        reference.zero_grad()
        expected.backward()
        reference.step()
    for mine, other in zip(step.model.parameters(), model.parameters(), strict=True):
        assert torch.allclose(mine, other, atol=1e-5)


def test_losses_of_single_images_are_kept_if_the_hardest_are_wanted(small_params, data, cpu):
    """Without label smoothing, at the place of each image; what was not in the batch is still infinite."""
    step = stepper(small_params({"train.hardest": 0.5, "train.precision": "fp32"}), data, cpu)
    indices = step.loader.begin(0)[0]
    images, labels = step.loader.batch(indices)
    logits = initial_model(small_params().model, step.params, data, cpu)(images)
    step(indices)
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    assert torch.allclose(step.loader.losses[indices], expected, atol=1e-5)
    assert step.loader.losses.isinf().sum() == len(step.loader) - len(indices)


@pytest.mark.parametrize(("compile_", "expected"), [("auto", False), (True, True), (False, False)])
def test_compiling_is_left_off_on_a_processor_unless_asked_for(small_params, data, cpu, compile_, expected):
    """Its cost is never earned back there."""
    params = small_params({"train.compile": compile_, "train.epochs": 10_000}).train
    step = stepper(small_params(), data, cpu)
    assert stepping.worth_compiling(step.model, step.loader, params) is expected


KINDS = {
    "cnn": {"model.cnn.dropout": 0.2},
    "speednet": {
        "model.arch": "speednet",
        "model.speednet.widths": [16, 32, 32],
        "train.hardest": 0.5,
        "train.resolutions": [24, 32],
    },
    "averaged": {"train.ema": 0.9, "train.clip_grad_norm": 1.0, "augment.translate": 2, "augment.cutout": 8},
}


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def recording(request, monkeypatch) -> str:
    """A device on which steps are recorded: a GPU, and the CPU with a stand-in for CUDA graphs."""
    if request.param == "cpu":
        gpu.record(monkeypatch)
    return request.param


def trained(params, data, folder) -> bytes:
    """Train as the stage does; return all weights."""
    model = loop.train(params, data, TrainingState(folder)).model
    return b"".join(tensor.cpu().contiguous().numpy().tobytes() for tensor in model.state_dict().values())


@pytest.mark.parametrize("optimizer", ["muon", "sgd", "adamw"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_recorded_training_gives_the_weights_of_a_plain_one(
    small_params, data, monkeypatch, tmp_path, recording, optimizer, kind
):
    """To the bit: batches of two sizes, learning rates that change, images that are chosen by their losses."""
    changes = {"train.device": recording, "train.batch_size": 70, "train.epochs": 4, "optimizer.name": optimizer}
    params = small_params(changes | KINDS[kind])
    recorded = trained(params, data, tmp_path / "recorded")
    monkeypatch.setattr(stepping, "WARM_UP_STEPS", 10_000)
    assert trained(params, data, tmp_path / "plain") == recorded


def test_what_a_recording_freezes_shows(small_params, data, monkeypatch, tmp_path):
    """A learning rate that is a number of Python's stays what it was when the step was recorded."""
    gpu.record(monkeypatch)
    monkeypatch.setattr(optim, "_on_gpu", lambda _: False)
    params = small_params({"train.batch_size": 50, "optimizer.name": "sgd"})
    recorded = trained(params, data, tmp_path / "recorded")
    monkeypatch.setattr(stepping, "WARM_UP_STEPS", 10_000)
    assert trained(params, data, tmp_path / "plain") != recorded


def test_an_empty_recording_is_an_error(monkeypatch):
    """Replayed, it would leave the weights as they are: what happens if another GPU than the current one computes."""
    gpu.record(monkeypatch)
    result = torch.tensor(0.0), torch.tensor(0)
    with pytest.raises(UserWarning, match="CUDA Graph is empty"):
        stepping._Graphs(lambda _: result).record((20, 32), torch.zeros(20))
