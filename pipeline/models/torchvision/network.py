"""Classification models of torchvision, untrained, with a stem for small images."""

import difflib
import inspect
from typing import get_type_hints

import torch
import torchvision
from torch import Tensor, nn

from pipeline.config.section import IMAGE_SIDE
from pipeline.errors import ParamsError
from pipeline.models.common.build import show_black_image
from pipeline.models.common.layers import Normalize
from pipeline.models.torchvision.params import Params

OPTIONS = {"aux_logits": False, "init_weights": True}
"""Passed to the models that have them: class scores only; weights drawn as the model's paper does."""


class Network(nn.Module):
    """A model of torchvision on normalised images.

    Activations do not overwrite their inputs, so that whoever watches the layer before sees what it gave.

    Raises:
        ParamsError: torchvision has no such model, or the model does not take images of 32 px.
    """

    def __init__(self, params: Params, mean: Tensor, std: Tensor, classes: int) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.model = untrained(params.name, classes)
        if params.stem == "small":
            keep_side(self.model)
        for layer in self.model.modules():
            if hasattr(layer, "inplace"):
                layer.inplace = False  # type: ignore[assignment]  # modules have attributes of any type
        self._check_images_are_taken(params)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(self.normalize(images))
        return logits

    @torch.no_grad()
    def _check_images_are_taken(self, params: Params) -> None:
        try:
            show_black_image(self)
        except (AssertionError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ParamsError(
                f"params.yaml: model.torchvision.name: found {params.name}, which with model.torchvision.stem "
                f"{params.stem} does not take images of {IMAGE_SIDE} px ({reason}); expected one that does, e.g. "
                "resnet18, mobilenet_v3_small or convnext_tiny with stem small; a vision transformer is model.arch vit"
            ) from None


def untrained(name: str, classes: int) -> nn.Module:
    """Return a model of torchvision with weights drawn from torch's global random generator.

    Raises:
        ParamsError: torchvision has no classification model of this name.
    """
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        close = difflib.get_close_matches(name, known) or known
        raise ParamsError(
            f"params.yaml: model.torchvision.name: found {name}, expected a classification model of torchvision: "
            f"{', '.join(close)}"
        )
    builder = torchvision.models.get_model_builder(name)
    accepted = inspect.signature(get_type_hints(builder)["return"]).parameters
    options = {option: value for option, value in OPTIONS.items() if option in accepted}
    model: nn.Module = builder(weights=None, num_classes=classes, **options)
    return model


def keep_side(model: nn.Module) -> None:
    """Change a model's stem so that its first layers keep the side of the image, if they reduce it by a stride.

    Models for images of 224 px halve the side five times, which leaves one pixel of 32. If the first convolution has
    a stride, it becomes one of at most 3x3 with stride 1, as in the CIFAR networks of He et al. 2016
    (https://arxiv.org/abs/1512.03385), and a max pool between it and the next convolution is removed. The last feature
    maps are then 2 or 4 px wide. A model whose first convolution has no stride (VGG) stays as it is.
    """
    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.MaxPool2d)]
    (name, first), (next_name, following), *_ = layers
    if not isinstance(first, nn.Conv2d) or first.stride == (1, 1):
        return
    size = min(first.kernel_size[0], 3)
    bias = first.bias is not None
    model.set_submodule(name, nn.Conv2d(3, first.out_channels, size, padding=size // 2, bias=bias))
    if isinstance(following, nn.MaxPool2d):
        model.set_submodule(next_name, nn.Identity())
