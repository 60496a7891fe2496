"""Maps of what a score rests on, held against networks of which that is known."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.errors import InspectionError
from pipeline.explanation import attribution
from tests.models.test_networks import network

CORNER = 8
FILL = torch.tensor([120.0, 110.0, 100.0])


class Linear(nn.Module):
    """Two scores that are weighted sums of all pixels in all channels."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.scores = nn.Linear(3 * 32 * 32, 2)

    def forward(self, images):
        return self.scores(images.float().flatten(1))


class Pooled(nn.Module):
    """A 1x1 convolution, ReLU, the mean over all places, a linear layer; it sees a corner of `seen` pixels."""

    def __init__(self, seen=32):
        super().__init__()
        torch.manual_seed(0)
        self.seen = seen
        self.convolution = nn.Conv2d(3, 4, 1, bias=False)  # so that black excites nothing
        self.activation = nn.ReLU()
        self.scores = nn.Linear(4, 3)

    def forward(self, images):
        corner = torch.zeros_like(images, dtype=torch.float32)
        corner[..., : self.seen, : self.seen] = images[..., : self.seen, : self.seen]
        return self.scores(self.activation(self.convolution(corner)).mean((2, 3)))


def bright_corner() -> nn.Module:
    """A network whose scores are, but for a factor, the mean brightness of the top left corner."""
    model = Pooled(CORNER)
    with torch.no_grad():
        model.convolution.weight.fill_(1 / 3)
        model.scores.weight.fill_(1)
    return model


@pytest.fixture
def image() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(150, 256, (3, 32, 32), dtype=torch.uint8, generator=generator)


def test_integrated_gradients_of_a_linear_network_are_weight_times_difference(image):
    """Exactly, and so they add up to the difference of the scores."""
    model = Linear()
    weights = model.scores.weight[1].detach().reshape(3, 32, 32)
    expected = (weights * (image.float() - FILL[:, None, None])).sum(0).numpy()
    found = attribution.integrated_gradients(model, image, 1, fill=FILL)
    assert np.allclose(found, expected, atol=1e-4)
    assert found.sum() == pytest.approx(attribution.score_above(model, image, 1, fill=FILL), abs=1e-3)


def test_covering_single_pixels_of_a_linear_network_takes_away_their_share(image):
    """With a square of one pixel, occlusion and integrated gradients are the same there; batches change nothing."""
    model = Linear()
    found = attribution.occlusion(model, image, 0, fill=FILL, side=1, stride=1, batch_size=100)
    assert np.allclose(found, attribution.integrated_gradients(model, image, 0, fill=FILL), atol=1e-3)
    assert np.allclose(found, attribution.occlusion(model, image, 0, fill=FILL, side=1, stride=1), atol=1e-3)


@pytest.mark.parametrize("arch", ["cnn", "mlp", "resnet", "speednet"])
def test_integrated_gradients_are_complete_for_every_architecture(arch, image):
    """To a hundredth of what the pixels add up to in absolute terms, though ReLU's kinks make it no polynomial."""
    # Before whitening is computed it lets nothing through.
    model = network(arch, **({"whitening": False} if arch == "speednet" else {})).eval()
    found = attribution.integrated_gradients(model, image, 3, fill=FILL, steps=256, batch_size=100)
    gap = found.sum() - attribution.score_above(model, image, 3, fill=FILL)
    assert abs(gap) < 0.01 * np.abs(found).sum()


def test_grad_cam_is_hot_in_the_corner_a_network_looks_at_and_nowhere_else(image):
    """Where the network sees nothing, no feature is active."""
    found = attribution.grad_cam(bright_corner(), image, 0)
    assert found[:CORNER, :CORNER].min() > 0
    found[:CORNER, :CORNER] = 0
    assert not found.any()


def test_occlusion_is_hot_in_the_corner_a_network_looks_at_and_nowhere_else(image):
    """To within the squares that reach into it; squares that fit the corner show it exactly."""
    model = bright_corner()
    exact = attribution.occlusion(model, image, 0, fill=FILL, side=4, stride=4)
    assert exact[:CORNER, :CORNER].min() > 0
    exact[:CORNER, :CORNER] = 0
    assert not exact.any()
    coarse = attribution.occlusion(model, image, 0, fill=FILL, side=8, stride=2)
    assert coarse[0, 0] == coarse.max() > 0
    assert not coarse[CORNER + 7 :].any()
    assert not coarse[:, CORNER + 7 :].any()


def test_a_pixel_that_speaks_against_a_class_is_below_zero(image):
    """Occlusion and integrated gradients have signs."""
    model = bright_corner()
    with torch.no_grad():
        model.scores.weight[1] = -1
    for method in (attribution.occlusion, attribution.integrated_gradients):
        found = method(model, image, 1, fill=FILL)
        assert found[0, 0] < 0
        assert found.max() <= 0


