"""Tests must not depend on what a user has committed: README tells them to commit results."""

from tests.clone import Clone
from tests.forge import Forge


def test_committed_results_are_not_cloned(tmp_path, environment):
    """Neither dvc.lock nor metrics, nor a study's page: a clone starts with code and parameters alone."""
    forge = Forge(tmp_path / "users")
    page = forge.folder / "docs/studies/pooling.md"
    page.parent.mkdir(parents=True)
    page.write_text("# Pooling")
    forge.commit(predicted=forge.right())
    committed = set(forge.git("ls-files").split())
    assert {"dvc.lock", "metrics/evaluate.json", "metrics/runtime/train.json", "docs/studies/pooling.md"} <= committed
    clone = Clone.new(tmp_path / "clone", environment, source=forge.folder)
    assert set(clone("git", "ls-files").split()) == {
        ".dvc/.gitignore",
        ".dvc/config",
        ".dvcignore",
        ".gitignore",
        "dvc.yaml",
        "params.yaml",
    }
