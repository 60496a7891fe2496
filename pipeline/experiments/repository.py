"""Revisions and what they carry, through DVC: git and DVC hold the truth, so nothing here needs MLflow."""

import hashlib
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import dvc.api
import dvc.scm
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.experiments.utils import exp_refs
from dvc_data.index import DataIndexDirError
from scmrepo.exceptions import SCMError

from pipeline.errors import PipelineError, ResultsError
from pipeline.experiments import results
from pipeline.experiments.results import Results

WORKSPACE = "workspace"
PROMOTED = "refs/promoted/"
ABSENT = (DvcException, OSError, DataIndexDirError)
"""What DVC raises for files that neither its cache nor a remote has."""


@dataclass(frozen=True)
class Revision:
    """A commit, an experiment, or the workspace.

    Attributes:
        name: what a person calls it: the experiment's name, what they typed, or an abbreviated commit.
        sha: of the commit; empty for the workspace.
        experiment, baseline: name and baseline commit of an experiment; None for others.
    """

    name: str
    sha: str
    experiment: str | None = None
    baseline: str | None = None


class Repository:
    """The revisions of one repository and their files, wherever git or DVC keep them.

    Raises:
        PipelineError: the folder is no DVC repository under git.
    """

    def __init__(self, root: Path) -> None:
        try:
            self.dvc = Repo(str(root))
        except DvcException:
            raise PipelineError(f"{root}: expected a DVC repository; go to the one you mean with cd") from None
        self.root = Path(self.dvc.root_dir)
        self.scm = self.dvc.scm
        if isinstance(self.scm, dvc.scm.NoSCM):
            raise PipelineError(f"{root}: expected a git repository, found none; git init makes one")
        self._prefix = self.root.relative_to(self.scm.root_dir)

    def __enter__(self) -> "Repository":
        return self

    def __exit__(self, *_: object) -> None:
        self.dvc.close()
        self.scm.close()

    def resolve(self, rev: str) -> Revision:
        """Return what a name means: a commit, branch, tag, experiment or "workspace".

        Raises:
            PipelineError: there is no such revision.
        """
        if rev == WORKSPACE:
            return Revision(WORKSPACE, "")
        try:
            sha = str(dvc.scm.resolve_rev(self.scm, rev))
        except (DvcException, SCMError) as error:
            raise PipelineError(f"{rev}: {error}; dvc exp list -A shows the experiments there are") from None
        named = [found for found in self._experiments() if found.sha == sha]
        exact = [found for found in named if found.name == rev]
        if exact or (named and sha.startswith(rev)):
            return (exact or named)[0]
        return Revision(rev, sha)

    def experiments(self, baseline: str | None = None) -> list[Revision]:
        """Return all experiments, or those of one baseline commit, in the order in which they were finished."""
        found = (revision for revision in self._experiments() if baseline in (None, revision.baseline))
        return sorted(found, key=lambda revision: (self.time(revision), revision.name))

    def commits(self) -> list[Revision]:
        """Return the commits of all branches and tags that brought a dvc.lock of their own, oldest first."""
        first: dict[bytes, tuple[datetime, str]] = {}
        for sha in self.scm.list_all_commits():
            try:
                key = hashlib.sha256(self.read(Revision(sha, sha), results.LOCK)).digest()
            except FileNotFoundError:
                continue
            found = (self.time(Revision(sha, sha)), sha)
            first[key] = min(first.get(key, found), found)
        return [Revision(sha[:7], sha) for _, sha in sorted(first.values())]

    def time(self, revision: Revision) -> datetime:
        """Return when a revision was committed."""
        return datetime.fromtimestamp(self.scm.resolve_commit(revision.sha).commit_time, UTC)

    def results(self, revision: Revision) -> Results:
        """Return the record of the pipeline that finished in a revision.

        Raises:
            ResultsError: it carries none, or files that don't belong together.
        """
        try:
            return results.read(partial(self.read, revision))
        except ResultsError as error:
            raise ResultsError(
                f"{revision.name}: no results: {error}; dvc exp list -A shows the experiments there are"
            ) from None

    def carries_results(self, revision: Revision) -> bool:
        """Say whether a pipeline finished in a revision."""
        try:
            self.results(revision)
        except ResultsError:
            return False
        return True

    def remember(self, alias: str, sha: str) -> None:
        """Note in git which commit an alias of the model registry means, so that a lost registry can be restored.

        The ref keeps the commit, also when its experiment is removed; an empty `sha` removes the ref.
        """
        if sha:
            self.scm.set_ref(f"{PROMOTED}{alias}", sha)
        elif f"{PROMOTED}{alias}" in set(self.scm.iter_refs(PROMOTED)):
            self.scm.remove_ref(f"{PROMOTED}{alias}")

    def remembered(self) -> dict[str, str]:
        """Return alias -> commit of all promotions that git knows of."""
        return {ref.removeprefix(PROMOTED): self.scm.get_ref(ref) for ref in self.scm.iter_refs(PROMOTED)}

    def read(self, revision: Revision, path: str) -> bytes:
        """Return the bytes of a file that git holds.

        Raises:
            FileNotFoundError: the revision has no such file in git.
        """
        if not revision.sha:
            return (self.root / path).read_bytes()
        tree = self.scm.pygit2.repo[revision.sha].tree  # scmrepo's own file system starts a thread for every file
        try:
            return bytes(tree[(self._prefix / path).as_posix()].data)
        except KeyError:
            raise FileNotFoundError(path) from None

    def output(self, revision: Revision, record: Results, path: str) -> bytes:
        """Return the bytes of an output, or of a file in one, that DVC holds in its cache or a remote.

        Raises:
            ResultsError: neither has it.
        """
        if path in record.outputs:
            cached = Path(self.dvc.cache.local.oid_to_path(record.outputs[path]))
            if cached.exists():
                return cached.read_bytes()
        try:
            return bytes(self._filesystem(revision).read_bytes(path))
        except ABSENT as error:
            raise ResultsError(_absent(revision, path, error)) from None

    def history(self, revision: Revision, record: Results) -> list[dict[str, float]]:
        """Return the epochs of a training, each with "epoch" (from 1) and its metrics.

        Raises:
            ResultsError: neither DVC's cache nor a remote has them.
        """
        return results.parse_history(self.output(revision, record, record.paths["train"]["history"]))

    def copy(self, revision: Revision, paths: Iterable[str], folder: Path) -> list[str]:
        """Copy files and folders of a revision, whoever holds them, and return those that nobody has."""
        missing = []
        for path in paths:
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._filesystem(revision).get(path, str(target), recursive=True)
            except ABSENT:
                shutil.rmtree(target, ignore_errors=True)
                missing.append(path)
        return missing

    def _experiments(self) -> Iterator[Revision]:
        for ref in exp_refs(self.scm):
            yield Revision(ref.name, self.scm.get_ref(str(ref)), ref.name, ref.baseline_sha)

    def _filesystem(self, revision: Revision) -> dvc.api.DVCFileSystem:
        return dvc.api.DVCFileSystem(str(self.root), rev=revision.sha or None)


def search_path() -> str:
    """Return PATH with this interpreter's folder first: `python3` in dvc.yaml is then the one that runs now."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


def _absent(revision: Revision, path: str, error: Exception) -> str:
    reason = " ".join(str(error).split())
    return (
        f"{revision.name}: {path} is neither in DVC's cache nor in a remote ({reason}); "
        f"dvc fetch brings it, dvc repro makes it again"
    )
