"""Architectures: shapes, counts against closed forms, layers against what their names say."""

import itertools
import math
from typing import get_args

import numpy as np
import pytest
import scipy.signal
import torch
from torch import nn

from pipeline.config import architectures
from pipeline.config.schema import ModelParams
from pipeline.config.section import Activation, Init
from pipeline.models.cnn.params import Params as CnnParams
from pipeline.models.common import cost
from pipeline.models.common.build import build
from pipeline.models.common.layers import ACTIVATIONS, INITS, Normalize, initialize
from pipeline.models.mlp.params import Params as MlpParams
from pipeline.models.resnet.params import Params as ResnetParams
from pipeline.models.speednet.params import Params as SpeednetParams
from pipeline.models.torchvision.params import Params as TorchvisionParams
from pipeline.models.vit.params import Params as VitParams

MEAN, STD = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)
CNN = {
    "widths": (8, 16),
    "convs_per_block": 1,
    "kernel_size": 3,
    "activation": "relu",
    "pooling": "max",
    "norm": "none",
    "dropout": 0.0,
    "hidden": (),
    "init": "kaiming",
    "init_scale": 1.0,
}
MLP = {
    "hidden": (20, 30),
    "activation": "relu",
    "norm": "none",
    "dropout": 0.0,
    "init": "kaiming",
    "init_scale": 1.0,
}
RESNET = {"depth": 8, "width": 4, "activation": "relu", "dropout": 0.0}
SPEEDNET = {
    "widths": (4, 8),
    "convs_per_group": 2,
    "activation": "gelu",
    "whitening": True,
    "patch": 2,
}
VIT = {"patch": 8, "width": 12, "depth": 2, "heads": 3, "mlp_ratio": 2, "pooling": "mean", "dropout": 0.0}
TORCHVISION = {"name": "mobilenet_v3_small", "stem": "original"}  # the cheapest
SECTIONS = {
    "cnn": (CnnParams, CNN),
    "mlp": (MlpParams, MLP),
    "resnet": (ResnetParams, RESNET),
    "speednet": (SpeednetParams, SPEEDNET),
    "vit": (VitParams, VIT),
    "torchvision": (TorchvisionParams, TORCHVISION),
}


def network(arch: str, *, seed: int = 0, **changes) -> nn.Module:
    section, values = SECTIONS[arch]
    torch.manual_seed(seed)
    return build(arch, section(**(values | changes)), mean=MEAN, std=STD, classes=10)


def pictures(count: int) -> torch.Tensor:
    """Random (N, 3, 32, 32) uint8, channels last in memory, as the loader feeds them."""
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)).permute(0, 3, 1, 2)


def test_every_architecture_that_params_allow_exists():
    """Folders, model.arch's allowed values and the sections of params.yaml name the same architectures."""
    allowed = get_args(ModelParams.model_fields["arch"].annotation)
    assert set(architectures.NAMES) == set(allowed) == set(ModelParams.model_fields) - {"arch"} == set(SECTIONS)


def test_every_name_that_params_allow_exists():
    """Activations and initialisations, as params.yaml spells them."""
    assert set(ACTIVATIONS) == set(get_args(Activation))
    assert set(INITS) == set(get_args(Init))


