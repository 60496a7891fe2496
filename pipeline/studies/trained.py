"""Trained networks and images of a study's experiments, for analyses that measure them.

torch is imported inside functions: it takes seconds, which printing a plan does not need.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pipeline.studies.collected import Collected

if TYPE_CHECKING:
    from torch import nn

    from pipeline.data.dataset import Split
    from pipeline.models.common.saved import Saved


def names(collected: Collected, variant: str) -> list[str]:
    """Return the names of a variant's experiments whose training did not diverge, by seed."""
    return [str(name) for name in collected.of(variant).index if name in collected.found]


def network(collected: Collected, name: str) -> "Saved":
    """Return the network of an experiment, on the CPU, in evaluation mode.

    Raises:
        ResultsError: its training diverged, or neither git nor DVC has the files.
    """
    from pipeline.models.common.saved import SIDECAR, WEIGHTS, load_model

    with TemporaryDirectory() as folder:
        _copy(collected, name, ("train", "out"), (WEIGHTS, SIDECAR), Path(folder))
        return load_model(Path(folder))


def untrained(saved: "Saved", seed: int) -> "nn.Module":
    """Return the same network before training, with the initial weights of a `train.seed`."""
    import torch

    from pipeline.models.common.build import build

    data = saved.metadata
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return build(saved.arch, saved.params, mean=data.mean, std=data.std, classes=len(data.classes)).eval()


def images(collected: Collected, name: str, split: str) -> "Split":
    """Return the images of one split ("train", "val" or "test") of an experiment, without augmentation.

    Raises:
        ResultsError: its training diverged, or neither git nor DVC has the files.
    """
    from pipeline.data import dataset

    with TemporaryDirectory() as folder:
        files = ("metadata.json", f"{split}_images.npy", f"{split}_labels.npy")
        _copy(collected, name, ("preprocess", "out"), files, Path(folder))
        return dataset.load(Path(folder), split)[split]


def _copy(collected: Collected, name: str, output: tuple[str, str], files: Sequence[str], folder: Path) -> None:
    """Copy files of an output, identified by its stage and option, to a folder."""
    stage, option = output
    for file in files:
        path = f"{collected.found[name].record.paths[stage][option]}/{file}"
        (folder / file).write_bytes(collected.read(name, path))
