"""dvc.yaml against the code: every stage lists the code and the parameters that decide its outputs, and no others."""

import ast
import importlib
from pathlib import Path

import pytest

from pipeline import stage as stage_module
from pipeline.config import architectures, loading
from pipeline.config.schema import Params
from pipeline.config.section import Section
from pipeline.errors import PipelineError
from pipeline.experiments.dependencies import code, stages
from tests.conftest import SMALL, write_params
from tests.imports import closure
from tests.paths import ROOT

STAGES = stages(ROOT)
# Train reports live curves to MLflow, and no output of it depends on that: see the head of dvc.yaml.
NO_EFFECT_PARAMS = {"train": {"tracking"}}
EFFECTIVE = Params.effective
CHOICES = {
    "model.arch": architectures.NAMES,
    "data.dataset": ("cifar10", "shapes10"),
    "optimizer.name": ("muon", "sgd", "adamw"),
}


UNLISTED = {
    "pipeline/config": "params.yaml gives every value, so checking them can refuse to run but decides no byte",
    "pipeline/errors.py": "errors end a stage; what it would have written is not written",
    "pipeline/files.py": "writes and hashes what it is given",
    "pipeline/headline.py": "decides in which of its files a metric is written, not its value",
    "pipeline/stage.py": "arguments, progress bars and times, which go to metrics/runtime/ only",
    "pipeline/hardware": "which device runs a stage, recorded with its times; how it computes is in models/common",
    "pipeline/progress.py": "the progress display",
    "pipeline/tracking": "reports to MLflow; no output depends on it",
    "pipeline/experiments": "reads dvc.yaml and dvc.lock to name the training state and the MLflow run",
}
"""What stages import without listing it, and why a change there needs no stage to run again."""


def _unlisted(path: str) -> bool:
    empty = path.endswith("__init__.py") and len(ast.parse((ROOT / path).read_text()).body) <= 1
    return empty or any(path == name or path.startswith(f"{name}/") for name in UNLISTED)


@pytest.mark.parametrize("arch", architectures.NAMES)
@pytest.mark.parametrize("name", [name for name in STAGES if name != "track"])
def test_code_dependencies_are_what_the_stage_imports(name, arch):
    """Followed through the sources, so that an import inside a function counts, too; track has no outputs to decide.

    A network is found by its architecture's name, so its folder is a dependency of all that build networks.
    """
    loaded = closure(ROOT / f"stages/{name}.py", ROOT, skipped=_unlisted)
    if "pipeline/models/common/build.py" in loaded:
        loaded |= closure(ROOT / f"pipeline/models/{arch}/network.py", ROOT, skipped=_unlisted)
    folders = [path for path in STAGES[name]["deps"] if path.startswith("pipeline/") and not path.endswith(".py")]
    listed = {path for path in code(ROOT, STAGES[name], {"model.arch": arch}) if not _unlisted(path)}
    assert loaded <= listed
    # Packages are listed whole: of each, something is loaded.
    for folder in folders:
        assert any(path.startswith(folder.replace("${model.arch}", arch)) for path in loaded), folder
    assert {path for path in listed if path.count("/") == 1} <= loaded


@pytest.mark.parametrize("name", [name for name in STAGES if name != "track"])
def test_every_path_a_stage_is_given_is_declared(name):
    """An argument is a dependency, an output or a metric, lies in one, or is among those that DVC cannot know."""
    outside = {"params.yaml", ".checkpoints"}
    declared = set(STAGES[name]["deps"])
    for kind in ("outs", "metrics"):
        declared |= {entry if isinstance(entry, str) else next(iter(entry)) for entry in STAGES[name].get(kind, [])}
    arguments = set(STAGES[name]["cmd"].split()[4::2]) - outside
    assert all({path, path.partition("/")[0]} & declared for path in arguments)
    assert {path for path in declared if not path.startswith(("pipeline", "stages"))} <= arguments


@pytest.fixture(scope="module")
def reads(tmp_path_factory) -> dict[str, set[str]]:
    """Run the stages in this process, once for each architecture, and note each value they read."""
    found: dict[str, set[str]] = {name: set() for name in STAGES if name != "track"}
    variants = (
        {"augment.cutout": 4, "augment.brightness": 0.1, "augment.contrast": 0.1, "inspect.enabled": True},
        {"model.arch": "mlp", "optimizer.name": "adamw", "train.ema": 0.5, "train.diagnostics": True},
        {"model.arch": "resnet", "model.resnet.depth": 8, "model.resnet.width": 4, "data.dataset": "cifar10"},
        {"model.arch": "speednet", "model.speednet.widths": [4], "train.hardest": 0.5, "train.resolutions": [16]},
        {"model.arch": "vit", "model.vit.patch": 16, "model.vit.depth": 1, "optimizer.name": "sgd"},
        {"model.arch": "torchvision", "model.torchvision.name": "squeezenet1_1"},
    )
    archive = None
    for number, changes in enumerate(variants):
        folder = tmp_path_factory.mktemp(f"variant{number}")
        if changes.get("data.dataset") == "cifar10":
            changes = changes | {"data.archive": str(archive), "data.sha256": stage_module.files.sha256(archive)}
        write_params(folder / "params.yaml", SMALL | {"train.epochs": 1} | changes)
        _run_all(folder, found)
        archive = folder / "data/archive.tar.gz"
    return found


