"""Classify image files with an exported network; needs ONNX Runtime and Pillow, not PyTorch."""

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import PredictionError
from pipeline.experiments import git
from pipeline.serving import image_files
from pipeline.serving.image_files import Filter, Picture, Pixels, Unreadable

REGISTRY = "models:/"
"""Prefix of the URI of a model in MLflow's registry."""

TASK_IMAGES = 8
"""Images per task of a reader thread: reading one small image takes less time than scheduling a task."""


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of an image, best first, each with its probability in 0..1."""

    image: str
    best: tuple[tuple[str, float], ...]


class Classifier:
    """An exported network in ONNX Runtime on the CPU.

    Args:
        path: an ONNX file of the export stage; it can be deleted afterwards.
        name: of the model in error messages.

    Attributes:
        side: height and width of the images it takes, in pixels.
        channels: 1 for grey or 3 for RGB.
        classes: class names in the order of the probabilities.

    Raises:
        PredictionError: the file is no ONNX file, or has other inputs or outputs.
    """

    def __init__(self, path: Path, name: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are raised, not printed, too
        options.intra_op_num_threads = processors()
        # Spinning threads would take processor time from the threads that read images.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise PredictionError(f"{name}: not an ONNX file that ONNX Runtime can run: {_line(error)}") from None
        self.name = name
        self.side, self.channels, self.classes = _interface(self._session, name)
        self._input = self._session.get_inputs()[0].name

    def __call__(self, images: Pixels) -> npt.NDArray[np.float32]:
        """Return probabilities (N, classes) of images (N, side, side, channels) uint8.

        Raises:
            PredictionError: ONNX Runtime fails, or the outputs are not probabilities.
        """
        try:
            (probabilities,) = self._session.run(None, {self._input: images})
        except Exception as error:  # as above
            raise PredictionError(f"{self.name}: ONNX Runtime failed: {_line(error)}") from None
        if not (probabilities.min() >= 0 and np.abs(probabilities.sum(1) - 1).max() < 1e-3):  # also catches NaN
            raise PredictionError(
                f"{self.name}: expected probabilities that add up to 1, found {probabilities[0].tolist()}; "
                "export the network again with dvc repro -f export"
            )
        result: npt.NDArray[np.float32] = probabilities
        return result


def load(model: str, root: Path) -> Classifier:
    """Return the classifier from an ONNX file or from MLflow's registry.

    Args:
        model: a path, "models:/NAME@ALIAS" or "models:/NAME/VERSION".
        root: the repository with the default MLflow store.

    Raises:
        PredictionError: there is no such file, or it is not a classifier.
        TrackingError: the registry has no such model, or cannot be reached.
    """
    if model.startswith(REGISTRY):
        from pipeline.tracking import registry

        with tempfile.TemporaryDirectory() as folder:
            return Classifier(registry.model_file(root, model, Path(folder)), model)
    if not Path(model).is_file():
        raise PredictionError(
            f"{model}: no such file; dvc repro creates export/model.onnx, "
            f"--model takes another ONNX file or {REGISTRY}NAME@ALIAS{git.advice(root)}"
        )
    return Classifier(Path(model), model)


def predict(
    classifier: Classifier,
    items: Iterable[str | Unreadable],
    *,
    top: int = 1,
    resample: Filter = "lanczos",
    stretch: bool = False,
    batch_size: int = 64,
) -> Iterator[list[Prediction | Unreadable]]:
    """Classify image files batch by batch; threads read the next batch while one is classified.

    Args:
        items: names of files as `image_files.find` yields them; unreadable ones are passed on.
        top: number of classes to return for each image, at most the number of classes.
        resample, stretch: see `image_files.read`.
        batch_size: images per batch.

    Yields:
        For each item of a batch, in order, a prediction or the reason why there is none.
    """

    def read(task: Sequence[str | Unreadable]) -> list[Picture | Unreadable]:
        side, channels = classifier.side, classifier.channels
        return [
            image_files.read(item, side, channels, resample=resample, stretch=stretch)
            if isinstance(item, str)
            else item
            for item in task
        ]

    def submit() -> list[Future[list[Picture | Unreadable]]]:
        batch = list(islice(waiting, batch_size))
        return [pool.submit(read, batch[start : start + TASK_IMAGES]) for start in range(0, len(batch), TASK_IMAGES)]

    waiting = iter(items)
    pool = ThreadPoolExecutor(processors())
    try:
        upcoming = submit()
        while upcoming:
            current, upcoming = upcoming, submit()
            yield _classify(classifier, [picture for task in current for picture in task.result()], top)
    finally:
        pool.shutdown(cancel_futures=True)


def processors() -> int:
    """Return the number of processors that this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _classify(
    classifier: Classifier, batch: Sequence[Picture | Unreadable], top: int
) -> list[Prediction | Unreadable]:
    pictures = [item for item in batch if isinstance(item, Picture)]
    rows = iter(classifier(np.stack([picture.pixels for picture in pictures])) if pictures else ())
    return [item if isinstance(item, Unreadable) else _best(classifier, item.name, next(rows), top) for item in batch]


def _best(classifier: Classifier, name: str, probabilities: npt.NDArray[np.float32], top: int) -> Prediction:
    labels = np.argsort(-probabilities, kind="stable")[:top]  # of equal ones the first, like argmax
    return Prediction(name, tuple((classifier.classes[label], float(probabilities[label])) for label in labels))


def _interface(session: Any, name: str) -> tuple[int, int, tuple[str, ...]]:
    """Return side, channels and classes of a graph; raise PredictionError if it is no image classifier."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    metadata = session.get_modelmeta().custom_metadata_map
    classes = tuple(metadata["classes"].split(",")) if "classes" in metadata else ()
    if (len(inputs), len(outputs)) == (1, 1):
        match (inputs[0].type, inputs[0].shape, outputs[0].type, outputs[0].shape):
            case ("tensor(uint8)", [str() | None, int(height), width, channels], "tensor(float)", [_, count]):
                if height == width and channels in image_files.MODES and count == len(classes) > 0:
                    return height, channels, classes
    found = ", ".join(f"{node.name} {node.type} {node.shape}" for node in (*inputs, *outputs))
    raise PredictionError(
        f"{name}: not a graph of the export stage: expected images tensor(uint8) [any, side, side, 1 or 3], "
        f"probabilities tensor(float) [any, classes] and as many names in the metadata 'classes'; found {found} and "
        f"{len(classes)} names"
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
