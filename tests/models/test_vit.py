"""The vision transformer against closed forms, and its attention against the formula."""

import pytest
import torch

from pipeline.config.loading import load
from pipeline.errors import ParamsError
from pipeline.models.common import cost
from pipeline.models.vit.network import SelfAttention
from tests.conftest import write_params
from tests.models.test_networks import VIT, conv, linear, network, norm, pictures

VARIANTS = [
    {"pooling": "mean"},
    {"pooling": "token", "patch": 4, "mlp_ratio": 4},
    {"width": 10, "heads": 5, "depth": 1, "patch": 16},
]


@pytest.mark.parametrize("changes", VARIANTS)
def test_parameters_and_multiply_accumulates_follow_from_the_shapes(changes):
    """Attention multiplies every token's query with every token's key, and its values as often: 2 T^2 x width."""
    values = VIT | changes
    patch, width, depth = values["patch"], values["width"], values["depth"]
    hidden = values["mlp_ratio"] * width
    patches = (32 // patch) ** 2
    tokens = patches + (values["pooling"] == "token")
    layers = ((width, 3 * width), (width, width), (width, hidden), (hidden, width))
    block = 2 * norm(width) + sum(linear(*shape) for shape in layers)
    parameters = conv(3, width, patch, bias=True) + tokens * width + depth * block + norm(width) + linear(width, 10)
    macs_of_block = tokens * sum(linear(*shape, bias=False) for shape in layers) + 2 * tokens**2 * width
    macs = patches * 3 * patch**2 * width + depth * macs_of_block + width * 10
    assert cost.cost(network("vit", **changes)) == (parameters, macs)


def test_attention_is_that_of_the_paper():
    """softmax(Q K^T / sqrt(d)) V for each head, heads side by side."""
    torch.manual_seed(0)
    tokens = torch.randn(2, 7, 3 * 12, dtype=torch.float64)
    found = SelfAttention(heads=3)(tokens)
    queries, keys, values = tokens.split(12, dim=2)
    for head in range(3):
        own = slice(4 * head, 4 * head + 4)
        scores = queries[..., own] @ keys[..., own].mT / 4**0.5
        assert torch.allclose(found[..., own], scores.softmax(2) @ values[..., own])


def test_scores_depend_on_where_patches_are():
    """Without the learned positions, a shuffled image would have the very same scores."""
    model, images = network("vit").eval(), pictures(4)
    moved = images.roll(8, 3)
    with torch.inference_mode():
        assert not torch.allclose(model(images), model(moved), atol=1e-3)
        model.positions.values.zero_()
        assert torch.allclose(model(images), model(moved), atol=1e-5)


def test_heads_must_divide_the_width(tmp_path):
    """In one line, before anything runs."""
    changes = {"model.arch": "vit", "model.vit.width": 100, "model.vit.heads": 3}
    message = r"model\.vit\.heads: found 3, expected a divisor of model\.vit\.width, 100$"
    with pytest.raises(ParamsError, match=message):
        load(write_params(tmp_path / "params.yaml", changes))


def test_the_default_network_is_small(tmp_path):
    """1 to 3 million parameters."""
    params = load(write_params(tmp_path / "params.yaml", {"model.arch": "vit"})).model
    with torch.device("meta"):
        assert 1e6 < cost.cost(network("vit", **params.section.model_dump()))[0] < 3e6