POOLINGS = get_args(CnnParams.model_fields["pooling"].annotation)
VARIANTS = [
    *(("cnn", {"pooling": pooling, "norm": norm}) for pooling, norm in itertools.product(POOLINGS, ("batch", "none"))),
    *(("cnn", {"kernel_size": size, "widths": (5,)}) for size in (1, 5, 11)),
    *(
        (arch, {"activation": name})
        for arch, name in itertools.product(SECTIONS, ACTIVATIONS)
        if "activation" in SECTIONS[arch][1]
    ),
    ("cnn", {"widths": (4,) * 5}),
    ("cnn", {"widths": (4,) * 6, "pooling": "none"}),
    ("cnn", {"convs_per_block": 3, "hidden": (12, 11), "dropout": 0.3, "norm": "batch"}),
    ("cnn", {"convs_per_block": (1, 3), "pooling": "stride"}),
    ("cnn", {"init": "orthogonal"}),
    ("mlp", {"hidden": ()}),
    ("mlp", {"hidden": (7,) * 8, "norm": "batch", "dropout": 0.95, "init": "xavier"}),
    ("resnet", {"depth": 20, "width": 1, "dropout": 0.5}),
    ("speednet", {"whitening": False, "patch": 3}),
    ("speednet", {"widths": (3, 5, 7, 9), "convs_per_group": 1, "patch": 1}),
    ("speednet", {"widths": (2,), "convs_per_group": 3, "patch": 4}),
    ("vit", {"pooling": "token", "dropout": 0.5}),
    ("vit", {"patch": 16, "width": 1, "heads": 1}),
    ("torchvision", {"stem": "small"}),
    ("torchvision", {"name": "googlenet", "stem": "original"}),  # gives auxiliary scores in training, too
]


@pytest.mark.parametrize(("arch", "changes"), VARIANTS)
def test_images_become_ten_scores(arch, changes):
    """uint8 in, finite float32 logits out, in training as in evaluation, and each weight gets a gradient."""
    model = network(arch, **changes)
    for mode in (True, False):
        logits = model.train(mode)(pictures(4))
        assert logits.shape == (4, 10)
        assert logits.dtype == torch.float32
        assert logits.isfinite().all()
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)


def test_one_number_of_convolutions_stands_for_all_blocks():
    """2 is [2, 2], to the last weight."""
    one, each = (network("cnn", convs_per_block=convs).state_dict() for convs in (2, (2, 2)))
    assert list(one) == list(each)
    assert all(torch.equal(one[name], each[name]) for name in one)
    assert sum(name.endswith("weight") for name in one) == 5


@pytest.mark.parametrize("arch", SECTIONS)
def test_an_image_is_judged_alone(arch):
    """In evaluation mode an image's scores do not depend on the rest of its batch, nor on the memory layout."""
    model = network(arch).eval()
    images = pictures(6)
    with torch.inference_mode():
        together, alone = model(images), torch.cat([model(image[None]) for image in images])
        assert torch.allclose(together, alone, atol=1e-5)
        assert torch.allclose(together, model(images.contiguous()), atol=1e-5)
        assert torch.allclose(together, model(images.float()), atol=1e-5)


