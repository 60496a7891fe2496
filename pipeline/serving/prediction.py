"""An exported network put to use: what is in these image files? Needs ONNX Runtime and Pillow, not PyTorch."""

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
from pipeline.serving import image_files
from pipeline.serving.image_files import Filter, Picture, Pixels, Unreadable

REGISTRY = "models:/"
"""Begins the name of a model in MLflow's registry."""

TASK_IMAGES = 8
"""Small images are read faster than threads take turns, so one task of a thread is several."""


@dataclass(frozen=True)
class Prediction:
    """What an image shows: the most probable classes, best first, each with its probability of 0..1."""

    image: str
    best: tuple[tuple[str, float], ...]


class Classifier:
    """An exported network in ONNX Runtime, on the processor.

    Args:
        path: an ONNX file as the export stage writes it; it is not needed any more afterwards.
        name: what messages call it.

    Attributes:
        side: height and width of the images it takes, in pixels.
        channels: 1 for grey or 3 for RGB.
        classes: their names in the order of the probabilities.

    Raises:
        PredictionError: not an ONNX file, or one that takes or returns something else.
    """

    def __init__(self, path: Path, name: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised, and need not be printed as well
        options.intra_op_num_threads = processors()
        # A thread that waits in a loop takes its processor away from those that read images.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions have no other base
            raise PredictionError(f"{name}: not an ONNX file that ONNX Runtime can run: {_line(error)}") from None
        self.name = name
        self.side, self.channels, self.classes = _interface(self._session, name)
        self._input = self._session.get_inputs()[0].name

    def __call__(self, images: Pixels) -> npt.NDArray[np.float32]:
        """Return probabilities (N, classes) of images (N, side, side, channels).

        Raises:
            PredictionError: what the graph returns are no probabilities.
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
    """Return the classifier in an ONNX file or in MLflow's registry.

    Args:
        model: a path, "models:/NAME@ALIAS" or "models:/NAME/VERSION".
        root: the repository beside whose files the default MLflow store lives.

    Raises:
        PredictionError: there is no such file, or it holds no such network.
        TrackingError: the registry has no such model, or cannot be reached.
    """
    if model.startswith(REGISTRY):
        from pipeline.tracking import registry

        with tempfile.TemporaryDirectory() as folder:
            return Classifier(registry.model_file(root, model, Path(folder)), model)
    if not Path(model).is_file():
        raise PredictionError(
            f"{model}: no such file; dvc repro makes export/model.onnx, "
            f"and --model names another ONNX file or {REGISTRY}NAME@ALIAS"
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
    """Classify image files batch by batch; while one batch is classified the next is read, and no more than that.

    Args:
        items: names of files as `image_files.find` yields them; what it could not read is passed on.
        top: how many classes to name for each image, at most as many as there are.
        resample, stretch: how images get their size, see `image_files.read`.
        batch_size: images a batch.

    Yields:
        For each item of a batch, in order, a prediction or why there is none.
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
        ahead = submit()
        while ahead:
            current, ahead = ahead, submit()
            yield _classify(classifier, [picture for task in current for picture in task.result()], top)
    finally:
        pool.shutdown(cancel_futures=True)


def processors() -> int:
    """Return how many processors this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _classify(
    classifier: Classifier, batch: Sequence[Picture | Unreadable], top: int
) -> list[Prediction | Unreadable]:
    pictures = [item for item in batch if isinstance(item, Picture)]
    rows = iter(classifier(np.stack([picture.pixels for picture in pictures])) if pictures else ())
    return [item if isinstance(item, Unreadable) else _best(classifier, item.name, next(rows), top) for item in batch]


def _best(classifier: Classifier, name: str, probabilities: npt.NDArray[np.float32], top: int) -> Prediction:
    labels = np.argsort(-probabilities, kind="stable")[:top]  # of equal ones the first, as argmax has it
    return Prediction(name, tuple((classifier.classes[label], float(probabilities[label])) for label in labels))


def _interface(session: Any, name: str) -> tuple[int, int, tuple[str, ...]]:
    """Return side, channels and classes of a graph, if it takes images and returns probabilities."""
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
        f"{name}: not a graph that the export stage writes: expected images tensor(uint8) [any, side, side, 1 or 3], "
        f"probabilities tensor(float) [any, classes] and as many names in the metadata 'classes'; found {found} and "
        f"{len(classes)} names"
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