def test_squares_reach_every_edge_of_an_image(image):
    """33 pixels are no multiple of the step: the last squares are cut off at the end."""
    larger = nn.functional.pad(image.float(), (0, 1, 0, 1), value=255.0)

    class Last(nn.Module):
        def forward(self, images):
            return images[:, 0, -1, -1][:, None].float()

    found = attribution.occlusion(Last(), larger, 0, fill=FILL, side=8, stride=3)
    assert np.isfinite(found).all()
    assert found[-1, -1] == pytest.approx(255 - 120)


def test_grad_cam_is_the_class_activation_map_where_that_is_defined(image):
    """Zhou et al. 2016: with global average pooling, the linear layer's weights weight the feature maps."""
    model = Pooled()
    with torch.no_grad():
        model.scores.weight.abs_()
        maps = model.activation(model.convolution(image.float()))
        expected = torch.einsum("c,chw->hw", model.scores.weight[2], maps).relu() / 32**2
    assert expected.max() > 0
    assert np.allclose(attribution.grad_cam(model, image, 2), expected.numpy(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("arch", "side"), [("cnn", 8), ("resnet", 8), ("speednet", 3)])
def test_grad_cam_takes_the_last_feature_maps_before_pooling(arch, side, image):
    """Where pixels still have places, and after the norm and the activation."""
    changes = {"cnn": {"widths": (8, 16, 24), "pooling": "max"}, "speednet": {"widths": (8, 16, 24)}}
    model = network(arch, **changes.get(arch, {})).eval()
    shapes = []
    layer = attribution.last_feature_layer(model, image[None].float())
    with layer.register_forward_hook(lambda _layer, _inputs, output: shapes.append(output.shape)):
        model(image[None])
    assert isinstance(layer, nn.ReLU | nn.GELU)
    assert shapes[0][2:] == (side, side)
    assert attribution.grad_cam(model, image, 0).shape == (32, 32)
    assert not any(module._forward_hooks for module in model.modules())


def test_grad_cam_says_what_an_mlp_lacks(image):
    """It has no place that a feature belongs to."""
    with pytest.raises(
        InspectionError, match=r"^Grad-CAM: this network has no convolution whose outputs are feature maps"
    ):
        attribution.grad_cam(network("mlp").eval(), image, 0)


def test_a_map_that_does_not_depend_on_the_weights_fails_the_check(image):
    """An edge detector that ignores the network, as in Adebayo et al.: correlation 1, whatever the sign."""

    def brightness(_model, image, _label):
        return image.float().mean(0).numpy() - 200

    trained = brightness(None, image, 0)
    found = attribution.sanity(brightness, Linear(), image, 0, -trained, seed=0, draws=3)
    assert found.correlations == pytest.approx((1, 1, 1))
    assert str(found) == "+1.00 (+1.00 to +1.00, n = 3)"
    assert np.array_equal(found.example, trained)


def test_a_map_of_what_has_been_learned_passes_the_check():
    """Without contrast in the image the map is the weights alone, and those of random networks are others."""
    model = Linear()
    with torch.no_grad():
        model.scores.weight.view(2, 3, 32, 32)[..., CORNER:, :] = 0  # it has learned to look at the top
    method = partial(attribution.integrated_gradients, fill=FILL)
    flat = torch.full((3, 32, 32), 200, dtype=torch.uint8)
    found = attribution.sanity(method, model, flat, 0, method(model, flat, 0), seed=0, draws=5)
    assert len(set(found.correlations)) == 5
    assert max(np.abs(found.correlations)) < 0.15


@pytest.mark.parametrize("arch", ["cnn", "mlp", "resnet", "speednet"])
def test_a_randomised_network_has_forgotten_all_it_learned_and_the_trained_one_nothing(arch):
    """The same seed gives the same network, torch's generator is left alone, what was computed stays."""
    model = network(arch).eval()
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.add_(0.25)  # no weight is as it is drawn or set at the start
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    first, again, other = (attribution.randomised(model, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    kept = {name for name, tensor in before.items() if torch.equal(first[name], tensor)}
    assert kept <= {"normalize.mean", "normalize.std", "first.filters"} | {n for n in before if n.endswith("tracked")}
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_an_empty_map_has_no_correlation_instead_of_passing_the_check(image):
    """All that the corner's brightness does is speak against this class."""
    model = bright_corner()
    with torch.no_grad():
        model.scores.weight[1] = -1
    empty = attribution.grad_cam(model, image, 1)
    assert not empty.any()
    found = attribution.sanity(attribution.grad_cam, model, image, 1, empty, seed=0, draws=3)
    assert found.correlations == ()
    assert str(found) == "none, as the map is the same everywhere"


def test_rank_correlation_is_that_of_absolute_values_and_none_for_an_even_map():
    """A monotone change is none."""
    rising = np.arange(1, 10, dtype=np.float32).reshape(3, 3)
    assert attribution.rank_correlation(rising, -(rising**3)) == pytest.approx(1)
    assert attribution.rank_correlation(rising, 1 / rising) == pytest.approx(-1)
    assert attribution.rank_correlation(rising, np.ones_like(rising)) is None
