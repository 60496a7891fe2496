"""What is measured, and on what: the project's parameters with changes, and images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer

from pipeline.archives import cifar10, shapes10
from pipeline.config import loading as parameters
from pipeline.config.schema import Params
from pipeline.config.section import IMAGE_SIDE
from pipeline.data import dataset

ROOT = Path(__file__).resolve().parents[1]

GENERATED_IMAGES = 5000
"""Generated images that differ; further ones repeat them, as no speed depends on what they show."""

NARROW_SPEEDNET = {"model.speednet.widths": [32, 64, 128]}
"""The speed runs' network for processors, half as wide as the one of params.yaml."""

ARCHS = ("cnn", "speednet")
ArchOption = Annotated[list[str] | None, typer.Option(help="May be given several times. Default: cnn and speednet.")]
ArchiveOption = Annotated[Path | None, typer.Option(help="Archive in CIFAR-10's binary layout; none: shapes10.")]
DeviceOption = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where the networks run.")]
JsonOption = Annotated[Path | None, typer.Option("--json", help="File to write the results to.")]
ParamsOption = Annotated[Path, typer.Option(help="Parameters of network, augmentation and training.")]


def read_tree(path: Path, changes: Mapping[str, Any]) -> Any:
    """Read a valid params.yaml and set some of its values, unchecked: `{"optimizer.muon.lr": 0.1}`."""
    tree = parameters.read(path)
    parameters.validate(tree, str(path))
    return parameters.changed(tree, changes)


def load_params(path: Path, changes: Mapping[str, Any]) -> Params:
    """Read and validate a params.yaml with some values changed."""
    return parameters.validate(read_tree(path, changes), str(path))


def images(archive: Path | None, *, train: int, val: int = 0) -> dataset.Dataset:
    """Return two splits of the first training images of an archive, or of generated ones.

    Where there are fewer, they are repeated.
    """
    if archive:
        raw = cifar10.read(archive)
        pictures, labels = raw.train_images, raw.train_labels
        name, classes = archive.name, raw.classes
    else:
        records = shapes10.generate(min(train + val, GENERATED_IMAGES), seed=0, noise=25.0, stream=1)
        planes = records[:, 1:].reshape(-1, cifar10.CHANNELS, IMAGE_SIDE, IMAGE_SIDE)
        pictures, labels = np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), records[:, 0]
        name, classes = "shapes10", shapes10.CLASSES
    chosen = np.arange(train + val) % len(labels)
    splits = {
        "train": dataset.Split(pictures[chosen[:train]], labels[chosen[:train]]),
        "val": dataset.Split(pictures[chosen[train:]], labels[chosen[train:]]),
    }
    mean, std = dataset.channel_statistics(splits["train"].images)
    return dataset.Dataset(dataset.Metadata(name, "", classes, mean, std, train), splits)
