"""A repository of its own for tests that run the project's commands."""

import shutil
import signal
import subprocess
from pathlib import Path

import mlflow

from pipeline import files
from tests.conftest import SMALL, write_params
from tests.paths import ROOT


class Clone:
    """A git clone of the working tree with the small parameters committed, and commands run in it."""

    def __init__(self, folder: Path, environment: dict[str, str], changes: dict | None = None) -> None:
        self.folder = folder
        self.stores = 0  # how many have been lost
        self.environment = environment | {"HOME": str(folder.parent)}
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file() and not name.startswith("tests/"):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, folder / name)
        write_params(folder / "params.yaml", SMALL | (changes or {}))
        self("git", "init", "-q", "-b", "main")
        self("git", "config", "user.email", "tests@example.org")
        self("git", "config", "user.name", "Tests")
        self("git", "add", "-A")
        self("git", "commit", "-q", "-m", "start")

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
            # Shells let what they run in the background ignore Ctrl-C, and so would all that these tests start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
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
        client = self.client()
        experiment = client.get_experiment_by_name("cifar10")
        return client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])

    def metrics(self, name: str) -> dict:
        return files.read_json(self.folder / f"metrics/{name}.json")


def ran(output: str) -> list[str]:
    """Return the stages that DVC said it ran."""
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]