@pytest.mark.parametrize("arch", SECTIONS)
def test_weights_are_a_function_of_the_seed(arch):
    """The same seed gives the same bits."""
    one, same, other = (network(arch, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("arch", ["cnn", "mlp"])
@pytest.mark.parametrize("init", get_args(Init))
def test_initial_weights_of_all_layers_but_the_last_are_scaled(arch, init):
    """By the very factor; biases are still 0, and the layer that gives the class scores is as it was."""
    hidden = {"hidden": (12, 11), "init": init}
    usual = network(arch, **hidden).state_dict()
    scaled = network(arch, **hidden, init_scale=100.0).state_dict()
    last = list(usual)[-2:]
    for name, values in usual.items():
        factor = 100 if name.endswith("weight") and name not in last else 1
        assert torch.equal(scaled[name], factor * values), name
    assert sum(name.endswith("weight") for name in usual) == (5 if arch == "cnn" else 3)


@pytest.mark.parametrize("scale", [0.1, 100.0])
def test_batch_norm_undoes_the_scale_of_the_initial_weights(scale):
    """Where it follows every layer that is scaled: the claim that it saves from improper initialisation."""
    changes = {"norm": "batch", "hidden": (12,)}
    usual, scaled = network("cnn", **changes), network("cnn", **changes, init_scale=scale)
    assert torch.allclose(usual(pictures(8)), scaled(pictures(8)), atol=0.02)
    without = network("cnn", hidden=(12,)), network("cnn", hidden=(12,), init_scale=scale)
    assert not torch.allclose(*(model(pictures(8)) for model in without), atol=0.02)


# Counts


def conv(inputs: int, outputs: int, kernel: int, *, bias: bool = False) -> int:
    return kernel * kernel * inputs * outputs + bias * outputs


def linear(inputs: int, outputs: int, *, bias: bool = True) -> int:
    return inputs * outputs + bias * outputs


def norm(channels: int) -> int:
    """A scale and an offset for each channel."""
    return 2 * channels


@pytest.mark.parametrize(
    ("arch", "changes", "expected"),
    [
        ("cnn", {}, conv(3, 8, 3, bias=True) + conv(8, 16, 3, bias=True) + linear(16 * 8 * 8, 10)),
        ("cnn", {"norm": "batch"}, conv(3, 8, 3) + norm(8) + conv(8, 16, 3) + norm(16) + linear(16 * 8 * 8, 10)),
        ("cnn", {"pooling": "none", "widths": (2,)}, conv(3, 2, 3, bias=True) + linear(2 * 32 * 32, 10)),
        (
            "cnn",
            {"convs_per_block": (1, 2), "kernel_size": 5, "hidden": (12,)},
            conv(3, 8, 5, bias=True)
            + conv(8, 16, 5, bias=True)
            + conv(16, 16, 5, bias=True)
            + linear(16 * 8 * 8, 12)
            + linear(12, 10),
        ),
        ("mlp", {}, linear(3072, 20) + linear(20, 30) + linear(30, 10)),
        ("mlp", {"hidden": ()}, linear(3072, 10)),
        ("mlp", {"hidden": (20,), "norm": "batch"}, linear(3072, 20, bias=False) + norm(20) + linear(20, 10)),
        # Normalisation has an offset only; whitening is computed, not trained; the last layer has no bias.
        ("speednet", {"widths": (8,)}, conv(24, 8, 3) + conv(8, 8, 3) + 2 * 8 + 8 * 10),
        (
            "speednet",
            {"widths": (4, 8), "convs_per_group": 1, "patch": 3, "whitening": False},
            conv(3, 54, 3, bias=True) + conv(54, 4, 3) + 4 + conv(4, 8, 3) + 8 + 8 * 10,
        ),
    ],
)
def test_parameters_are_as_many_as_the_layers_say(arch, changes, expected):
    """A convolution has kernel^2 x inputs x outputs weights; there is no bias where batch norm follows."""
    assert cost.cost(network(arch, **changes))[0] == expected


def test_resnet20_has_the_size_known_from_the_paper():
    """0.27 million: 269,722 for parameter-free shortcuts, and the two 1x1 projections with their norms on top.

    The stem and three stages of three blocks; a block has two 3x3 convolutions, each with batch norm.
    """

    def block(inputs, outputs):
        return conv(inputs, outputs, 3) + norm(outputs) + conv(outputs, outputs, 3) + norm(outputs)

    def projection(inputs, outputs):
        return conv(inputs, outputs, 1) + norm(outputs)

    stem = conv(3, 16, 3) + norm(16)
    stages = 3 * block(16, 16) + block(16, 32) + 2 * block(32, 32) + block(32, 64) + 2 * block(64, 64)
    plain = stem + stages + linear(64, 10)
    assert plain == 269_722
    expected = plain + projection(16, 32) + projection(32, 64)
    assert expected == 272_474
    assert cost.cost(network("resnet", depth=20, width=16))[0] == expected


@pytest.mark.parametrize("depth", [8, 14, 20, 56])
def test_depth_counts_the_layers_with_weights_on_the_path(depth):
    """Convolutions but for the 1x1 shortcuts, and the linear layer."""
    layers = [layer for layer in network("resnet", depth=depth).modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    shortcuts = [layer for layer in layers if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)]
    assert len(layers) - len(shortcuts) == depth
    assert len(shortcuts) == 2


def test_multiply_accumulates_follow_from_the_shapes():
    """A convolution does kernel^2 x inputs x outputs at every output pixel, a linear layer one for each weight."""
    cnn = network("cnn", convs_per_block=(1, 2), norm="batch", hidden=(12,))
    expected = 32 * 32 * 9 * 3 * 8 + 16 * 16 * (9 * 8 * 16 + 9 * 16 * 16) + 16 * 8 * 8 * 12 + 12 * 10
    assert cost.cost(cnn)[1] == expected
    strided = network("cnn", pooling="stride")
    assert cost.cost(strided)[1] == 16 * 16 * 9 * 3 * 8 + 8 * 8 * 9 * 8 * 16 + 16 * 8 * 8 * 10
    assert cost.cost(network("mlp"))[1] == 3072 * 20 + 20 * 30 + 30 * 10


def test_costs_of_layers_add_up_to_the_networks():
    """Each layer with its own share, in the order in which they run, at any side."""
    for arch, side in (("cnn", 32), ("resnet", 24), ("vit", 32), ("torchvision", 32), ("speednet", 20)):
        model = network(arch)
        layers = cost.by_layer(model, side)
        assert (sum(layer.parameters for layer in layers), sum(layer.macs for layer in layers)) == cost.cost(
            model, side
        )
    first = next(layer for layer in layers if layer.kind == "Whitening")
    assert (first.output, first.macs) == ((24, 19, 19), 24 * 12 * 19 * 19)


# Layers


def test_whitened_patches_are_uncorrelated_and_of_unit_variance():
    """The covariance of what the first layer gives for natural-like images is the identity, and again negated."""
    rough = torch.nn.functional.avg_pool2d(
        torch.randn(200, 3, 34, 34, generator=torch.Generator().manual_seed(0)), 3, 1
    )
    images = (128 + 200 * rough).round().clamp(0, 255)
    values = images.permute(1, 0, 2, 3).flatten(1)
    torch.manual_seed(0)
    model = build(
        "speednet", SpeednetParams(**SPEEDNET), mean=values.mean(1).tolist(), std=values.std(1).tolist(), classes=10
    )
    model.fit(images)
    components = model.first(model.normalize(images)).permute(1, 0, 2, 3).flatten(1)
    assert torch.allclose(components[:12], -components[12:], atol=1e-5)
    assert torch.allclose(torch.cov(components[:12]), torch.eye(12), atol=0.05)
    variances = components[:12].double().square().mean(1)
    assert (variances < 1.001).all()  # the constant added to variances only takes away


def test_speednet_starts_as_the_identity_where_channels_allow():
    """A group's first convolution passes its inputs on, its second one all channels."""
    model = network("speednet", widths=(30, 30))
    for convolution in (model.groups[0][0], model.groups[0][4]):
        inputs = torch.randn(2, convolution.in_channels, 8, 8)
        passed = min(convolution.in_channels, convolution.out_channels)
        assert torch.allclose(convolution(inputs)[:, :passed], inputs[:, :passed], atol=1e-6)


@pytest.mark.parametrize(("arch", "changes"), [("resnet", {}), ("speednet", {}), ("speednet", {"patch": 3})])
@pytest.mark.parametrize("side", [16, 24, 31])
def test_networks_with_global_pooling_take_images_of_any_side(arch, changes, side):
    """As train.resolutions needs."""
    logits = network(arch, **changes)(pictures(2)[:, :, :side, :side])
    assert logits.shape == (2, 10)
    assert logits.isfinite().all()


def test_normalised_images_have_zero_mean_and_unit_variance():
    """With the statistics of the images themselves, each channel on its own."""
    images = (pictures(50).float() * torch.tensor([0.9, 0.5, 0.1])[:, None, None]).round()
    channels = images.permute(1, 0, 2, 3).flatten(1).double()
    normalised = Normalize(channels.mean(1), channels.std(1, correction=0))(images.to(torch.uint8))
    assert normalised.dtype == torch.float32
    flat = normalised.permute(1, 0, 2, 3).flatten(1).double()
    assert flat.mean(1).abs().max() < 1e-5
    assert (flat.var(1, correction=0) - 1).abs().max() < 1e-5


def test_a_channel_without_contrast_is_centred_only():
    """A division by 0 would make every score NaN."""
    images = torch.full((2, 3, 4, 4), 7, dtype=torch.uint8)
    normalised = Normalize(torch.tensor([7.0, 5.0, 7.0]), torch.tensor([0.0, 2.0, 0.0]))(images)
    assert normalised[0, :, 0, 0].tolist() == [0.0, 1.0, 0.0]


def test_statistics_are_saved_with_the_weights_but_not_trained():
    """A model file is complete without params.yaml."""
    model = network("mlp")
    assert model.state_dict()["normalize.mean"].flatten().tolist() == pytest.approx(MEAN)
    assert model.state_dict()["normalize.std"].flatten().tolist() == pytest.approx(STD)
    assert not any(name.startswith("normalize") for name, _ in model.named_parameters())


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("relu", lambda x: max(x, 0.0)),
        ("tanh", math.tanh),
        ("sigmoid", lambda x: 1 / (1 + math.exp(-x))),
        ("leaky_relu", lambda x: x if x > 0 else 0.01 * x),
        ("gelu", lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2),
        ("silu", lambda x: x / (1 + math.exp(-x))),
    ],
)
def test_activations_do_what_their_name_says(name, formula):
    """Against the formula, also far from 0."""
    values = [-20.0, -3.0, -1.0, -0.1, 0.0, 0.1, 1.0, 3.0, 20.0]
    out = ACTIVATIONS[name]()(torch.tensor(values))
    assert out.tolist() == pytest.approx([formula(x) for x in values], abs=1e-6)


