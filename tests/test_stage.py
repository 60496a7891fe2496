"""How commands end on errors that a user can cause."""

import errno
import signal
import subprocess
import sys

import pytest
import torch

from pipeline import stage
from tests.conftest import heed_ctrl_c
from tests.paths import ROOT


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


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), "a/b: No space left on device"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (OSError("344 requested\nand 100 written"), "344 requested and 100 written"),
    ],
    ids=["named", "unnamed", "unnumbered"],
)
def test_an_error_of_the_machine_is_one_line(capsys, error, said):
    """With the file, where the error has one."""

    def failing() -> None:
        raise error

    with pytest.raises(SystemExit):
        stage.guard(failing)
    assert capsys.readouterr().err == f"error: {said}\n"


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_stage_says_how_to_go_on(number):
    """One line, no traceback, the exit code of Ctrl-C."""
    main = "def main(): print('ready', flush=True); time.sleep(60)"
    code = f"import time; from pipeline import stage\n{main}\nstage.run(main)"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert said == "interrupted: the same command goes on, a training after its last completed epoch\n"
    assert process.returncode == 130


def test_a_missing_library_is_one_line_and_a_missing_module_of_ours_a_fault(capsys):
    """Whoever installed the service alone is told what has the rest."""

    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    with pytest.raises(SystemExit):
        stage.guard(lambda: missing("torch.nn"))
    assert capsys.readouterr().err == (
        "error: torch.nn is not installed; pip install '.[train]' in the repository installs all that it uses\n"
    )
    with pytest.raises(ModuleNotFoundError):
        stage.guard(lambda: missing("pipeline.models.nothing"))
