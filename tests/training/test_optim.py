"""Optimisers and schedules, held against PyTorch's own where the two coincide."""

import itertools

import pytest
import torch
from torch import nn

from pipeline.config.loading import load
from pipeline.config.schema import TrainParams
from pipeline.models.common.build import fit
from pipeline.training import optim
from pipeline.training.step import train_step
from tests.models.test_networks import SECTIONS, pictures
from tests.models.test_networks import network as architecture
from tests.paths import ROOT

DEFAULTS = load(ROOT / "params.yaml")


def settings(**changes) -> TrainParams:
    usual = {"schedule": "constant", "warmup": 0.0}
    return DEFAULTS.train.model_copy(update=usual | changes)


def build(model: nn.Module, name: str = "sgd", **changes) -> torch.optim.Optimizer:
    """An optimiser of that name, all else as in params.yaml."""
    section = getattr(DEFAULTS.optimizer, name).model_copy(update=changes)
    params = DEFAULTS.optimizer.model_copy(update={"name": name, name: section})
    return optim.build(params, model, precision="fp32")


def rates(steps: int, **changes) -> list[float]:
    """The learning rates of a whole training, for a peak of 0.4."""
    params = settings(**changes)
    return [0.4 * optim.schedule(params, step, steps) for step in range(steps)]


def torchs(scheduler, steps: int, *, start: float = 0.4, skip: int = 0, **arguments) -> list[float]:
    """The learning rates of one of PyTorch's schedulers, from its step `skip` on."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=start)
    schedule = scheduler(optimizer, **arguments)
    out = []
    for _ in range(skip + steps):
        out.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return out[skip:]


def test_constant_is_constant():
    """The same rate in every step."""
    assert rates(50) == [0.4] * 50


def test_cosine_is_pytorchs_cosine():
    """CosineAnnealingLR that would reach 0 in the step after the last; its step 0 is left out."""
    expected = torchs(torch.optim.lr_scheduler.CosineAnnealingLR, 50, T_max=51, skip=1)
    assert rates(50, schedule="cosine") == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "onecycle"])
def test_warmup_is_pytorchs_linear_warmup(schedule):
    """LinearLR over the first 20 of 100 steps, from a twentieth of the peak to the peak."""
    expected = torchs(torch.optim.lr_scheduler.LinearLR, 20, start_factor=1 / 20, end_factor=1, total_iters=19)
    assert rates(100, schedule=schedule, warmup=0.2)[:20] == pytest.approx(expected, rel=1e-9)


def test_onecycle_is_pytorchs_triangle():
    """OneCycleLR with straight lines, with the first and last rates set to ours."""
    expected = torchs(
        torch.optim.lr_scheduler.OneCycleLR,
        100,
        max_lr=0.4,
        total_steps=101,  # it refuses to be stepped beyond its end
        pct_start=20 / 101,
        anneal_strategy="linear",
        cycle_momentum=False,
        div_factor=20,
        final_div_factor=1e9,
    )
    assert rates(100, schedule="onecycle", warmup=0.2) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("warmup", [0.1, 0.25, 0.9])
@pytest.mark.parametrize("schedule", ["onecycle", "cosine"])
def test_the_peak_is_reached_exactly_at_the_end_of_warmup(schedule, warmup):
    """Rising before, falling after, nearly 0 at the end, never 0 where a step would be lost."""
    found = rates(200, schedule=schedule, warmup=warmup)
    peak = round(warmup * 200) - 1
    assert found[peak] == max(found) == pytest.approx(0.4, rel=1e-12)
    assert all(a < b for a, b in itertools.pairwise(found[: peak + 1]))
    assert all(a > b for a, b in itertools.pairwise(found[peak:]))
    assert 0 < found[-1] < 0.4 * 0.06
    assert found[0] > 0


@pytest.mark.parametrize("schedule", ["constant", "cosine", "onecycle"])
@pytest.mark.parametrize("warmup", [0.0, 0.2, 0.9])
@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_short_trainings_get_sensible_rates(schedule, warmup, steps):
    """Positive, and at most the peak, also where warm-up is a fraction of a step."""
    found = rates(steps, schedule=schedule, warmup=warmup)
    assert all(0 < rate <= 0.4 * (1 + 1e-12) for rate in found)


class Floats(nn.Sequential):
    """Layers that are shown uint8 images."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images.float())


