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


def test_an_operation_that_is_not_deterministic_is_one_line(capsys):
    """It says which parameter allows it."""

    def varying() -> None:
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))

    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(SystemExit):
            stage.guard(varying)
    finally:
        torch.use_deterministic_algorithms(False)
    said = capsys.readouterr().err
    assert said.startswith("error: put_ does not have a deterministic implementation; ")
    assert said.endswith("set train.deterministic to false, or change the layer that uses it\n")
    assert said.count("\n") == 1
