"""Exclusive use of a GPU by one process. DVC's queue workers do not assign GPUs, so stages that compute lock one.

Each GPU, or slice of one (MIG), has a lock file by its UUID in a folder that all processes of this user on this
machine share. The operating system releases the lock when the process ends, even if it is killed.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock
import pynvml

VISIBLE = "CUDA_VISIBLE_DEVICES"
POLL_SECONDS = 0.5


@contextmanager
def claim(name: str, *, wait: bool = True) -> Iterator[str | None]:
    """Lock a GPU for this process while the block runs, and hide all others from CUDA.

    Enter it before CUDA is initialised: a process reads CUDA_VISIBLE_DEVICES only once. For the same reason the
    variable remains set afterwards, and a process that claims again gets the same GPU.

    Args:
        name: `train.device`. "auto" and "cuda" lock the first free GPU. All else, e.g. "cuda:1", is an explicit choice
            and takes no lock.
        wait: while all GPUs are in use, for one; otherwise all are hidden, so that "auto" is the CPU. Either is
            printed to stderr.

    Yields:
        The UUID of the GPU; None if no GPU was locked.
    """
    uuids = visible() if name in ("auto", "cuda") else []
    if not uuids:
        yield None
        return
    with first_free(uuids, Path(tempfile.gettempdir()) / f"gpu-locks-{os.getuid()}", wait=wait) as gpu:
        os.environ[VISIBLE] = gpu or "-1"
        yield gpu


@contextmanager
def first_free(uuids: Sequence[str], folder: Path, *, wait: bool = True) -> Iterator[str | None]:
    """Lock the first free GPU.

    Args:
        uuids: at least one.
        folder: of the lock files; created if it does not exist.
        wait: while all are in use.

    Yields:
        The UUID of the locked GPU; None if all are in use and this does not wait.
    """
    assert uuids
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    locks = {gpu: filelock.FileLock(folder / f"{gpu.replace('/', '-')}.lock") for gpu in uuids}
    taken = _acquire_one(locks)
    if taken is None:
        some = f"all {len(uuids)} GPUs are" if len(uuids) > 1 else "the GPU is"
        then = "waiting (train.device=cuda:0 shares one)" if wait else "computing on the CPU"
        print(f"{some} in use by other runs: {then}", file=sys.stderr, flush=True)
    while wait and taken is None:
        time.sleep(POLL_SECONDS)
        taken = _acquire_one(locks)
    try:
        yield taken
    finally:
        if taken:
            locks[taken].release()


def visible() -> list[str]:
    """Return the UUIDs of the GPUs that this process may use, without initialising CUDA; none but NVIDIA's."""
    return allowed(os.environ.get(VISIBLE), installed())


def allowed(named: str | None, gpus: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the UUIDs of the GPUs, or of their slices, that a value of CUDA_VISIBLE_DEVICES names.

    Args:
        named: a list of indices, counted as `nvidia-smi` does, or UUIDs, of GPUs also the first characters of one;
            None means all. As in CUDA, all after the first that does not exist are ignored.
        gpus: as `installed` returns them.
    """
    if named is None:
        return [part for uuid, slices in gpus.items() for part in slices or [uuid]]
    found: list[str] = []
    for part in map(str.strip, named.split(",")):
        if part.startswith("MIG-"):
            found.append(part)
            continue
        matching = [*gpus][int(part) : int(part) + 1] if part.isdecimal() else []
        if part.startswith("GPU-"):
            matching = [uuid for uuid in gpus if uuid.startswith(part)]
        if len(matching) != 1:
            break
        found += gpus[matching[0]] or matching
    return found


def installed() -> dict[str, list[str]]:
    """Return the UUID of each NVIDIA GPU with those of its slices (MIG), if it has any; nothing without a driver."""
    gpus: dict[str, list[str]] = {}
    with suppress(pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
        pynvml.nvmlInit()
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            gpus[pynvml.nvmlDeviceGetUUID(handle)] = _slices(handle)
    return gpus


def _slices(handle: object) -> list[str]:
    uuids = []
    with suppress(pynvml.NVMLError_NotSupported):
        enabled, _ = pynvml.nvmlDeviceGetMigMode(handle)
        for index in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle) if enabled else 0):
            with suppress(pynvml.NVMLError_NotFound):
                uuids.append(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)))
    return uuids


def _acquire_one(locks: dict[str, filelock.FileLock]) -> str | None:
    for gpu, lock in locks.items():
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            continue
        return gpu
    return None
