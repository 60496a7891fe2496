"""The airbench package from the index (extra `bench`), fed with the same images; it runs on CUDA GPUs only."""

import contextlib
import importlib.util
import io
import tempfile
from pathlib import Path

import torch

from benchmarks.airbench_muon import Outcome
from pipeline.data import dataset
from pipeline.errors import ParamsError


def require(place: torch.device) -> None:
    """Say whether the package can be run.

    Raises:
        ParamsError: it is not installed, or the device is none it runs on.
    """
    if place.type != "cuda":
        raise ParamsError(f"--package: airbench runs on CUDA GPUs only, found {place}")
    if importlib.util.find_spec("airbench") is None:
        raise ParamsError("--package: airbench is not installed; run pip install '.[bench]'")


def run(images: dataset.Dataset, seed: int) -> Outcome:
    """Train with `airbench.train94`; seconds and accuracy are what it measures and prints itself.

    It looks for its tensors in `cifar10/train.pt` and `test.pt` below the working folder and downloads only what is
    not there, so the given images are laid there, in a temporary folder.
    """
    import airbench

    printed = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), contextlib.redirect_stdout(printed):
        Path("cifar10").mkdir()
        for split in ("train", "test"):
            content = {
                "images": torch.from_numpy(images[split].images),
                "labels": torch.from_numpy(images[split].labels).long(),
                "classes": images.metadata.classes,
            }
            torch.save(content, Path("cifar10") / f"{split}.pt")  # noqa: TID251  # what airbench reads
        airbench.warmup94(verbose=True)  # with verbose off it would train to the end
        torch.manual_seed(seed)
        airbench.train94(verbose=True)
    return parse(printed.getvalue())


def parse(printed: str) -> Outcome:
    """Read the package's table: the last epoch's total of seconds, and the accuracy of its six views.

    Its total in the row "eval" has the evaluation in it, which is not counted here on any side.
    """
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line.startswith("|")]
    epochs = [row for row in rows if row[1].isdigit()]
    (evaluation,) = (row for row in rows if row[1] == "eval")
    return Outcome(seconds=float(epochs[-1][6]), accuracy=float(evaluation[5]))
