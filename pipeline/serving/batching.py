"""Micro-batches: images of requests that arrive while the network computes are classified together next."""

import asyncio
from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.serving.image_files import Pixels
from pipeline.serving.prediction import Classifier

Probabilities = npt.NDArray[np.float32]


class FullError(Exception):
    """More images wait than the queue holds."""


class _Waiting(NamedTuple):
    classifier: Classifier
    images: Pixels
    result: asyncio.Future[Probabilities]


class Batcher:
    """Classifies images of concurrent requests in common batches, one batch at a time.

    No request waits for others to arrive: a batch is what has arrived while the one before was computed. Requests
    whose classifiers differ, because the model was replaced in between, are not mixed.

    Args:
        batch: images at which a batch takes no further request; a single request may have more.
        queue: images that may wait.
    """

    def __init__(self, executor: Executor, *, batch: int, queue: int) -> None:
        self.executor, self.batch, self.queue = executor, batch, queue
        self.waiting: list[_Waiting] = []
        self.running: asyncio.Task[None] | None = None

    @property
    def images(self) -> int:
        """How many wait."""
        return sum(len(one.images) for one in self.waiting)

    async def classify(self, classifier: Classifier, images: Pixels) -> Probabilities:
        """Return probabilities (N, classes) of images (N, side, side, channels) uint8.

        Raises:
            FullError: the queue is full.
            PredictionError: the network fails.
        """
        if self.waiting and self.images + len(images) > self.queue:
            raise FullError
        result: asyncio.Future[Probabilities] = asyncio.get_running_loop().create_future()
        self.waiting.append(_Waiting(classifier, images, result))
        if self.running is None:
            self.running = asyncio.create_task(self._run())
        return await result

    async def _run(self) -> None:
        while self.waiting:
            batch = self._next()
            images = np.concatenate([one.images for one in batch]) if len(batch) > 1 else batch[0].images
            try:
                found = await asyncio.get_running_loop().run_in_executor(self.executor, batch[0].classifier, images)
            except Exception as error:
                for one in batch:
                    if not one.result.done():
                        one.result.set_exception(error)
                continue
            start = 0
            for one in batch:
                if not one.result.done():  # whoever asked may have gone
                    one.result.set_result(found[start : start + len(one.images)])
                start += len(one.images)
        self.running = None

    def _next(self) -> list[_Waiting]:
        batch = [self.waiting.pop(0)]
        images = len(batch[0].images)
        while self.waiting and self.waiting[0].classifier is batch[0].classifier and images < self.batch:
            batch.append(self.waiting.pop(0))
            images += len(batch[-1].images)
        return batch
