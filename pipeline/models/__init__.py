"""One architecture a file, and `MODELS`, which names them as `model.arch` does."""

import torch
from torch import nn

from pipeline.models.cnn import Cnn
from pipeline.models.mlp import Mlp
from pipeline.models.resnet import Resnet
from pipeline.models.speednet import Speednet
from pipeline.schema import Section

MODELS: dict[str, type[nn.Module]] = {
    "cnn": Cnn,
    "mlp": Mlp,
    "resnet": Resnet,
    "speednet": Speednet,
}


def build(arch: str, params: Section, *, mean: tuple[float, ...], std: tuple[float, ...], classes: int) -> nn.Module:
    """Make a network with weights drawn from torch's global random generator.

    Args:
        arch: a name in `MODELS`.
        params: that architecture's section of params.yaml.
        mean, std: of each channel in grey levels (0..255); they become buffers, saved along with the weights.
        classes: number of scores.

    Returns:
        A module from (N, 3, 32, 32) images, uint8 or float in grey levels, to (N, classes) logits. `Speednet` and
        `Resnet` take any side that leaves a pixel to pool; what `fit_first_layer` computes is still 0.
    """
    return MODELS[arch](params, torch.tensor(mean), torch.tensor(std), classes)
