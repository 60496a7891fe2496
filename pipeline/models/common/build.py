"""Build a network by its architecture's name, and ask it what other code needs to know of it.

An architecture is a folder `pipeline/models/NAME`. Its params.py holds `Params`, a pydantic model of its section of
params.yaml; its network.py holds `Network(params, mean, std, classes)`, a module from (N, 3, H, W) images in grey
levels (0..255), uint8 or float, to (N, classes) logits. `mean` and `std` are (3,) tensors in grey levels.

A network may say more of itself; each of these is optional and has a default that is right for any module:

- `fit(images)` computes from (N, 3, H, W) uint8 training images what is not learned. Default: nothing.
- `head` is the layer that gives the class scores. Default: the `nn.Linear` that runs last, if there is one.
- `feature_stages` are its modules whose outputs are feature maps (N, C, H, W), in order. Default: found by running
  the network once, see `pipeline.models.common.features`.
"""

import importlib

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from pipeline.config.section import IMAGE_SIDE
from pipeline.models.common import substitutes


def build(arch: str, params: BaseModel, *, mean: tuple[float, ...], std: tuple[float, ...], classes: int) -> nn.Module:
    """Make a network with weights drawn from torch's global random generator.

    Args:
        arch: name of a folder in pipeline/models.
        params: that architecture's section of params.yaml.
        mean, std: of each channel in grey levels (0..255).
        classes: number of scores.

    Returns:
        A module from (N, 3, 32, 32) images, uint8 or float in grey levels, to (N, classes) logits. What `fit`
        computes is not fitted yet.
    """
    network = importlib.import_module(f"pipeline.models.{arch}.network").Network
    model = network(params, torch.tensor(mean), torch.tensor(std), classes)
    assert isinstance(model, nn.Module), f"pipeline/models/{arch}/network.py: Network is no nn.Module"
    substitutes.apply(model)
    return model


@torch.no_grad()
def fit(model: nn.Module, images: Tensor) -> None:
    """Let a network compute from (N, 3, H, W) uint8 training images what it does not learn, if it has a `fit`."""
    compute = getattr(model, "fit", None)
    if callable(compute):
        compute(images)


def head(model: nn.Module) -> nn.Module | None:
    """Return the layer that gives the class scores: the network's `head`, else the linear layer that runs last."""
    own = getattr(model, "head", None)
    if isinstance(own, nn.Module):
        return own
    ran: list[nn.Module] = []
    hooks = [
        layer.register_forward_hook(lambda layer, _inputs, _output: ran.append(layer))
        for layer in model.modules()
        if isinstance(layer, nn.Linear)
    ]
    if hooks:
        show_black_image(model)
    for hook in hooks:
        hook.remove()
    return ran[-1] if ran else None


def show_black_image(model: nn.Module, side: int = IMAGE_SIDE) -> None:
    """Run a network once on a black image of `side` px, in evaluation mode, for those who watch its layers."""
    training = model.training
    place = next(model.parameters()).device
    model.eval()(torch.zeros(1, 3, side, side, dtype=torch.uint8, device=place))
    model.train(training)
