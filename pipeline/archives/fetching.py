"""Copy or download an archive and verify its hash."""

import contextlib
import shutil
import tarfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pooch
import requests
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from pipeline import files
from pipeline.errors import ArchiveError

PYTHON_EDITION = "cifar-10-batches-py"
"""Folder in CIFAR-10's edition of pickles."""

CONNECT_SECONDS, READ_SECONDS = 5, 30
ATTEMPTS = 3
CACHE = "cifar10-pipeline"
"""Folder in the user's cache for downloaded archives, so that another clone needs no download."""

ALTERNATIVES = (
    "Alternatives, in params.yaml: a local copy (data.archive: FILE, data.sha256: HASH), "
    "another URL (data.archive: URL), or the built-in dataset (data.dataset: shapes10)."
)


def fetch(sources: Sequence[str], sha256: str, out: Path) -> None:
    """Copy or download an archive to `out` from the first of several sources with the expected hash.

    A URL is tried up to three times with growing pauses if the server fails or breaks off, and once if there is no
    connection. `out` is created only if its hash is correct.

    Raises:
        ArchiveError: all sources failed; the message has the failure of each source and alternatives.
    """
    failures = []
    for source in sources:
        try:
            _fetch_from(source, sha256, out)
        except ArchiveError as error:
            failures.append(f"{source}: {error}")
        else:
            return
    raise ArchiveError(f"cannot fetch the archive from {'; '.join(failures)}. {ALTERNATIVES}")


def is_url(source: str) -> bool:
    """Return whether an archive's source is a URL rather than a file."""
    return source.startswith(("http://", "https://"))


class _BrokenOffError(Exception):
    """The server stopped sending; another attempt may succeed."""


class _Downloader:
    """pooch downloader that streams a URL to a file with a timeout and a progress bar."""

    def __call__(self, url: str, output_file: Any, _pooch: Any) -> None:
        bar = Progress(
            "[progress.description]{task.description}",
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            transient=True,
        )
        with requests.get(url, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS)) as response, bar:
            response.raise_for_status()
            total = int(response.headers.get("content-length", 0)) or None
            task = bar.add_task(url.rsplit("/", 1)[-1], total=total)
            with Path(output_file).open("wb") as file:
                try:
                    for chunk in response.iter_content(1 << 18):
                        file.write(chunk)
                        bar.advance(task, len(chunk))
                except requests.RequestException as error:  # a timeout here is a ConnectionError in requests
                    raise _BrokenOffError(f"the connection broke off ({_reason(error)})") from None


def _fetch_from(source: str, sha256: str, out: Path) -> None:
    if not is_url(source):
        _copy(Path(source), sha256, out)
        return
    print(f"fetching {source}", flush=True)
    pooch.get_logger().setLevel("WARNING")  # it would repeat these messages
    for attempt in range(1, ATTEMPTS + 1):
        try:
            cached = pooch.retrieve(
                source,
                f"sha256:{sha256}",
                fname=f"{sha256[:16]}.tar.gz",
                path=pooch.os_cache(CACHE),
                downloader=_Downloader(),
            )
            _copy(Path(cached), sha256, out)
            return
        except requests.HTTPError as error:
            failure = f"the server answered {error.response.status_code}"
            if error.response.status_code < 500:
                raise ArchiveError(failure) from None
        except _BrokenOffError as error:
            failure = str(error)
        except requests.RequestException as error:  # no connection: another attempt would only take time
            raise ArchiveError(f"no connection ({_reason(error)})") from None
        except ValueError:  # what pooch raises for a wrong hash
            raise ArchiveError(f"expected SHA-256 {sha256}, found other bytes") from None
        if attempt < ATTEMPTS:
            pause = 2**attempt
            print(f"  attempt {attempt} of {ATTEMPTS}: {failure}; retrying in {pause} s", flush=True)
            time.sleep(pause)
    raise ArchiveError(f"{failure}, {ATTEMPTS} times")


def _copy(source: Path, sha256: str, out: Path) -> None:
    if not source.is_file():
        raise ArchiveError("no such file")
    found = files.sha256(source)
    if found != sha256:
        raise ArchiveError(f"expected SHA-256 {sha256}, found {found}")
    _refuse_python_edition(source)
    with files.atomic(out) as temporary:
        shutil.copyfile(source, temporary)


def _refuse_python_edition(path: Path) -> None:
    """Raise for CIFAR-10's edition of pickles; anything else that is no archive of this layout `read` refuses."""
    first = None
    with contextlib.suppress(tarfile.TarError, EOFError, zlib.error, OSError), tarfile.open(path, "r:gz") as tar:
        first = tar.next()
    if first is not None and first.name.startswith(PYTHON_EDITION):
        raise ArchiveError(
            f"found the Python edition ({first.name}), which is pickle and can run code; expected the binary edition, "
            "cifar-10-binary.tar.gz"
        )


def _reason(error: BaseException) -> str:
    """Return the innermost cause of a requests error without object addresses."""
    reason: Any = error
    while getattr(reason, "args", None):
        inner = getattr(reason.args[0], "reason", reason.args[0])
        if not isinstance(inner, BaseException):
            break
        reason = inner
    return str(reason).rsplit(": ", 1)[-1] or type(reason).__name__
