"""Exclusive use of a GPU by one process. DVC's queue workers do not assign GPUs, so stages that compute lock one.

Each GPU has a lock file in a folder that all processes of this user on this machine share. The operating system
releases the lock when the process ends, even if it is killed.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import filelock

VISIBLE = "CUDA_VISIBLE_DEVICES"
POLL_SECONDS = 0.5


@contextmanager
def claim(name: str) -> Iterator[str | None]:
    """Lock a GPU for this process while the block runs, and hide all others from CUDA.

    Enter it before CUDA is initialised: a process reads CUDA_VISIBLE_DEVICES only once. For the same reason the
    variable remains set afterwards, and a process that claims again gets the same GPU.

    Args:
        name: `train.device`. "auto" and "cuda" lock the first free GPU, or wait for one and print that to stderr. All
            else, e.g. "cuda:1", is an explicit choice and takes no lock.

    Yields:
        The GPU's id in CUDA_VISIBLE_DEVICES; None if no GPU was locked.
    """
    ids = visible() if name in ("auto", "cuda") else []
    if not ids:
        yield None
        return
    with first_free(ids, Path(tempfile.gettempdir()) / f"gpu-locks-{os.getuid()}") as gpu:
        os.environ[VISIBLE] = gpu
        yield gpu


@contextmanager
def first_free(ids: Sequence[str], folder: Path) -> Iterator[str]:
    """Lock the first free GPU; wait while all are in use.

    Args:
        ids: at least one.
        folder: of the lock files; created if it does not exist.

    Yields:
        The id of the locked GPU.
    """
    assert ids
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    locks = {gpu: filelock.FileLock(folder / f"{gpu}.lock") for gpu in ids}
    taken = _acquire_one(locks)
    if taken is None:
        some = f"all {len(ids)} GPUs are" if len(ids) > 1 else "the GPU is"
        print(f"{some} in use by other runs: waiting (train.device=cuda:0 shares one)", file=sys.stderr, flush=True)
    while taken is None:
        time.sleep(POLL_SECONDS)
        taken = _acquire_one(locks)
    try:
        yield taken
    finally:
        locks[taken].release()


def visible() -> list[str]:
    """Return the ids in CUDA_VISIBLE_DEVICES of the GPUs that this process may use, without initialising CUDA."""
    named = os.environ.get(VISIBLE)
    if named is not None and named.startswith("MIG-"):
        return allowed(named, named.count(",") + 1)  # counting these would initialise CUDA
    import torch

    return allowed(named, torch.cuda.device_count())  # uses NVML, which does not initialise CUDA


def allowed(named: str | None, count: int) -> list[str]:
    """Return the id of each GPU.

    Args:
        named: the value of CUDA_VISIBLE_DEVICES, a list of indices or UUIDs; None means all GPUs, by index.
        count: number of visible GPUs; CUDA ignores all ids after the first invalid one.
    """
    ids = [str(index) for index in range(count)] if named is None else [part.strip() for part in named.split(",")]
    return ids[:count]


def _acquire_one(locks: dict[str, filelock.FileLock]) -> str | None:
    for gpu, lock in locks.items():
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            continue
        return gpu
    return None
