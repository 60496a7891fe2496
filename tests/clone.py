"""Repositories for tests that run the project's commands."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import mlflow

from pipeline.experiments import results
from pipeline.tracking import groups
from pipeline.tracking.runs import PARENT_TAG
from tests.conftest import SMALL, heed_ctrl_c, write_params
from tests.paths import ROOT

LEFT_OUT = ("tests/", "docs/", "metrics/", "dvc.lock")
"""Tracked files that no command reads, among them the results that a user may have committed."""
STORE = ("mlflow.db*", "mlartifacts", ".mlflow.lock")
"""What MLflow keeps in a repository, absolute paths in it."""


class Clone:
    """A repository of the project's files for one test module, and commands run in it."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        """Take the repository in a folder as it is."""
        self.folder = folder
        self.stores = 0  # how many have been lost
        self.environment = environment

    @classmethod
    def new(
        cls,
        folder: Path,
        environment: dict[str, str],
        changes: dict | None = None,
        *,
        source: Path = ROOT,
        cache: Path | None = None,
    ) -> "Clone":
        """Commit the project's files with the small parameters to a new repository, without any results.

        Args:
            changes: parameters that differ from the small ones.
            source: the working tree to copy, tracked and new files alike.
            cache: DVC's cache to start with, run cache included: what it holds is restored instead of run.
        """
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=source, capture_output=True, text=True, check=True).stdout
        for name in filter(None, listed.split("\0")):
            if (source / name).is_file() and not name.startswith(LEFT_OUT):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, folder / name)
        write_params(folder / "params.yaml", SMALL | (changes or {}))
        if cache:
            shutil.copytree(cache, folder / ".dvc/cache")
        made = cls(folder, environment)
        made("git", "init", "-q", "-b", "main")
        made("git", "config", "user.email", "tests@example.org")
        made("git", "config", "user.name", "Tests")
        made.commit("start")
        return made

    def commit(self, message: str) -> None:
        """Commit all that git does not ignore."""
        self("git", "add", "-A")
        self("git", "commit", "-q", "-m", message)

    def __call__(self, *command: str, code: int = 0, **environment: str) -> str:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment | environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    def begin(self, *command: str) -> subprocess.Popen:
        """Begin a command in a process group of its own, as a shell does, so that Ctrl-C can be sent to it."""
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
            preexec_fn=heed_ctrl_c,
        )

    def client(self) -> mlflow.MlflowClient:
        """Return a client of the store that is there now: MLflow keeps a connection for each address it was given."""
        return mlflow.MlflowClient(f"sqlite:///{self.folder}/mlflow.db?timeout={60 + self.stores}")

    def lose_store(self) -> None:
        """Delete MLflow's database and artifacts."""
        (self.folder / "mlflow.db").unlink()
        shutil.rmtree(self.folder / "mlartifacts")
        self.stores += 1

    def runs(self) -> list[mlflow.entities.Run]:
        """Return the runs of results, searches and studies: all but the parents of configurations."""
        return [run for run in self._all_runs() if not groups.is_parent(run)]

    def configurations(self) -> list[mlflow.entities.Run]:
        """Return the runs that are parents of seeds."""
        return [run for run in self._all_runs() if groups.is_parent(run)]

    def family(self, study: str) -> tuple[mlflow.entities.Run, list[mlflow.entities.Run]]:
        """Return the run of a search or study and those of its experiments, below it or its configurations."""
        (parent,) = [run for run in self.runs() if run.data.tags.get("study") == study]
        parent_of = {run.info.run_id: run.data.tags.get(PARENT_TAG) for run in self._all_runs()}
        above = {run: {parent_of[run], parent_of.get(parent_of[run])} for run in parent_of}
        return parent, [run for run in self.runs() if parent.info.run_id in above[run.info.run_id]]

    def _all_runs(self) -> list[mlflow.entities.Run]:
        client = self.client()
        experiment = client.get_experiment_by_name("cifar10")
        return client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])

    def metrics(self, name: str) -> dict:
        return results.row((self.folder / f"metrics/{name}.json").read_bytes())


@dataclass(frozen=True)
class Finished:
    """A repository in which `dvc repro` has run every stage, once for all test processes.

    Attributes:
        folder: for the repository, a copy of it and what was printed.
        environment: of its commands.
    """

    folder: Path
    environment: dict[str, str]

    @property
    def repository(self) -> Path:
        """Where it ran, with its MLflow store: tests/test_pipeline.py alone uses it, and changes it."""
        return self.folder / "repository"

    @property
    def output(self) -> str:
        """What `dvc repro` printed."""
        return (self.folder / "output").read_text()

    @property
    def cache(self) -> Path:
        """DVC's cache afterwards."""
        return self.folder / "copy/.dvc/cache"

    def copy(self, folder: Path) -> Clone:
        """Copy the repository as it was afterwards, its results not committed, without the MLflow store."""
        shutil.copytree(self.folder / "copy", folder)
        return Clone(folder, self.environment)

    def make(self) -> None:
        """Run the pipeline, unless that was done."""
        if (self.folder / "output").exists():
            return
        made = Clone.new(self.repository, self.environment, {"inspect.enabled": True, "train.diagnostics": True})
        output = made("dvc", "repro")
        shutil.copytree(self.repository, self.folder / "copy", ignore=shutil.ignore_patterns(*STORE))
        (self.folder / "output").write_text(output)


def ran(output: str) -> list[str]:
    """Return the stages that DVC said it ran."""
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]
