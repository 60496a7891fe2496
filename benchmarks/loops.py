"""Three ways to train the same network for an epoch: this project's, the bare step, and the one of tutorials.

Each function here prepares one of them in the present process and returns what to time: a function that trains on as
many images as there are in the train split and returns the peak memory so far, in MiB.
"""

import contextlib
import itertools
from collections.abc import Callable
from unittest import mock

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from pipeline.config.schema import Params
from pipeline.data.dataset import Dataset, Split
from pipeline.hardware import device
from pipeline.models.common import numerics
from pipeline.training import loop
from pipeline.training.step import WARM_UP_STEPS, train_step

WORKERS = 2
"""Processes that load images in the conventional loop."""

Epoch = Callable[[], float]


def ours(params: Params, data: Dataset, *, allocator: bool = True) -> Epoch:
    """Prepare what `loop.train` does between two validations.

    Args:
        allocator: False: without the setting that lets the C library keep freed memory.
    """
    with contextlib.nullcontext() if allocator else mock.patch.object(numerics, "keep_freed_memory"):
        step, average = loop.set_up(params, data)
    epochs = itertools.cycle(range(params.train.epochs))

    def epoch() -> float:
        loop.train_epoch(step, average, next(epochs))
        return device.peak_memory_mib(step.loader.device)

    return epoch


def bare_step(params: Params, data: Dataset) -> Epoch:
    """Prepare forward, backward and update on one batch of random images that stays on the device.

    Nothing else: no loading, no augmentation, no learning rate, no count of right answers. On a GPU it is recorded
    and replayed as this project's steps are.
    """
    step, _ = loop.set_up(params, data)
    place, size = step.loader.device, params.train.batch_size
    random = torch.Generator().manual_seed(params.train.seed)
    images = torch.randint(256, (size, *data["train"].images.shape[1:]), dtype=torch.uint8, generator=random)
    images = images.to(place).permute(0, 3, 1, 2)
    labels = torch.randint(len(data.metadata.classes), (size,), generator=random).to(place)
    step.model.train()

    def once() -> None:
        train_step(step.forward, step.optimizer, images, labels, params.train, precision=step.precision)

    for _ in range(WARM_UP_STEPS):
        once()
    go: Callable[[], None] = once
    if place.type == "cuda":
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            once()
        go = graph.replay

    def epoch() -> float:
        for _ in range(step.loader.steps(0)):
            go()
        device.synchronize(place)
        return device.peak_memory_mib(place)

    return epoch


def conventional(params: Params, data: Dataset) -> Epoch:
    """Prepare the loop of tutorials on the same network.

    PIL images are augmented by torchvision in worker processes, which stay from epoch to epoch; the network is
    trained in float32 and torch's default memory format by SGD with Nesterov momentum, the loss is read after every
    step, and torch's settings are those it starts with. Peak memory is without the workers.
    """
    from torchvision import transforms  # takes seconds, and nothing else here needs it

    place = device.choose(params.train.device)
    plain = params.train.model_copy(update={"channels_last": False})
    model = loop.initial_model(params.model, plain, data, place)
    model.normalize = nn.Identity()  # the transforms do it
    mean, std = ([level / 255 for level in levels] for levels in (data.metadata.mean, data.metadata.std))
    transform = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4, padding_mode="reflect"),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
    )
    loader = torch.utils.data.DataLoader(
        PilImages(data["train"], transform),
        batch_size=params.train.batch_size,
        shuffle=True,
        num_workers=WORKERS,
        pin_memory=place.type == "cuda",
        persistent_workers=True,
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)

    def epoch() -> float:
        model.train()
        running_loss = 0.0
        for images, labels in loader:
            images, labels = images.to(place, non_blocking=True), labels.to(place, non_blocking=True)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), labels, label_smoothing=params.train.label_smoothing)
            loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
            optimizer.step()
            running_loss += loss.item()
        return device.peak_memory_mib(place)

    return epoch


class PilImages(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """A split as torchvision's datasets give theirs: each image made a PIL image, then transformed."""

    def __init__(self, split: Split, transform: Callable[[Image.Image], Tensor]) -> None:
        self.split, self.transform = split, transform

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.split.images[index])), int(self.split.labels[index])