@pytest.mark.parametrize(("pooling", "reduce"), [("max", np.max), ("avg", np.mean)])
def test_poolings_do_what_their_name_says(pooling, reduce):
    """Every output is the largest value or the mean of a 2x2 square."""
    with_pooling, without = (network("cnn", pooling=kind, widths=(6,)).blocks for kind in (pooling, "none"))
    with_pooling.load_state_dict(without.state_dict())
    with torch.inference_mode():
        before, after = without(pictures(2).float()).numpy(), with_pooling(pictures(2).float()).numpy()
    assert before.shape == (2, 6, 32, 32)
    squares = before.reshape(2, 6, 16, 2, 16, 2)
    assert np.allclose(after, reduce(squares, axis=(3, 5)), rtol=1e-5)


@pytest.mark.parametrize(
    ("pooling", "sides"), [("max", [16, 8, 4]), ("avg", [16, 8, 4]), ("stride", [16, 8, 4]), ("none", [32] * 3)]
)
def test_each_block_but_those_without_pooling_halves_the_side(pooling, sides):
    """With any filter size."""
    for kernel_size in (1, 3, 7):
        model = network("cnn", pooling=pooling, widths=(4, 5, 6), convs_per_block=2, kernel_size=kernel_size)
        x, found = pictures(1).float(), []
        for block in model.blocks:
            x = block(x)
            found.append(x.shape[2])
            assert x.shape[2] == x.shape[3]
        assert found == sides


