"""Revisions of a repository, their results and files, from git and DVC."""

import hashlib
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import dvc.api
import dvc.scm
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.experiments.utils import exp_refs
from dvc_data.index import DataIndexDirError
from scmrepo.exceptions import SCMError

from pipeline.errors import PipelineError, ResultsError
from pipeline.experiments import lock, results
from pipeline.experiments.baseline import differing
from pipeline.experiments.results import Results

WORKSPACE = "workspace"
PROMOTED = "refs/promoted/"
ABSENT = (DvcException, OSError, DataIndexDirError)
"""Errors of DVC for files that neither its cache nor a remote has."""


@dataclass(frozen=True)
class Revision:
    """A commit, an experiment, or the workspace.

    Attributes:
        name: the experiment's name, the name that the user typed, or an abbreviated commit.
        sha: of the commit; empty for the workspace.
        experiment, baseline: name and baseline commit of an experiment; None for others.
    """

    name: str
    sha: str
    experiment: str | None = None
    baseline: str | None = None


class Repository:
    """The revisions of one repository and their files in git and DVC.

    Raises:
        PipelineError: the folder is not a DVC repository in git.
    """

    def __init__(self, root: Path) -> None:
        try:
            self.dvc = Repo(str(root))
        except DvcException:
            raise PipelineError(f"{root}: expected a DVC repository, found none; change to its folder") from None
        self.root = Path(self.dvc.root_dir)
        self.scm = self.dvc.scm
        if isinstance(self.scm, dvc.scm.NoSCM):
            raise PipelineError(f"{root}: expected a git repository, found none; git init creates one")
        self._prefix = self.root.relative_to(self.scm.root_dir)

    def __enter__(self) -> "Repository":
        return self

    def __exit__(self, *_: object) -> None:
        self.dvc.close()
        self.scm.close()

    def resolve(self, rev: str) -> Revision:
        """Resolve the name of a commit, branch, tag, experiment or "workspace".

        Raises:
            PipelineError: there is no such revision.
        """
        if rev == WORKSPACE:
            return Revision(WORKSPACE, "")
        try:
            sha = str(dvc.scm.resolve_rev(self.scm, rev))
        except (DvcException, SCMError) as error:
            raise PipelineError(f"{rev}: {error}; dvc exp list -A lists the experiments") from None
        named = [found for found in self._experiments() if found.sha == sha]
        exact = [found for found in named if found.name == rev]
        if exact or (named and sha.startswith(rev)):
            return (exact or named)[0]
        return Revision(rev, sha)

    def experiments(self, baseline: str | None = None) -> list[Revision]:
        """Return all experiments, or those of one baseline commit, in the order of completion."""
        found = (revision for revision in self._experiments() if baseline in (None, revision.baseline))
        return sorted(found, key=lambda revision: (self.time(revision), revision.name))

    def current(self, *, everything: bool) -> list[Revision]:
        """Return the experiments of HEAD or of every commit, and HEAD if it has results."""
        head = self.resolve("HEAD")
        experiments = self.experiments(None if everything else head.sha)
        return [*experiments, head] if self.carries_results(head) else experiments

    def queued(self) -> set[str]:
        """Return the names of the experiments that wait in DVC's queue or run from it."""
        queue = self.dvc.experiments.celery_queue
        return {str(entry.name) for entry in (*queue.iter_queued(), *queue.iter_active())}

    def commits(self) -> list[Revision]:
        """Return the commits of all branches and tags that changed dvc.lock, oldest first."""
        first: dict[bytes, tuple[datetime, str]] = {}
        for sha in self.scm.list_all_commits():
            try:
                key = hashlib.sha256(self.read(Revision(sha, sha), lock.NAME)).digest()
            except FileNotFoundError:
                continue
            found = (self.time(Revision(sha, sha)), sha)
            first[key] = min(first.get(key, found), found)
        return [Revision(sha[:7], sha) for _, sha in sorted(first.values())]

    def time(self, revision: Revision) -> datetime:
        """Return the commit time of a revision."""
        return datetime.fromtimestamp(self.scm.resolve_commit(revision.sha).commit_time, UTC)

    def results(self, revision: Revision) -> Results:
        """Return the results of a revision.

        Raises:
            ResultsError: it has none, or inconsistent files.
        """
        try:
            return results.read(partial(self.read, revision))
        except ResultsError as error:
            raise ResultsError(
                f"{revision.name}: no results: {error}; dvc exp list -A lists the experiments"
            ) from None

    def differing(self, revision: Revision, record: Results) -> dict[str, Any]:
        """Return the recorded parameters of an experiment that differ from its baseline's params.yaml.

        Those of the workspace are compared with HEAD's. Commits, and baselines that git no longer has, give none.
        """
        baseline = revision.baseline if revision.sha else self.scm.get_rev()
        try:
            text = self.read(Revision(baseline, baseline), "params.yaml") if baseline else None
        except (FileNotFoundError, KeyError):
            return {}
        return differing(record.params, text) if text is not None else {}

    def carries_results(self, revision: Revision) -> bool:
        """Return whether a revision has results."""
        try:
            self.results(revision)
        except ResultsError:
            return False
        return True

    def remember(self, alias: str, sha: str) -> None:
        """Record the commit of an alias of the model registry in git, so that a lost registry can be restored.

        The ref keeps the commit when its experiment is removed; an empty `sha` removes the ref.
        """
        if sha:
            self.scm.set_ref(f"{PROMOTED}{alias}", sha)
        elif f"{PROMOTED}{alias}" in set(self.scm.iter_refs(PROMOTED)):
            self.scm.remove_ref(f"{PROMOTED}{alias}")

    def remembered(self) -> dict[str, str]:
        """Return alias -> commit of all promotions recorded in git."""
        return {ref.removeprefix(PROMOTED): self.scm.get_ref(ref) for ref in self.scm.iter_refs(PROMOTED)}

    def read(self, revision: Revision, path: str) -> bytes:
        """Return the bytes of a file in git.

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
        """Return the bytes of an output, or of a file in one, from DVC's cache or a remote.

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
        """Return the history of a training: for each epoch "epoch" (from 1) and its metrics.

        Raises:
            ResultsError: neither DVC's cache nor a remote has them.
        """
        return results.parse_history(self.output(revision, record, record.paths["train"]["history"]))

    def copy(self, revision: Revision, paths: Iterable[str], folder: Path) -> list[str]:
        """Copy files and folders of a revision from git or DVC, and return those that neither has."""
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
    """Return PATH with this interpreter's folder first, so that `python3` in dvc.yaml is this interpreter."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


def _absent(revision: Revision, path: str, error: Exception) -> str:
    reason = " ".join(str(error).split())
    return (
        f"{revision.name}: {path} is neither in DVC's cache nor in a remote ({reason}); "
        f"dvc fetch downloads it, dvc repro recreates it"
    )
