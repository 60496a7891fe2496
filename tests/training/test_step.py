"""A training step, on the device as fast as it can: recorded, compiled or plain, the same arithmetic."""

import pytest
import torch

from pipeline.data.loader import TrainLoader
from pipeline.models.common import numerics
from pipeline.training import optim
from pipeline.training import step as stepping
from pipeline.training.loop import initial_model


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


def walk(step: stepping.Stepper, epochs: int) -> torch.Tensor:
    """Take all steps of some epochs and return the weights, one after the other."""
    for epoch in range(epochs):
        for indices in step.loader.begin(epoch):
            step(indices)
    return torch.cat([parameter.detach().flatten().cpu() for parameter in step.model.parameters()])


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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a CUDA GPU; plain steps are tested above")
@pytest.mark.parametrize("optimizer", ["muon", "sgd", "adamw"])
@pytest.mark.parametrize("changes", [{}, {"model.arch": "speednet", "train.hardest": 0.5}], ids=["cnn", "speednet"])
def test_a_recorded_step_gives_the_weights_of_a_plain_one(small_params, data, monkeypatch, optimizer, changes):
    """To the bit, over two epochs of many steps."""
    params = small_params({"train.device": "cuda", "train.batch_size": 20, "optimizer.name": optimizer, **changes})
    recorded = walk(stepper(params, data, torch.device("cuda")), 2)
    monkeypatch.setattr(stepping, "WARM_UP_STEPS", 10_000)
    plain = walk(stepper(params, data, torch.device("cuda")), 2)
    assert torch.equal(recorded, plain)
