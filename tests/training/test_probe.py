"""What is seen between epochs: gradients against closed forms, and that the training is left alone."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.config.schema import AugmentParams
from pipeline.data.dataset import Split
from pipeline.data.loader import TrainLoader
from pipeline.models.common import activity
from pipeline.training import probe

EVERYTHING = AugmentParams(flip="random", translate=4, cutout=8, brightness=0.3, contrast=0.3)


def batch(images: int = 6, inputs: int = 5, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(images, inputs, generator=rng), torch.randint(0, classes, (images,), generator=rng)


def by_layer(model, images, labels, *, label_smoothing=0.0) -> dict[str, dict]:
    rows = probe.look(model, images, labels, label_smoothing=label_smoothing, epoch=0)
    assert all(tuple(row) == probe.COLUMNS for row in rows)
    return {row["layer"]: row for row in rows}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradients_of_a_linear_network_are_those_of_the_formula(smoothing):
    """For logits U V x and cross-entropy: (p - y) (V x)^T for U and U^T (p - y) x^T for V, averaged over images."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4, bias=False), nn.Linear(4, 3, bias=False))
    images, labels = batch()
    found = by_layer(model, images, labels, label_smoothing=smoothing)

    x = images.double().numpy()
    v, u = (layer.weight.detach().double().numpy() for layer in model)
    logits = x @ v.T @ u.T
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    targets = (1 - smoothing) * np.eye(3)[labels.numpy()] + smoothing / 3
    error = (probs - targets) / len(x)
    expected = {"0": ((error @ u).T @ x, v), "1": (error.T @ (x @ v.T), u)}
    for name, (gradient, weights) in expected.items():
        norm = np.linalg.norm(gradient)
        assert found[name]["gradient_norm"] == pytest.approx(norm, rel=1e-5)
        assert found[name]["relative_gradient"] == pytest.approx(norm / np.linalg.norm(weights), rel=1e-5)
        assert found[name]["kind"] == "Linear"
        assert [found[name][key] for key in ("mean", "saturated", "dead")] == [None] * 3


def test_a_vanishing_gradient_is_not_zero():
    """1e-30, whose square float32 does not know."""
    images, labels = batch()
    model = nn.Sequential(nn.Linear(5, 4, bias=False), nn.Linear(4, 3, bias=False))
    nn.init.constant_(model[1].weight, 1e-30)
    model[1].weight.data[0] = 2e-30
    found = by_layer(model, images, labels)
    assert 1e-32 < found["0"]["gradient_norm"] < 1e-28
    nn.init.zeros_(model[1].weight)
    found = by_layer(model, images, labels)
    assert found["0"]["gradient_norm"] == 0
    assert found["1"]["relative_gradient"] is None  # there is nothing to be relative to


def test_a_dead_unit_and_a_saturated_layer_are_seen_and_stop_the_gradient():
    """Half of the rectifiers never fire; of the saturated tanh nothing comes back."""
    images, labels = batch()
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    with torch.no_grad():
        model[0].bias.copy_(torch.tensor([1e3, -1e3, 1e3, -1e3]))
        model[2].weight.fill_(1.0)
    found = by_layer(model, images, labels)
    assert list(found) == ["0", "1", "2", "3", "4"]
    assert (found["1"]["kind"], found["1"]["dead"], found["1"]["saturated"]) == ("ReLU", 0.5, None)
    assert (found["3"]["kind"], found["3"]["dead"], found["3"]["saturated"]) == ("Tanh", None, 1.0)
    assert found["3"]["mean"] == pytest.approx(1.0)
    assert found["1"]["gradient_norm"] is found["1"]["relative_gradient"] is None
    assert found["0"]["gradient_norm"] == found["2"]["gradient_norm"] == 0 < found["4"]["gradient_norm"]


def test_looking_leaves_the_network_and_the_random_numbers_alone():
    """Weights, statistics, gradients, modes and generators are what they were, also with dropout and batch norm."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)).eval()
    images, labels = batch()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random = torch.get_rng_state()
    first = probe.look(model, images, labels, label_smoothing=0.1, epoch=2)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module.training or module._forward_hooks for module in model.modules())
    assert probe.look(model, images, labels, label_smoothing=0.1, epoch=2) == first
    assert {row["epoch"] for row in first} == {2}


def test_batch_norm_is_seen_as_in_training():
    """With the batch's own statistics: what the running ones say has no effect."""
    images, labels = batch()
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    before = by_layer(model, images, labels)
    model[1].running_mean.fill_(100.0)
    assert by_layer(model, images, labels) == before
    assert list(before) == ["0", "2", "3"]  # a vector of scales is no layer with weights here
    assert before["2"] | vars(activity.measure(model[:3](images), model[2])) == before["2"]


def loader(count: int, batch_size: int, seed: int) -> TrainLoader:
    """Random images, shown to be the very ones by their labels: the last digit of the first pixel."""
    images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    split = Split(images, images[:, 0, 0, 0] % 10)
    return TrainLoader(
        split, EVERYTHING, batch_size=batch_size, seed=seed, device=torch.device("cpu"), mean=(127.0,) * 3
    )


@pytest.mark.parametrize(("count", "batch_size", "expected"), [(700, 600, 500), (700, 40, 40), (30, 40, 30)])
def test_the_batch_is_drawn_from_the_seed_and_not_augmented(count, batch_size, expected):
    """The same whatever training has done meanwhile; no larger than a training step's."""
    feed = loader(count, batch_size, seed=3)
    images, labels = probe.fixed_batch(feed)
    assert images.shape == (expected, 3, 32, 32)
    assert images.dtype == torch.uint8
    assert torch.equal(images[:, 0, 0, 0] % 10, labels.to(torch.uint8))
    stored = {image.numpy().tobytes() for image in feed.images}
    assert {image.permute(1, 2, 0).contiguous().numpy().tobytes() for image in images} <= stored
    list(feed.epoch(1))
    assert torch.equal(probe.fixed_batch(feed)[0], images)
    assert not torch.equal(probe.fixed_batch(loader(count, batch_size, seed=4))[0], images)


def test_a_network_of_the_project_has_a_row_for_every_layer(small_params, data, cpu):
    """In the order in which they run, finite, with shares between 0 and 1."""
    from pipeline.training import loop

    params = small_params({"model.arch": "resnet", "model.resnet.depth": 8, "model.resnet.width": 4})
    model = loop.initial_model(params.model, params.train, data, cpu)
    images = torch.from_numpy(data["train"].images[:20]).permute(0, 3, 1, 2)
    labels = torch.from_numpy(data["train"].labels[:20]).long()
    rows = probe.look(model, images, labels, label_smoothing=0.1, epoch=0)
    kinds = [row["kind"] for row in rows]
    assert (kinds.count("Conv2d"), kinds.count("Linear"), kinds.count("ReLU")) == (9, 1, 7)
    assert (rows[0]["layer"], rows[1]["layer"], rows[-1]["layer"]) == ("stem.0", "stem.2", "classifier")
    assert all(math.isfinite(row["gradient_norm"]) for row in rows if row["kind"] != "ReLU")
    assert all(0 <= row["dead"] <= 1 for row in rows if row["kind"] == "ReLU")
