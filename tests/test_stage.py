"""How commands end on errors that a user can cause."""

import pytest
import torch

from pipeline import stage


def test_out_of_gpu_memory_is_one_line(capsys):
    """What was needed, what there was, and the parameter to lower; raised by hand, as it takes a full GPU."""
    said = (
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.02 GiB is "
        "free. Including non-PyTorch memory, this process has 78.08 GiB memory in use. Of the allocated memory"
    )

    def full() -> None:
        raise torch.OutOfMemoryError(said)

    with pytest.raises(SystemExit) as ended:
        stage.guard(full)
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        "error: out of GPU memory: Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.02 "
        "GiB is free; lower train.batch_size, or evaluate.batch_size after train\n"
    )


def test_another_runtime_error_is_a_fault_of_the_program():
    """It keeps its traceback."""

    def broken() -> None:
        raise RuntimeError("shape mismatch. And more. And more")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        stage.guard(broken)