def network() -> nn.Module:
    torch.manual_seed(0)
    pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    return Floats(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), *pooled)


def test_weight_decay_acts_on_matrices_only():
    """Filters and linear weights decay; biases and batch norm's scales and offsets do not."""
    model = network()
    decayed, spared = build(model).param_groups
    assert decayed["weight_decay"] == 5e-4
    assert spared["weight_decay"] == 0
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(parameter)] for parameter in decayed["params"]} == {"0.weight", "4.weight"}
    assert {names[id(parameter)] for parameter in spared["params"]} == {"0.bias", "1.weight", "1.bias", "4.bias"}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_without_gradients_decay_is_all_that_moves_weights(optimizer):
    """One step shrinks matrices by lr x weight decay and leaves vectors alone."""
    model = network()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimiser = build(
        model, optimizer, lr=0.4, weight_decay=0.01, **{"beta1" if optimizer == "adamw" else "momentum": 0.0}
    )
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    for name, parameter in model.named_parameters():
        factor = 1 - 0.4 * 0.01 if parameter.ndim > 1 else 1
        assert torch.allclose(parameter, before[name] * factor, rtol=1e-6), name


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.9, True), (0.0, False)])
def test_sgd_has_nesterovs_momentum_where_there_is_momentum(momentum, nesterov):
    """PyTorch refuses Nesterov's method without momentum."""
    optimizer = build(network(), lr=0.4, momentum=momentum)
    assert type(optimizer) is torch.optim.SGD
    for group in optimizer.param_groups:
        assert (group["lr"], group["momentum"], group["nesterov"]) == (0.4, momentum, nesterov)


def test_adamw_takes_beta1():
    """beta2 stays at its customary 0.999."""
    optimizer = build(network(), "adamw", beta1=0.85, lr=0.001, weight_decay=5e-4)
    assert type(optimizer) is torch.optim.AdamW
    for group in optimizer.param_groups:
        assert (group["lr"], group["betas"]) == (0.001, (0.85, 0.999))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [5e-4, 0.0]


def test_set_rate_scales_every_group_from_its_own_peak():
    """Twice in a row is not twice the factor."""
    optimizer = build(network(), "muon", lr=0.1, lr_vectors=0.02, lr_head=0.03)
    peaks = [group["lr"] for group in optimizer.param_groups]
    assert sorted(peaks) == [0.02, 0.03, 0.1]
    for factor in (0.5, 0.25, 1.0):
        optim.set_rate(optimizer, factor)
        assert [group["lr"] for group in optimizer.param_groups] == [factor * peak for peak in peaks]


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (6, 6)])
def test_orthogonalisation_keeps_directions_and_levels_their_strengths(shape):
    """U S V^T becomes roughly U V^T: the same singular vectors, singular values between 0.6 and 1.25, any scale."""
    torch.manual_seed(0)
    matrices = torch.randn(3, *shape) * torch.tensor([1e-3, 1.0, 1e3])[:, None, None]
    for matrix, found in zip(matrices, optim.orthogonalize(matrices, steps=10), strict=True):
        assert found.shape == shape
        left, _, right = torch.linalg.svd(matrix.double(), full_matrices=False)
        strengths = left.T @ found.double() @ right.T
        assert ((strengths.diagonal() > 0.6) & (strengths.diagonal() < 1.25)).all()
        assert (strengths - torch.diag(strengths.diagonal())).abs().max() < 1e-3


def test_muon_moves_hidden_weights_by_orthogonal_matrices_and_the_rest_by_sgd():
    """The size of a gradient does not matter to hidden weights; biases and the last layer follow Nesterov's SGD."""
    model = network()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = build(model, "muon", lr=0.1, lr_vectors=0.02, lr_head=0.03, momentum=0.9, weight_decay=0.0)
    last = [name for name, parameter in model.named_parameters() if parameter.ndim == 2][-1]
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.grad = 1000 * torch.randn_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        step = (before[name] - parameter.detach()) / {"0.weight": 0.1, last: 0.03}.get(name, 0.02)
        if name == "0.weight":
            strengths = torch.linalg.svdvals(step.flatten(1))
            assert ((strengths > 0.6) & (strengths < 1.25)).all()
        else:
            assert torch.allclose(step, 1.9 * parameter.grad, rtol=1e-3, atol=1e-2), name


