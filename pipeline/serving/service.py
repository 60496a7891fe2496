"""HTTP service: classifies images of requests with an exported network."""

import asyncio
import io
import socket
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from PIL import Image
from starlette.routing import Route

from pipeline import pages
from pipeline.errors import PredictionError
from pipeline.serving import image_files, payload
from pipeline.serving.batching import Batcher, FullError
from pipeline.serving.current import Current, Served
from pipeline.serving.image_files import Picture, Pixels, Unreadable
from pipeline.serving.metrics import CONTENT_TYPE, Metrics
from pipeline.serving.prediction import processors

BATCH = 64
"""Images at which a batch takes no further request."""

QUEUE = 32_768
"""Images that may wait; with more, requests get status 503."""

CONNECTIONS = 512
"""Concurrent requests; further ones get status 503."""

RECEIVE_SECONDS, STOP_SECONDS, WATCH_SECONDS = 30, 30, 5
MOST_PIXELS = 32_000_000
"""Of a file; Pillow refuses twice as many, before it decodes them."""

CONTENT = {
    payload.FORM: {"schema": {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}}},
    payload.IMAGE: {"schema": {"type": "string", "format": "binary"}},
    payload.JSON: {"schema": {"type": "object", "properties": {"images": {"type": "array", "items": {}}}}},
    payload.NPY: {"schema": {"type": "string", "format": "binary"}},
}


Examples = Sequence[tuple[str, Pixels]]
"""Images for the page to try, each with its label."""


def application(current: Current, examples: Examples, *, most_bytes: int, most_images: int) -> FastAPI:
    """Return the service.

    Args:
        current: the model; replaced while the service runs, see `Current.watch`.
        examples: for the page.
        most_bytes: of a request.
        most_images: in a request.
    """
    pool = ThreadPoolExecutor(processors(), "decode")
    batcher = Batcher(ThreadPoolExecutor(1, "network"), batch=BATCH, queue=QUEUE)
    metrics = Metrics(lambda: batcher.images)
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS
    warnings.filterwarnings("ignore", module="PIL")  # about metadata and large images

    @asynccontextmanager
    async def watched(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(current.watch(WATCH_SECONDS))
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    app = FastAPI(
        title="Image classifier",
        description="Classifies images with the network that `python -m pipeline serve` was given.",
        lifespan=watched,
        redoc_url=None,
    )
    app.add_middleware(payload.Limits, most_bytes=most_bytes)
    _add_prediction(app, current, metrics, pool, batcher, most_images)
    _add_descriptions(app, current, metrics)
    page = pages.render("serve.html", examples=[(label, pages.data_uri(_png(image))) for label, image in examples])

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def index() -> str:
        return page

    known = {route.path for route in app.routes if isinstance(route, Route)}

    @app.middleware("http")
    async def measured(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        started = time.perf_counter()
        response = await call_next(request)
        path = request.url.path if request.url.path in known else "other"
        metrics.answered(path, response.status_code, time.perf_counter() - started)
        return response

    @app.exception_handler(PredictionError)
    async def failed(_: Request, error: PredictionError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 500)

    return app


def _add_prediction(
    app: FastAPI, current: Current, metrics: Metrics, pool: ThreadPoolExecutor, batcher: Batcher, most_images: int
) -> None:
    @app.post("/predict", openapi_extra={"requestBody": {"required": True, "content": CONTENT}})
    async def predict(request: Request) -> dict[str, Any]:
        """Classify one or many images: files in a form, one file as the body, or arrays of uint8 as JSON or .npy."""
        served = current.served
        side, channels = served.classifier.side, served.classifier.channels
        try:
            found = await asyncio.wait_for(payload.read(request, side, channels, most_images), RECEIVE_SECONDS)
        except TimeoutError:
            raise HTTPException(408, f"the request took more than {RECEIVE_SECONDS} s to arrive") from None
        names, images = await _decoded(found, served, pool)
        try:
            probabilities = await batcher.classify(served.classifier, images)
        except FullError:
            raise HTTPException(503, "too many images wait; try again later", {"Retry-After": "1"}) from None
        classes = served.classifier.classes
        predictions = [_prediction(name, classes, row) for name, row in zip(names, probabilities, strict=True)]
        for one in predictions:
            metrics.predicted(one["class"], one["probability"])
        return {"model": served.model, "version": served.version, "predictions": predictions}


def _add_descriptions(app: FastAPI, current: Current, metrics: Metrics) -> None:
    @app.get("/health")
    async def health() -> dict[str, str]:
        """Tell that the service runs, and with which model."""
        return {"status": "ok", "model": current.served.model, "version": current.served.version}

    @app.get("/model")
    async def model() -> dict[str, Any]:
        """Describe the model: version, classes, input, model card in Markdown."""
        served = current.served
        side, channels = served.classifier.side, served.classifier.channels
        return {
            "model": served.model,
            "version": served.version,
            "classes": served.classifier.classes,
            "input": {"dtype": "uint8", "shape": ["N", side, side, channels]},
            "card": served.card,
        }

    @app.get("/metrics", response_class=Response)
    async def shown() -> Response:
        """Return counts and times in Prometheus's text format."""
        return Response(metrics.text(current.served.model, current.served.version), media_type=CONTENT_TYPE)


def run(current: Current, examples: Examples, host: str, port: int, *, most_bytes: int, most_images: int) -> None:
    """Serve until Ctrl-C or SIGTERM; requests that have begun are answered first.

    Raises:
        PredictionError: there is no such host, or the port is in use or must not be used.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        bound = socket.create_server((host, port), family=family, backlog=2048)
        # asyncio sets it only on sockets made for TCP by number; without it, each answer waits 40 ms for the client.
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]
        raise PredictionError(f"--host {host} --port {port}: {reason}; expected a free port of this machine") from None
    app = application(current, examples, most_bytes=most_bytes, most_images=most_images)
    config = uvicorn.Config(
        app,
        log_level="warning",
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    host, port = bound.getsockname()[:2]
    about = f"{current.model} version {current.served.version} on http://{host}:{port}"
    with bound, suppress(KeyboardInterrupt):
        print(f"serving {about}; Ctrl-C ends it", flush=True)
        uvicorn.Server(config).run(sockets=[bound])


async def _decoded(
    found: Sequence[payload.File] | Pixels, served: Served, pool: ThreadPoolExecutor
) -> tuple[list[str], Pixels]:
    """Return names and pixels of the images of a request.

    Raises:
        HTTPException: 400 if one of them cannot be read.
    """
    if isinstance(found, np.ndarray):
        return [str(index) for index in range(len(found))], found
    loop, classifier = asyncio.get_running_loop(), served.classifier
    pictures = await asyncio.gather(
        *(loop.run_in_executor(pool, _read, file, classifier.side, classifier.channels) for file in found)
    )
    for picture in pictures:
        if isinstance(picture, Unreadable):
            raise HTTPException(400, f"{picture.name}: {picture.reason}")
    read = [picture for picture in pictures if isinstance(picture, Picture)]
    return [picture.name for picture in read], np.stack([picture.pixels for picture in read])


def _read(file: payload.File, side: int, channels: int) -> Picture | Unreadable:
    return image_files.read(file.name, side, channels, content=file.content)


def _png(image: Pixels) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    return content.getvalue()


def _prediction(name: str, classes: Sequence[str], row: Any) -> dict[str, Any]:
    probabilities = {label: round(float(value), 6) for label, value in zip(classes, row, strict=True)}
    best = classes[int(row.argmax())]
    return {"image": name, "class": best, "probability": probabilities[best], "probabilities": probabilities}
