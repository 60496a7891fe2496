"""Files of revisions, wherever git or DVC keep them, or nobody does."""

import shutil

import pytest

from pipeline.errors import ResultsError
from pipeline.experiments.repository import Repository
from tests.forge import Forge

PATHS = ("params.yaml", "results/predictions.csv", "results/figures", "export/model.onnx")


def copied(forge: Forge, folder) -> list[str]:
    with Repository(forge.folder) as repository:
        return repository.copy(repository.resolve("one"), PATHS, folder)


def test_files_come_from_git_the_cache_or_a_remote_and_what_nobody_has_is_named(tmp_path):
    """A file and a folder that neither cache nor remote has are missing, not an error."""
    forge = Forge(tmp_path / "repository", images=100)
    forge.experiment("one", predicted=forge.right(range(10)))
    assert copied(forge, tmp_path / "cache") == ["results/figures", "export/model.onnx"]
    remote = tmp_path / "remote"
    (forge.folder / ".dvc/config.local").write_text(f"[core]\n    remote = r\n['remote \"r\"']\n    url = {remote}\n")
    shutil.move(forge.folder / ".dvc/cache", remote)
    assert copied(forge, tmp_path / "remote-copy") == ["results/figures", "export/model.onnx"]
    for name in ("cache", "remote-copy"):
        assert (tmp_path / name / "params.yaml").read_bytes() == (forge.folder / "params.yaml").read_bytes()
        assert (tmp_path / name / "results/predictions.csv").read_text().startswith("index,label,predicted,airplane")
    with Repository(forge.folder) as repository:
        revision = repository.resolve("one")
        record = repository.results(revision)
        assert repository.output(revision, record, "results/predictions.csv").startswith(b"index,label,predicted")
        with pytest.raises(ResultsError, match=r"one: export/model.onnx is neither in DVC's cache nor in a remote"):
            repository.output(revision, record, "export/model.onnx")


def test_names_are_those_that_people_use(tmp_path):
    """An experiment by its name or its commit, a branch, the workspace."""
    forge = Forge(tmp_path / "repository", images=100)
    sha = forge.experiment("one", predicted=forge.right(range(10)))
    with Repository(forge.folder) as repository:
        for name in ("one", sha, sha[:8]):
            found = repository.resolve(name)
            assert (found.name, found.sha, found.experiment) == ("one", sha, "one"), name
        assert repository.resolve("main").experiment is None
        assert repository.resolve("workspace").sha == ""
        assert [found.name for found in repository.experiments(repository.resolve("main").sha)] == ["one"]
        assert repository.experiments("0" * 40) == []
