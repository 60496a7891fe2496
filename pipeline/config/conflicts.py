"""Invalid combinations of parameters whose values are each in range.

These checks affect no output: they predict the numbers of images that the data packages compute later.
"""

import math
from collections.abc import Iterator

from pipeline.config.schema import CIFAR10_TRAIN_IMAGES, Params, TrainParams
from pipeline.config.section import CLASSES, IMAGE_SIDE


def found(params: Params) -> Iterator[str]:
    """Yield an error message for each invalid combination of values."""
    data, train = params.data, params.train
    yield from _architecture(params)
    yield from _numbers_of_images(params)
    if (data.archive is None) != (data.sha256 is None):
        present, absent = ("archive", "sha256") if data.sha256 is None else ("sha256", "archive")
        yield f"data.{absent}: found null, expected a value, as data.{present} is set (sha256sum FILE prints it)"
    if len(train.resolutions) > train.epochs:
        yield (
            f"train.resolutions: found {len(train.resolutions)} sides, expected at most train.epochs, {train.epochs}"
        )
    evaluate = params.evaluate
    if 0 < evaluate.robustness < CLASSES:
        yield f"evaluate.robustness: found {evaluate.robustness}, expected 0 or at least {CLASSES}, one of each class"
    if evaluate.shift % evaluate.shift_step:
        yield (
            f"evaluate.shift: found {evaluate.shift}, expected a multiple of evaluate.shift_step, "
            f"{evaluate.shift_step}"
        )


def _architecture(params: Params) -> Iterator[str]:
    arch, section = params.model.arch, params.model.section
    for key, message in getattr(section, "conflicts", tuple)():
        yield f"model.{arch}.{key}: {message}"
    resolutions, smallest = params.train.resolutions, getattr(section, "smallest_side", IMAGE_SIDE)
    if min(resolutions) < smallest:
        sides = "sides" if smallest < IMAGE_SIDE else f"[{IMAGE_SIDE}]: sides"
        yield (
            f"train.resolutions: found {list(resolutions)}, expected {sides} of at least {smallest} px, the smallest "
            f"images that model.arch {arch} accepts with its settings"
        )


def _numbers_of_images(params: Params) -> Iterator[str]:
    """Yield an error message if there are too few images for validation, training or a batch."""
    data, batch_size = params.data, params.train.batch_size
    if data.dataset == "cifar10":
        total, source = CIFAR10_TRAIN_IMAGES, "CIFAR-10's 50000 training images"
    else:
        total, source = data.shapes10.train_images, "data.shapes10.train_images"
    rest = total - data.val_images
    used = round(data.train_share * rest)
    smallest = getattr(params.model.section, "smallest_batch", 1)
    if rest < CLASSES:
        yield f"data.val_images: found {data.val_images}, expected at most {total - CLASSES}, 10 less than {source}"
    elif used < CLASSES:
        yield (
            f"data.train_share: found {data.train_share}, which is {used} of the {rest} training images that "
            "data.val_images leaves; expected at least 10, one of each class"
        )
    elif batch_size > used:
        yield (
            f"train.batch_size: found {batch_size}, expected at most {used}, the training images that "
            f"data.val_images and data.train_share leave of {source}"
        )
    elif _smallest_batch(params.train, used) < smallest:
        yield (
            f"train.batch_size: found {batch_size}, which makes a batch of one of the {used} training images; "
            f"expected at least {smallest} in each batch, which batch normalisation needs"
        )


def _smallest_batch(train: TrainParams, images: int) -> int:
    """Return the size of the smallest batch: an epoch's batches differ by at most one image."""
    counts = {images, math.ceil(train.hardest * images)}
    return min(count // math.ceil(count / train.batch_size) for count in counts)
