"""params.yaml: every mistake is named in a line, at once, before anything heavy is imported."""

import copy
import itertools
import re
import subprocess
import sys

import numpy as np
import pytest

from pipeline.config import conflicts
from pipeline.config.loading import changed, load, read
from pipeline.data import dataset
from pipeline.errors import ParamsError
from pipeline.experiments.dependencies import stages
from tests.conftest import write_params
from tests.paths import ROOT


def lines(path) -> list[str]:
    with pytest.raises(ParamsError) as caught:
        load(path)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("train.epochs", "10", 'train.epochs: found "10", expected a valid integer'),
        ("train.epochs", 0, "train.epochs: found 0, expected greater than or equal to 1"),
        ("optimizer.muon.lr", 0.0, "optimizer.muon.lr: found 0.0, expected greater than 0"),
        ("optimizer.muon.lr", float("nan"), "optimizer.muon.lr: found NaN, expected a finite number"),
        ("train.compile", "yes", "train.compile: found \"yes\", expected 'auto', True or False"),
        ("model.cnn.activation", "rleu", "'relu', 'tanh', 'sigmoid', 'leaky_relu', 'gelu' or 'silu'"),
        ("model.cnn.widths", [], "model.cnn.widths: found [], expected"),
        ("model.cnn.widths", [32, 0], "model.cnn.widths[1]: found 0, expected greater than or equal to 1"),
        ("model.cnn.kernel_size", 4, "model.cnn.kernel_size: found 4, expected odd"),
        ("model.cnn.init_scale", 0.0, "model.cnn.init_scale: found 0.0, expected greater than or equal to 0.0001"),
        ("model.mlp.init_scale", 2e4, "model.mlp.init_scale: found 20000.0, expected less than or equal to 10000"),
        ("data.train_share", 0.0, "data.train_share: found 0.0, expected greater than 0"),
        ("data.train_share", 1.01, "data.train_share: found 1.01, expected less than or equal to 1"),
        ("train.diagnostics", "yes", 'train.diagnostics: found "yes", expected a valid boolean'),
        ("model.resnet.depth", 21, "model.resnet.depth: found 21, expected 6n + 2"),
        ("data.sha256", "abc", 'data.sha256: found "abc"'),
        ("train.device", "gpu", 'train.device: found "gpu"'),
    ],
)
def test_a_wrong_value_gives_its_path_what_was_found_and_what_is_allowed(tmp_path, key, value, expected):
    """One line for one mistake."""
    (line,) = lines(write_params(tmp_path / "params.yaml", {key: value}))
    assert line.startswith(str(tmp_path / "params.yaml"))
    assert expected in line


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"data.val_images": 49_995}, "data.val_images: found 49995, expected at most 49990"),
        ({"train.batch_size": 50_000}, "train.batch_size: found 50000, expected at most 45000"),
        ({"train.batch_size": 1}, "train.batch_size: found 1, which makes a batch of one of the 45000"),
        ({"data.val_images": 4999, "train.batch_size": 2}, "train.batch_size: found 2, which makes a batch of one of"),
        ({"data.train_share": 0.0001}, "data.train_share: found 0.0001, which is 4 of the 45000 training images"),
        ({"data.train_share": 0.01}, "train.batch_size: found 500, expected at most 450, the training images that"),
        ({"data.train_share": 0.1, "train.batch_size": 1}, "which makes a batch of one of the 4500"),
        ({"data.archive": "x.tar.gz"}, "data.sha256: found null, expected a value, as data.archive is set"),
        ({"data.sha256": "0" * 64}, "data.archive: found null, expected a value, as data.sha256 is set"),
        (
            {"model.cnn.widths": [8] * 6, "model.cnn.convs_per_block": 1},
            "model.cnn.widths: found 6 blocks, expected at most 5",
        ),
        (
            {"model.cnn.convs_per_block": [1, 2]},
            "model.cnn.convs_per_block: found 2 numbers, expected one for each of the 3",
        ),
        ({"evaluate.shift_step": 3}, "evaluate.shift: found 8, expected a multiple of evaluate.shift_step, 3"),
        ({"evaluate.robustness": 9}, "evaluate.robustness: found 9, expected 0 or at least 10, one of each class"),
        ({"data.dataset": "shapes10", "data.shapes10.train_images": 4000}, "data.val_images: found 5000"),
    ],
)
def test_values_that_cannot_work_together_are_named(tmp_path, changes, expected):
    """Each value is in range; the combination is not."""
    (line,) = lines(write_params(tmp_path / "params.yaml", changes))
    assert expected in line


