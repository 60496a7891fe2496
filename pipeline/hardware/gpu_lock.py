"""One GPU for one process: DVC's queue workers know nothing of GPUs, so the stages that compute take one themselves.

A lock file for each GPU says that it is in use, in a folder that all processes of this user on this machine share.
The operating system frees the lock of a process that ends, however it ends.
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
SECONDS_BETWEEN_LOOKS = 0.5


@contextmanager
def claim(wanted: str) -> Iterator[str | None]:
    """Keep a GPU for this process while the block runs, and let CUDA see no other.

    To be entered before CUDA is initialised: CUDA reads CUDA_VISIBLE_DEVICES once in the life of a process. For the
    same reason the variable stays as it was set here, and a process that claims again gets the same GPU.

    Args:
        wanted: `train.device`. "auto" and "cuda" take the first free GPU, or wait for one, saying so on stderr. All
            else, e.g. "cuda:1", is the user's own choice and takes no lock.

    Yields:
        The GPU as CUDA_VISIBLE_DEVICES names it; None if none was claimed, as this process can see none.
    """
    ids = visible() if wanted in ("auto", "cuda") else []
    if not ids:
        yield None
        return
    with first_free(ids, Path(tempfile.gettempdir()) / f"gpu-locks-{os.getuid()}") as gpu:
        os.environ[VISIBLE] = gpu
        yield gpu


@contextmanager
def first_free(ids: Sequence[str], folder: Path) -> Iterator[str]:
    """Hold the lock of the first GPU that no other process holds; wait while all are taken.

    Args:
        ids: at least one.
        folder: of the lock files; made if it does not exist.

    Yields:
        The one of `ids` that now belongs to this process.
    """
    assert ids
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    locks = {gpu: filelock.FileLock(folder / f"{gpu}.lock") for gpu in ids}
    taken = _acquire_one(locks)
    if taken is None:
        some = f"all {len(ids)} GPUs are" if len(ids) > 1 else "the GPU is"
        print(f"{some} in use by other runs: waiting (train.device=cuda:0 shares one)", file=sys.stderr, flush=True)
    while taken is None:
        time.sleep(SECONDS_BETWEEN_LOOKS)
        taken = _acquire_one(locks)
    try:
        yield taken
    finally:
        locks[taken].release()


def visible() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; CUDA is not initialised."""
    named = os.environ.get(VISIBLE)
    if named is not None and named.startswith("MIG-"):
        return allowed(named, named.count(",") + 1)  # only CUDA itself could count these, and only by starting
    import torch

    return allowed(named, torch.cuda.device_count())  # asks the driver's NVML, which leaves CUDA alone


def allowed(named: str | None, count: int) -> list[str]:
    """Return one id for each GPU.

    Args:
        named: the value of CUDA_VISIBLE_DEVICES, a list of indexes or UUIDs; None: all GPUs, by their index.
        count: how many GPUs there are under that value; CUDA ignores what follows the first id that does not exist.
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
