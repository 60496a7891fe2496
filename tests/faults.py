"""Faults of the machine: strace lets a system call of a process fail, or kills the process when it makes it."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.paths import ROOT

CALLS = ("write", "fsync", "rename", "mkdir", "chmod", "unlink")
"""Those that change files; which `openat` opens what differs from run to run, as modules are compiled."""
CALL = re.compile(r"^(\d+) +(\w+)\((.*)$")
FAULTS = {"full": "error=ENOSPC", "broken": "error=EIO", "killed": "signal=KILL"}


def _can_trace() -> bool:
    """Containers can forbid it."""
    if shutil.which("strace") is None:
        return False
    return (
        subprocess.run(
            ["strace", "-f", "--seccomp-bpf", "-qq", "-o", os.devnull, "true"], check=False, capture_output=True
        ).returncode
        == 0
    )


needs_strace = pytest.mark.skipif(not _can_trace(), reason="needs strace, and the right to trace processes")


@dataclass(frozen=True)
class Point:
    """A system call of a process's first thread that changes a file: the `number`-th of its kind, counted from 1."""

    call: str
    number: int
    path: str

    def __str__(self) -> str:
        return f"{self.call} {self.number} {self.path}"


def points(command: list[str], folder: Path, environment: dict[str, str], log: Path) -> list[Point]:
    """Run a command that succeeds, and return its system calls that change files in a folder."""
    options = ("-f", "--seccomp-bpf", "-qq", "-y", "-s", "0", "-o", str(log), "-e", f"trace=execve,{','.join(CALLS)}")
    run(["strace", *options, *command], environment).check_returncode()
    found: list[Point] = []
    counts = dict.fromkeys(CALLS, 0)
    first = ""
    for line in log.read_text(errors="replace").splitlines():
        match = CALL.match(line)
        if match is None:
            continue
        process, call, arguments = match.groups()
        first = first or process  # whose execve began it all
        if process != first or call not in counts:
            continue
        counts[call] += 1
        touched = re.search(rf"{re.escape(str(folder))}/([^\">,]*)", arguments)
        if touched:
            found.append(Point(call, counts[call], touched[1]))
    return found


def inject(
    command: list[str], point: Point, fault: str, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a command in which one system call fails, or ends the process.

    Without --seccomp-bpf, which is faster, but with which strace 6.1 sends no signals.
    """
    rule = f"inject={point.call}:{FAULTS[fault]}:when={point.number}"
    options = ("-f", "-qq", "-o", os.devnull, "-e", f"trace={point.call}", "-e", rule)
    return run(["strace", *options, *command], environment)


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command of the project, which makes the same calls each time: it compiles no modules."""
    steady = environment | {"PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=ROOT, env=steady, capture_output=True, text=True, check=False)
