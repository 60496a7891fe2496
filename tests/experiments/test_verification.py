"""'Reproducible' as a command: a real second run of a revision, held against what DVC recorded."""

import sys

import pytest

from tests.clone import Clone, ran

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def clone(tmp_path_factory, finished) -> Clone:
    """A clone in which the results of a `dvc repro` are committed."""
    made = finished.copy(tmp_path_factory.mktemp("verify") / "repository")
    made.commit("Results")
    return made


def verify(clone: Clone, rev: str, code: int, **environment: str) -> str:
    return clone(sys.executable, "-m", "pipeline", "verify", rev, code=code, **environment)


def test_a_revision_is_bit_identical_when_run_again(clone):
    """All stages run, none is restored, nothing in the repository changes, no MLflow store appears."""
    output = verify(clone, "HEAD", 0)
    assert ran(output) == ["download", "preprocess", "train", "evaluate", "inspect", "export"]
    assert "HEAD: bit-identical: all 18 outputs have the hashes that dvc.lock recorded" in output
    assert clone("git", "status", "--short") == ""
    assert not (clone.folder / "mlflow.db").exists()
    assert not list((clone.folder / ".dvc/tmp").glob("verify-*"))


def test_what_differs_is_named_with_its_size(clone):
    """Code changed without running it: the weights are other ones than the commit claims."""
    training = clone.folder / "pipeline/training/optim.py"
    text = training.read_text()
    assert "momentum=muon.momentum" in text
    training.write_text(text.replace("momentum=muon.momentum", "momentum=0.5 * muon.momentum"))
    clone("git", "commit", "-q", "-a", "-m", "Other code, old results")
    output = verify(clone, "HEAD", 1)
    assert "of 18 outputs differ: " in output
    differing = output.partition(" outputs differ: ")[2].splitlines()[0].split(", ")
    assert {"metrics/train.json", "metrics/details/train.json", "model", "metrics/evaluate.json"} <= set(differing)
    assert not {"data/processed", "metrics/details/preprocess.json"} & set(differing)
    (weights,) = [line for line in output.splitlines() if line.startswith("first model/weights.safetensors: ")]
    assert 0 < float(weights.split("by up to ")[1].split()[0]) < 10
    assert "device, threads and library versions have not changed" in output
    clone("git", "reset", "-q", "--hard", "HEAD~1")


def test_what_cannot_be_verified_is_one_line(clone):
    """No such revision; the workspace, which may change meanwhile; a commit without results."""
    assert verify(clone, "nowhere", 1).startswith("error: nowhere: ")
    assert "error: cannot verify the workspace" in verify(clone, "workspace", 1)
    assert "error: HEAD~1: no results: expected dvc.lock, found none" in verify(clone, "HEAD~1", 1)
