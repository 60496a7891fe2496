"""Images in HTTP requests: files, one or many, and arrays."""

import io
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.serving.image_files import Pixels

IMAGE, JSON, NPY, FORM = "image/*", "application/json", "application/x-npy", "multipart/form-data"
TYPES = f"{FORM} with image files, {IMAGE}, {JSON} or {NPY}"


class File(NamedTuple):
    """An image file of a request: its name and content."""

    name: str
    content: bytes


async def read(request: Request, side: int, channels: int, most: int) -> Sequence[File] | Pixels:
    """Return the images of a request: files, which are not decoded yet, or an array (N, side, side, channels) uint8.

    Args:
        side, channels: of the images in arrays.
        most: images.

    Raises:
        HTTPException: 415 for another type of content, 413 for too many images, 400 for anything that is not what its
            type says; with one sentence.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == FORM:
        files = await _uploads(request, most)
        _check_count(len(files), most)
        return files
    if kind.startswith("image/"):
        return [File("image", await request.body())]
    if kind == JSON:
        images = _from_json(await request.body())
    elif kind == NPY:
        images = _from_npy(await request.body())
    else:
        raise HTTPException(415, f"found content type {kind or 'none'}, expected {TYPES}")
    if images.ndim == 3:
        images = images[None]
    if images.shape[1:] != (side, side, channels):
        raise HTTPException(
            400, f"found an array of shape {images.shape}, expected (N, {side}, {side}, {channels}), N at least 1"
        )
    _check_count(len(images), most)
    return images


async def _uploads(request: Request, most: int) -> list[File]:
    async with request.form(max_files=most, max_fields=0) as form:
        uploads = [upload for _, upload in form.multi_items() if isinstance(upload, UploadFile)]
        return [File(upload.filename or "image", await upload.read()) for upload in uploads]


def _check_count(images: int, most: int) -> None:
    if images == 0:
        raise HTTPException(400, "found no image, expected at least one")
    if images > most:
        raise HTTPException(413, f"found {images} images, expected at most {most} in a request")


def _from_json(body: bytes) -> Pixels:
    try:
        content: Any = json.loads(body)
        levels = np.asarray(content["images"])
    except (ValueError, TypeError, KeyError, RecursionError):
        levels = np.empty(0, object)
    if levels.dtype.kind not in "iu" or levels.min() < 0 or levels.max() > 255:
        raise HTTPException(400, 'expected {"images": [...]} with images as nested lists of integers 0..255')
    return levels.astype(np.uint8)


def _from_npy(body: bytes) -> Pixels:
    try:
        images = np.load(io.BytesIO(body), allow_pickle=False)
    except (ValueError, OSError, EOFError):
        images = None
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        raise HTTPException(400, "expected an array of uint8 as numpy.save writes it")
    return images


class Limits:
    """Middleware that ends requests with too many bytes, status 413, while they are received."""

    def __init__(self, app: ASGIApp, most_bytes: int) -> None:
        self.app, self.most = app, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count what is received, whatever the request says of its length."""
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.most:
                raise HTTPException(
                    413, f"found more than {self.most:,} bytes, expected at most that many in a request"
                )
            return message

        await self.app(scope, counted, send)