def test_stride_takes_every_second_value_of_the_full_convolution():
    """No pooling layer: the block's last convolution moves by two pixels."""
    kinds = ("stride", "none")
    strided, full = (network("cnn", pooling=kind, widths=(6,), convs_per_block=2).blocks for kind in kinds)
    strided.load_state_dict(full.state_dict())
    with torch.inference_mode():
        assert torch.allclose(
            strided(pictures(2).float()), full(pictures(2).float())[:, :, ::2, ::2], rtol=1e-4, atol=1e-3
        )


def test_a_convolution_is_the_cross_correlation_of_textbooks():
    """Sobel's filter over an image, against scipy; the border is filled with zeros."""
    sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    image = pictures(1)
    layer = network("cnn", widths=(1,)).blocks[0][0]
    assert isinstance(layer, nn.Conv2d)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.stack([sobel, 2 * sobel.T, 0 * sobel])))
        found = layer(image.float())[0, 0].numpy()
    red, green = image[0, :2].numpy().astype(int)
    expected = scipy.signal.correlate2d(red, sobel, "same") + scipy.signal.correlate2d(green, 2 * sobel.T, "same")
    assert np.array_equal(found, expected)  # whole numbers below 2^24 are exact in float32


def test_a_residual_block_adds_its_input():
    """With the residual switched off, the first stage's blocks only apply their activation."""
    block = network("resnet").stages[0][0]
    for parameter in block.residual.parameters():
        nn.init.zeros_(parameter)
    x = torch.randn(2, 4, 32, 32)
    assert torch.equal(block(x), x.relu())


