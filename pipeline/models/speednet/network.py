"""The network of the CIFAR-10 speed runs: a fixed whitening layer, groups of convolutions, a linear layer."""

import itertools

import torch
from torch import Tensor, nn

from pipeline.models.common.layers import ACTIVATIONS, Normalize
from pipeline.models.speednet.params import Params

WHITENING_EPS = 5e-4
"""Added to each variance (of normalised pixels), so that noise in the smallest components is not blown up."""

IMAGES_AT_ONCE = 250
"""Images whose patches are held in memory at a time."""


class Network(nn.Module):
    """Filters of `patch` x `patch` px, groups of 3x3 convolutions that each halve the side, global max pooling.

    The layout is that of cifar10-airbench (Jordan 2024, https://arxiv.org/abs/2404.00498), which descends from
    Page's DAWNBench entry (2019): with `whitening`, the first layer's filters are the principal components of the
    training images' patches and their negatives, scaled to unit variance, and are not trained; a group's first
    convolution is pooled before it is normalised; normalisation learns a shift only; each convolution starts as the
    identity on as many channels as it can (Zagoruyko & Komodakis 2017, https://arxiv.org/abs/1706.00388). Unlike
    there, the whitening layer has no trained bias, so that nothing before the first group needs a gradient, and the
    small scale of the class scores is in the head's initial weights.
    """

    def __init__(self, params: Params, mean: Tensor, std: Tensor, classes: int) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        filters = 2 * 3 * params.patch**2
        self.first = Whitening(params.patch) if params.whitening else nn.Conv2d(3, filters, params.patch)
        self.activation = ACTIVATIONS[params.activation]()
        widths = (filters, *params.widths)
        self.groups = nn.Sequential(
            *(_group(params, inputs, outputs) for inputs, outputs in itertools.pairwise(widths))
        )
        self.head = nn.Linear(widths[-1], classes, bias=False)
        nn.init.normal_(self.head.weight, std=1 / widths[-1])

    def forward(self, images: Tensor) -> Tensor:
        x = self.normalize(images)
        x = self.activation(self.first(x))
        x = self.groups(x)
        logits: Tensor = self.head(x.amax((2, 3)))
        return logits

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Compute the whitening filters, if there are any, from (N, 3, H, W) training images in grey levels."""
        if isinstance(self.first, Whitening):
            self.first.fit(self.normalize(images))


class Whitening(nn.Module):
    """A convolution without padding whose filters turn patches into uncorrelated components of unit variance.

    The filters are the eigenvectors of the patches' covariance over the roots of their eigenvalues, then the same
    with the opposite sign, so that no half is lost in an activation such as ReLU: (N, 3, H, W) to
    (N, 6 * patch^2, H - patch + 1, W - patch + 1).
    """

    filters: Tensor

    def __init__(self, patch: int) -> None:
        super().__init__()
        components = 3 * patch**2
        # A buffer: saved with the weights, and of no concern to the optimiser.
        self.register_buffer("filters", torch.zeros(2 * components, 3, patch, patch))

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.conv2d(images, self.filters)

    def fit(self, images: Tensor) -> None:
        """Compute the filters from (N, 3, H, W) normalised images; the sums are in float64."""
        components, _, patch, _ = self.filters.shape
        covariance = torch.zeros(components // 2, components // 2, dtype=torch.float64)
        for part in torch.split(images, IMAGES_AT_ONCE):
            patches = nn.functional.unfold(part.double(), patch).transpose(1, 2).flatten(0, 1)
            covariance += patches.mT @ patches
        covariance /= len(images) * (images.shape[2] - patch + 1) * (images.shape[3] - patch + 1)  # their mean is 0
        variances, directions = torch.linalg.eigh(covariance)
        # An eigenvector's sign is anybody's choice, and libraries differ: its largest entry shall be positive.
        largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
        scaled = (directions * largest.sign() / (variances + WHITENING_EPS).sqrt()).mT.flip(0)
        filters = scaled.reshape(components // 2, 3, patch, patch)
        self.filters.copy_(torch.cat([filters, -filters]))


def _group(params: Params, inputs: int, outputs: int) -> nn.Sequential:
    """Return [convolution, pooling, norm, activation], then [convolution, norm, activation] for the others."""
    layers: list[nn.Module] = []
    for number in range(params.convs_per_group):
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        nn.init.dirac_(convolution.weight[: min(inputs, outputs)])
        # The running average forgets fast, as a training may have no more than a hundred steps.
        norm = nn.BatchNorm2d(outputs, momentum=0.4)
        norm.weight.requires_grad_(False)
        pooling = [nn.MaxPool2d(2)] if number == 0 else []
        layers += [convolution, *pooling, norm, ACTIVATIONS[params.activation]()]
        inputs = outputs
    return nn.Sequential(*layers)
