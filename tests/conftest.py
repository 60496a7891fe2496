"""Small real things that tests share: a generated archive, its processed arrays, params with changes."""

import copy
import dataclasses
import os
import shutil
import signal
import subprocess
import sys

# Two test processes side by side: torch's threads, two in each, would only get in one another's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import filelock
import pytest
import torch
from ruamel.yaml import YAML

from pipeline import files
from pipeline.archives import cifar10, shapes10
from pipeline.config import loading
from pipeline.data import dataset
from pipeline.experiments import dependencies
from tests.paths import ROOT

# Small enough that a training takes a second or two, without the pictures of what is learned, which take longer, and
# everything else as a user has it.
SMALL = {
    "data.dataset": "shapes10",
    "data.shapes10.train_images": 600,
    "data.shapes10.test_images": 1000,
    "data.shapes10.noise": 0.0,
    "data.val_images": 100,
    "model.cnn.widths": [8, 16],
    "model.cnn.convs_per_block": 1,
    "model.cnn.hidden": [],
    "train.device": "cpu",
    "train.epochs": 2,
    "train.batch_size": 100,
    "optimizer.muon.lr": 0.01,
    "evaluate.robustness": 20,
}


def pytest_collection_modifyitems(config, items):
    """Leave out what takes hours, and start with what may take longest, so that no test process has it at the end."""
    if "torture" not in config.option.markexpr:
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("torture")])
        items[:] = [item for item in items if not item.get_closest_marker("torture")]
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU, where `make gpu-check` runs it"))
    expected: dict[object, float] = {}
    for item in items:
        if item.get_closest_marker("e2e"):
            limit = item.get_closest_marker("timeout")
            expected[item.module] = max(expected.get(item.module, 1), limit.args[0] if limit else 300)
    items.sort(key=lambda item: expected.get(item.module, 0), reverse=True)


@pytest.fixture(autouse=True)
def _own_surroundings(monkeypatch, tmp_path_factory):
    """Keep tests away from the user's cache, MLflow store and experiment, and from one another's threads."""
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def write_params(path: Path, changes: dict) -> Path:
    """Write the project's params.yaml with some values changed: `{"optimizer.muon.lr": 0.1}`."""
    yaml = YAML()
    tree = yaml.load(ROOT / "params.yaml")
    for key, value in changes.items():
        *sections, last = key.split(".")
        section = tree
        for name in sections:
            section = section[name]
        assert last in section, key
        section[last] = copy.deepcopy(value)
    yaml.dump(tree, path)
    return path


def start_python(code: str, *arguments: str, environment: dict[str, str]) -> subprocess.Popen:
    """Run code that sees the project in a process of its own, with pipes for all that it reads and writes."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdin=pipe, stdout=pipe, stderr=pipe)


def heed_ctrl_c() -> None:
    """For `preexec_fn`: shells let what they run in the background ignore Ctrl-C, and so would what tests start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def stage_command(name: str, folder: Path, **paths: Path) -> list[str]:
    """Return the command that dvc.yaml has for a stage, with paths for some options and all others in a folder."""
    words = dependencies.stages(ROOT)[name]["cmd"].split()[1:]
    options = zip(words[2::2], words[3::2], strict=True)
    chosen = {option: paths.get(option.removeprefix("--"), folder / path) for option, path in options}
    return [sys.executable, *words[:2], *(str(word) for pair in chosen.items() for word in pair)]


@pytest.fixture
def small_params(tmp_path):
    """A function from changes to validated params, small in all else."""
    return lambda changes=(): loading.load(write_params(tmp_path / "params.yaml", SMALL | dict(changes)))


@pytest.fixture(scope="session")
def archive(tmp_path_factory) -> Path:
    """shapes10 with 600 training and 1000 test images, in CIFAR-10's layout."""
    path = tmp_path_factory.mktemp("archive") / "archive.tar.gz"
    shapes10.write_archive(path, train_images=600, test_images=1000, noise=5.0, seed=0)
    return path


@pytest.fixture(scope="session")
def processed(archive, tmp_path_factory) -> Path:
    """That archive as the preprocess stage leaves it: 500 train, 100 val, 1000 test images."""
    raw = cifar10.read(archive)
    train, val = dataset.stratified_split(raw.train_labels, 100, seed=0)
    splits = {
        "train": dataset.Split(raw.train_images[train], raw.train_labels[train]),
        "val": dataset.Split(raw.train_images[val], raw.train_labels[val]),
        "test": dataset.Split(raw.test_images, raw.test_labels),
    }
    mean, std = dataset.channel_statistics(splits["train"].images)
    folder = tmp_path_factory.mktemp("processed")
    metadata = dataset.Metadata("shapes10", files.sha256(archive), raw.classes, mean, std, len(train))
    dataset.save(folder, dataset.Dataset(metadata, splits))
    return folder


@pytest.fixture
def data(processed) -> dataset.Dataset:
    """The processed arrays, loaded."""
    return dataset.load(processed, *dataset.SPLITS)


@pytest.fixture
def cpu() -> torch.device:
    """The device that every machine has."""
    return torch.device("cpu")


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """The folder that the test processes of a run have in common."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def environment(shared) -> dict[str, str]:
    """The environment for the project's commands: this interpreter first, no state of the user's."""
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_", "GIT_", "XDG_"))
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{clean['PATH']}"
    return clean | {"PATH": path, "HOME": str(shared / "home"), "COLUMNS": "120"}


@pytest.fixture(scope="session")
def finished(shared, environment):
    """A small pipeline that has run: the first test process that asks for it makes it, the others wait."""
    from tests.clone import Finished

    found = Finished(shared / "finished", environment)
    with filelock.FileLock(shared / "finished.lock"):
        found.make()
    return found


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> Path:
    """MLflow's database with its tables and no runs: to make one takes seconds, to copy it none."""
    from pipeline.tracking import store

    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / store.DATABASE}")  # client would set it for good
        store.client(folder)
    return folder / store.DATABASE


@pytest.fixture
def record(tmp_path, empty_store):
    """The record of a small pipeline's results, whose files are in tmp_path, beside an empty MLflow store."""
    from tests import tracked

    shutil.copyfile(empty_store, tmp_path / empty_store.name)
    return tracked.write_results(tmp_path)


@pytest.fixture
def publish(tmp_path, record):
    """A function that publishes that record, with changes, for an experiment or for none."""
    from tests import tracked

    return lambda owner=tracked.NOBODY, **changes: tracked.publish(
        tmp_path, dataclasses.replace(record, **changes), owner
    )


@pytest.fixture
def server(tmp_path, environment):
    """An MLflow server that is running, and is gone after the test."""
    from tests.mlflow_server import Server

    folder = tmp_path / "server"
    stores = ("--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", f"{folder}/artifacts")
    with Server(folder, environment, "server", *stores).running() as running:
        yield running