def test_resnet_stages_halve_the_side_and_double_the_channels():
    """32, 16 and 8 px, then one mean a channel."""
    model = network("resnet", width=4).eval()
    x, shapes = model.stem(pictures(1).float()), []
    for stage in model.stages:
        x = stage(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(4, 32, 32), (8, 16, 16), (16, 8, 8)]
    assert torch.allclose(model.pool(x).flatten(1), x.mean((2, 3)), atol=1e-6)


@pytest.mark.parametrize("arch", [arch for arch, (_, values) in SECTIONS.items() if "dropout" in values])
def test_dropout_acts_in_training_only(arch):
    """Evaluation is the same every time, and the same as without dropout."""
    changes = {"norm": "none"} if "norm" in SECTIONS[arch][1] else {}
    model, plain = (network(arch, dropout=dropout, **changes) for dropout in (0.5, 0.0))
    images = pictures(4)
    with torch.inference_mode():
        assert torch.equal(model.eval()(images), plain.eval()(images))
        model.train()
        assert not torch.equal(model(images), model(images))


def test_dropout_zeroes_the_share_asked_for_and_keeps_the_mean():
    """Inverted dropout: what stays is scaled up."""
    (dropout,) = (
        layer for layer in network("mlp", hidden=(20,), dropout=0.3).modules() if isinstance(layer, nn.Dropout)
    )
    out = dropout.train()(torch.ones(100_000))
    assert (out == 0).float().mean() == pytest.approx(0.3, abs=0.01)
    assert out.mean() == pytest.approx(1, abs=0.01)


# Initialisation

LAYERS = [(lambda: nn.Conv2d(64, 128, 3), 64 * 9, 128 * 9), (lambda: nn.Linear(500, 300), 500, 300)]


@pytest.mark.parametrize(("make", "fan_in", "fan_out"), LAYERS, ids=["conv", "linear"])
def test_he_and_glorot_weights_have_the_spread_of_their_papers(make, fan_in, fan_out):
    """He: variance 2 / inputs. Glorot: 2 / (inputs + outputs). Biases start at 0."""
    torch.manual_seed(0)
    for init, variance in (("kaiming", 2 / fan_in), ("xavier", 2 / (fan_in + fan_out))):
        layer = make()
        initialize(layer, init)
        assert layer.weight.std().item() == pytest.approx(variance**0.5, rel=0.02)
        assert abs(layer.weight.mean().item()) < 0.02 * variance**0.5
        assert (layer.bias == 0).all()


@pytest.mark.parametrize("make", [make for make, _, _ in LAYERS], ids=["conv", "linear"])
def test_orthogonal_filters_are_orthonormal(make):
    """Each output's weights have length 1 and are perpendicular to every other's."""
    torch.manual_seed(0)
    layer = make()
    initialize(layer, "orthogonal")
    rows = layer.weight.flatten(1)
    assert (rows @ rows.T - torch.eye(len(rows))).abs().max() < 1e-5


def test_init_reaches_every_layer():
    """Of a network with convolutions and hidden layers, all weights are drawn as asked."""
    model = network("cnn", init="orthogonal", hidden=(12,))
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len(layers) == 4
    for layer in layers:
        rows = layer.weight.flatten(1)
        assert torch.allclose(rows @ rows.T, torch.eye(len(rows)), atol=1e-5)