def test_muon_is_a_plain_loop_over_matrices_by_singular_value_decomposition():
    """Five steps of three convolutions, two of one shape: close to the same steps taken one by one with SVD."""
    torch.manual_seed(0)
    pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    model = Floats(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3), *pooled)
    optimizer = build(model, "muon", lr=0.1, weight_decay=0.5, momentum=0.6, steps=5)
    weights = [layer.weight for layer in model if isinstance(layer, nn.Conv2d)]
    expected = [weight.detach().double() for weight in weights]
    buffers = [torch.zeros_like(weight) for weight in expected]
    for _ in range(5):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        for number, weight in enumerate(weights):
            gradient = weight.grad.double()
            buffers[number] = 0.6 * buffers[number] + gradient
            left, _, right = torch.linalg.svd((gradient + 0.6 * buffers[number]).flatten(1), full_matrices=False)
            expected[number] = expected[number] * (1 - 0.1 * 0.5) - 0.1 * (left @ right).view_as(weight)
        optimizer.step()
    for weight, wanted in zip(weights, expected, strict=True):
        moved = (weight.double() - wanted).norm() / (0.5 * len(weight) ** 0.5)
        assert moved < 0.3  # of the distance walked: Newton-Schulz leaves singular values between 0.7 and 1.2
        assert torch.nn.functional.cosine_similarity(weight.double().flatten(), wanted.flatten(), dim=0) > 0.98


def test_more_iterations_lift_weaker_directions():
    """steps 3 is coarser than 5: the smallest singular value of square matrices is further from 1."""
    torch.manual_seed(0)
    matrices = torch.randn(4, 64, 64)
    weakest = [torch.linalg.svdvals(optim.orthogonalize(matrices, steps=steps)).min() for steps in (1, 3, 5)]
    assert 3 * weakest[0] < weakest[1] < weakest[2] / 3


def test_tokens_positions_and_scales_are_vectors():
    """Muon has no matrix to orthogonalise in them, and weight decay does not act on them; a layer's weights decay."""
    model = network()
    for name, shape in {"token": (1, 1, 4), "positions": (1, 9, 4), "scales": (4, 1, 1), "table": (9, 4)}.items():
        model.register_parameter(name, nn.Parameter(torch.zeros(shape)))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for optimizer, head in (("muon", set()), ("adamw", {"4.weight"})):
        hidden, vectors, *_ = (
            {names[id(parameter)] for parameter in group["params"]} for group in build(model, optimizer).param_groups
        )
        assert hidden == {"0.weight", "table"} | head
        assert vectors == {"0.bias", "1.weight", "1.bias", "4.bias", "token", "positions", "scales"}


def test_a_layers_weights_are_a_matrix_also_with_one_row_or_column():
    """A convolution to one channel, and a 1x1 convolution from one."""
    model = nn.Sequential(nn.Conv2d(3, 1, 3), nn.Conv2d(1, 4, 1))
    hidden, vectors = (group["params"] for group in build(model).param_groups)
    assert [len(parameters) for parameters in (hidden, vectors)] == [2, 2]
    assert all(parameter.ndim == 4 for parameter in hidden)


@pytest.mark.parametrize("optimizer", ["muon", "sgd", "adamw"])
@pytest.mark.parametrize("arch", SECTIONS)
def test_a_step_of_any_network_is_finite_and_reproducible(arch, optimizer):
    """In bfloat16, twice to the same bits, and every trained parameter moves."""
    after = []
    for _ in range(2):
        model = architecture(arch)
        fit(model, pictures(50))
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        train_step(model, build(model, optimizer), pictures(4), torch.arange(4), settings(), precision="bf16")
        after.append(dict(model.named_parameters()))
    assert all(parameter.isfinite().all() for parameter in after[0].values())
    assert all(torch.equal(parameter, after[1][name]) for name, parameter in after[0].items())
    moved = {name for name, parameter in after[0].items() if not torch.equal(parameter, before[name])}
    assert moved == {name for name, parameter in after[0].items() if parameter.requires_grad}


def test_parameters_that_are_not_trained_are_left_alone():
    """A normalisation whose scale is fixed."""
    model = network()
    model[1].weight.requires_grad_(False)
    for name in ("muon", "sgd", "adamw"):
        groups = build(model, name).param_groups
        assert not any(parameter is model[1].weight for group in groups for parameter in group["params"])