def test_the_number_of_training_images_is_that_of_preprocess():
    """The check predicts it without importing the data package; halves are rounded to even numbers in both."""
    params = load(ROOT / "params.yaml")
    shares = [*np.linspace(0.001, 1, 200).round(4).tolist(), 0.0001, 0.5, 1 / 3]
    train = params.train.model_copy(update={"batch_size": 65_536})
    for val_images, train_share in itertools.product((10, 15, 4_999, 5_000, 49_000), shares):
        data = params.data.model_copy(update={"val_images": val_images, "train_share": train_share})
        message = next(conflicts.found(params.model_copy(update={"data": data, "train": train})))
        (found,) = re.findall(r"expected at most (\d+), the training images|, which is (\d+) of the", message)
        assert int("".join(found)) == dataset.share_of(50_000 - val_images, train_share), (val_images, train_share)


def test_six_blocks_work_without_pooling(tmp_path):
    """The limit on blocks is pooling's, not the network's."""
    params = load(
        write_params(
            tmp_path / "params.yaml",
            {"model.cnn.widths": [8] * 6, "model.cnn.convs_per_block": 1, "model.cnn.pooling": "none"},
        )
    )
    assert params.model.cnn.widths == (8,) * 6


def test_all_mistakes_are_reported_at_once_and_a_misspelt_key_with_the_right_one(tmp_path):
    """Nobody wants to mend a file one error at a time."""
    path = tmp_path / "params.yaml"
    text = (ROOT / "params.yaml").read_text().replace("  epochs: ", "  epohcs: ").replace("pooling: max", "pooling: x")
    path.write_text(text)
    found = lines(path)
    assert len(found) == 3
    assert any("train.epohcs: unknown key; did you mean epochs?" in line for line in found)
    assert any("train.epochs: missing" in line for line in found)
    assert any("model.cnn.pooling" in line for line in found)


def test_a_file_that_is_not_yaml_or_not_there_is_one_line(tmp_path):
    """The line of the first mistake is named."""
    (tmp_path / "broken.yaml").write_text("data:\n  dataset: [cifar10\nmodel: 1\n")
    (line,) = lines(tmp_path / "broken.yaml")
    assert "broken.yaml, line 3: not valid YAML" in line
    (line,) = lines(tmp_path / "absent.yaml")
    assert "absent.yaml: no such file" in line
    (tmp_path / "empty.yaml").write_text("")
    (line,) = lines(tmp_path / "empty.yaml")
    assert "the file: found null" in line


def test_numbers_are_read_as_dvc_reads_them(tmp_path):
    """1e-3 is a number in YAML 1.2, which DVC reads, and a string in YAML 1.1."""
    path = write_params(tmp_path / "params.yaml", {})
    path.write_text(path.read_text().replace("weight_decay: 0.1 ", "weight_decay: 5e-4 "))
    assert load(path).optimizer.muon.weight_decay == 0.0005


def test_effective_values_leave_out_what_is_not_in_use(tmp_path):
    """A resnet's depth is no parameter of a cnn's run."""
    params = load(write_params(tmp_path / "params.yaml", {"model.arch": "mlp"}))
    effective = params.effective()
    assert effective["model.arch"] == "mlp"
    assert "model.mlp.hidden" in effective
    assert "data.cifar10.urls" in effective
    assert not any(key.startswith(("model.cnn", "model.resnet", "data.shapes10")) for key in effective)
    assert {key.partition(".")[2] for key in params.effective("inspect")} == {"enabled", "images", "seed"}


@pytest.mark.parametrize("stage", ["download", "preprocess", "train", "evaluate", "inspect", "export", "track"])
def test_every_stage_reports_a_mistake_before_it_imports_torch(tmp_path, stage, environment):
    """In one line, without a traceback, and at once: what takes seconds to import comes later."""
    path = write_params(tmp_path / "params.yaml", {"train.epochs": 0})
    arguments = _arguments(stage) | {"--params": str(path)}
    command = [
        sys.executable,
        "-X",
        "importtime",
        "-m",
        f"stages.{stage}",
        *(part for pair in arguments.items() for part in pair),
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert said == [f"error: {path}: train.epochs: found 0, expected greater than or equal to 1"]
    imported = {
        line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")
    }
    assert not imported & {"torch", "mlflow", "onnx"}


def test_values_are_put_into_a_copy():
    """params.yaml's own values stay as they are."""
    base = read(ROOT / "params.yaml")
    before = copy.deepcopy(base)
    tree = changed(base, {"optimizer.muon.lr": 0.123, "model.cnn.widths": [7]})
    assert (tree["optimizer"]["muon"]["lr"], tree["model"]["cnn"]["widths"]) == (0.123, [7])
    assert base == before
    tree["optimizer"]["muon"]["lr"] = before["optimizer"]["muon"]["lr"]
    tree["model"]["cnn"]["widths"] = before["model"]["cnn"]["widths"]
    assert tree == before


def _arguments(stage: str) -> dict[str, str]:
    words = stages(ROOT)[stage]["cmd"].split()[3:]
    return dict(zip(words[::2], words[1::2], strict=True))
