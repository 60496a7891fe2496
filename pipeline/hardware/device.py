"""Devices, memory allocator and a description of the machine."""

import contextlib
import ctypes
import platform
import resource
import sys
from pathlib import Path

import torch

from pipeline.errors import ParamsError

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # from glibc's malloc.h


def choose(name: str) -> torch.device:
    """Return the device for a value of `train.device`; "auto" is CUDA, else Apple's MPS, else the CPU.

    Raises:
        ParamsError: the machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device(name)
    count = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}.get(device.type, 1)
    if (device.index or 0) >= count:
        raise ParamsError(
            f"params.yaml: train.device: found {name}, but this machine has {count or 'no'} {device.type} device"
            f"{'' if count == 1 else 's'}; expected auto, cpu or an existing device"
        )
    return device


def synchronize(device: torch.device) -> None:
    """Wait until a device has finished all queued work, so that timings are correct."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def describe(device: torch.device) -> dict[str, str | int]:
    """Return the environment of a result: device, threads, platform, library versions."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": device.type,
        "device_name": name,
        "threads": torch.get_num_threads(),
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def peak_memory_mib(device: torch.device) -> float:
    """Return the peak memory in MiB: of the GPU for a CUDA device, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")
    if status.exists():  # Linux's getrusage would include the parent process it was forked from, such as DVC
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS: bytes


def _processor() -> str:
    return str(torch.cpu.get_capabilities().get("cpu_name", "")) or platform.processor() or platform.machine()


def keep_freed_memory() -> None:
    """Make glibc keep freed memory instead of returning it to the system after every training step.

    Activations take hundreds of MiB per step; mapping and clearing them again each time costs small networks up to
    40 % of their throughput on a CPU. Without glibc's mallopt nothing changes.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):  # no glibc: slower, not wrong
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(_M_MMAP_THRESHOLD, 2**30)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_TOP_PAD, 2**28)