def _run_all(folder: Path, found: dict[str, set[str]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DVC_ROOT", str(folder))
        for name in found:
            module = importlib.import_module(f"stages.{name}")
            recorder = Recorder(found[name])
            patch.setattr(module, "load", recorder.load)
            recorder.patch(patch)
            words = STAGES[name]["cmd"].split()[3:]
            arguments = zip(words[::2], words[1::2], strict=True)
            module.main(**{key[2:].replace("-", "_"): Path(value) for key, value in arguments})


class Recorder:
    """Notes the full key of every parameter that is read after params.yaml is loaded and checked."""

    def __init__(self, found: set[str]) -> None:
        self.found = found
        self.names: dict[int, str] = {}

    def load(self, path: Path) -> Params:
        loaded = loading.load(path)
        self.loaded = loaded  # kept, so that no other object gets the id of one of its sections
        self._name(loaded, "")
        return loaded

    def _name(self, section: Section, prefix: str) -> None:
        for key in type(section).model_fields:
            value = object.__getattribute__(section, key)
            if isinstance(value, Section):
                self._name(value, f"{prefix}{key}.")
        self.names[id(section)] = prefix

    def patch(self, patch: pytest.MonkeyPatch) -> None:
        recorder = self

        def read(section, key):
            value = object.__getattribute__(section, key)
            prefix = recorder.names.get(id(section))
            known = prefix is not None and key in type(section).model_fields
            if known and not isinstance(value, Section):
                recorder.found.add(prefix + key)
            return value

        def read_effective(loaded, *groups):
            before = set(recorder.found)
            values = EFFECTIVE(loaded, *groups)
            recorder.found.clear()  # of what it looked at in order to choose
            recorder.found.update(before, values)
            return values

        patch.setattr(Section, "__getattribute__", read, raising=False)
        patch.setattr(Params, "effective", read_effective)


@pytest.mark.e2e
@pytest.mark.timeout(900)  # the stages of six architectures
@pytest.mark.parametrize("name", [name for name in STAGES if name != "track"])
def test_params_are_what_the_stage_reads(reads, name):
    """Each value read is listed, and of what is listed each value is read, whatever is chosen in params.yaml."""
    leaves = set()
    for key in STAGES[name]["params"]:
        prefixes = [key.replace(f"${{{choice}}}", value) for choice, values in CHOICES.items() for value in values]
        leaves |= {leaf for leaf in _all_leaves() for one in prefixes if leaf == one or leaf.startswith(f"{one}.")}
    found = {key for key in reads[name] if key.split(".")[0] not in NO_EFFECT_PARAMS.get(name, set())}
    # The mirrors are the one thing that tests can't read: they are for the official archive only.
    assert leaves - found <= {"data.cifar10.urls"}
    assert found <= leaves


def test_track_depends_on_all_that_a_run_shows():
    """On all parameters that other stages read, and on the folder to which each of them writes when it runs."""
    others = {key for name, stage in STAGES.items() if name != "track" for key in stage["params"]}
    covered = {key for key in others if any(key.startswith(f"{prefix}.") for prefix in others)}
    assert set(STAGES["track"]["params"]) == others - covered | {"tracking"}
    assert STAGES["track"]["deps"] == ["metrics"]
    for name in set(STAGES) - {"track"}:
        assert {f"metrics/runtime/{name}.json": {"cache": False}} in STAGES[name]["metrics"]


def test_every_uncached_output_is_a_metrics_file():
    """DVC's run cache leaves out stages with any other; what its tables show is in tests/test_pipeline.py."""
    outs = [entry for stage in STAGES.values() for entry in stage.get("outs", [])]
    assert all(isinstance(entry, str) for entry in outs)
    metrics = {path for stage in STAGES.values() for entry in stage.get("metrics", []) for path in entry}
    timed = {name for name in STAGES if name != "track"}
    assert metrics == {
        *(f"metrics/{name}.json" for name in ("train", "time", "evaluate")),
        *(f"metrics/details/{name}.json" for name in timed - {"download"}),
        *(f"metrics/runtime/{name}.json" for name in timed),
    }


@pytest.mark.parametrize("content", ["vars: []\n", "stages:\n", "[]\n"])
def test_a_dvc_yaml_without_stages_is_an_error_of_one_line(tmp_path, content):
    """Doctor and studies read it, wherever they are started."""
    (tmp_path / "dvc.yaml").write_text(content)
    with pytest.raises(PipelineError, match=r"^\S+dvc\.yaml: expected the pipeline's stages, found none; run this"):
        stages(tmp_path)


def _all_leaves() -> set[str]:
    def walk(tree, prefix=""):
        for key, value in tree.items():
            if isinstance(value, dict):
                yield from walk(value, f"{prefix}{key}.")
            else:
                yield prefix + key

    return set(walk(loading.read(ROOT / "params.yaml")))
