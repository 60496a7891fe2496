"""A side of a comparison in a process of its own: its memory, threads and settings are not those of the others."""

import multiprocessing
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from benchmarks.measuring import BenchmarkError
from pipeline.errors import PipelineError


class Apart:
    """A function that is made and called in another process; to be used as a context manager, which ends it.

    Args:
        build: called there before the first call; returns the function. Like its arguments it must be picklable.
        arguments: of `build`.
    """

    def __init__(self, build: Callable[..., Callable[[], Any]], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would inherit this process's memory and threads
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, build, arguments))
        self.process.start()
        theirs.close()

    def __call__(self) -> Any:
        """Call the function there and return what it returns.

        Raises:
            PipelineError: it raised one.
            BenchmarkError: the process has ended.
        """
        try:
            self.connection.send(None)
            answer = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            raise BenchmarkError(f"a measured process ended early, with exit code {self.process.exitcode}") from None
        if isinstance(answer, PipelineError):
            raise answer
        return answer

    def __enter__(self) -> "Apart":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.connection.close()
        self.process.join()


def _serve(connection: Connection, build: Callable[..., Callable[[], Any]], arguments: tuple[Any, ...]) -> None:
    """Answer each message with one call, until the other end is closed."""
    run: Callable[[], Any] | None = None
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            connection.recv()
            try:
                run = run or build(*arguments)
                answer = run()
            except PipelineError as error:
                answer = error
            connection.send(answer)
