"""The speed run: the peer is the published recipe, and both sides are measured and judged alike."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from benchmarks import airbench_muon, airbench_package, speedrun, speedrun_figure
from benchmarks.airbench_muon import Outcome, Recipe
from benchmarks.measuring import BenchmarkError
from pipeline import stage
from pipeline.archives import shapes10
from pipeline.config import presets
from tests.paths import ROOT


def images(count: int) -> torch.Tensor:
    """Smooth random (N, 3, 32, 32) uint8."""
    rough = torch.randn(count, 3, 34, 34, generator=torch.Generator().manual_seed(0))
    return (128 + 180 * torch.nn.functional.avg_pool2d(rough, 3, 1)).round().clamp(0, 255).to(torch.uint8)


def test_the_peers_network_has_the_published_size():
    """1,974,954 numbers as published, of which 288 whitening weights and 1,792 scales are not trained."""
    net = airbench_muon.Net((64, 256, 256))
    convolutions = 9 * (24 * 64 + 64 * 64 + 64 * 256 + 256 * 256 + 256 * 256 + 256 * 256)
    expected = convolutions + 2 * (64 + 256 + 256) + 24 + 10 * 256
    assert sum(weight.numel() for weight in net.parameters() if weight.requires_grad) == expected
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_the_peers_whitening_gives_uncorrelated_components():
    """Of unit variance, on the images it was fitted on."""
    net = airbench_muon.Net((8, 8, 8))
    pixels = images(100).float()
    normalised = (pixels - pixels.mean((0, 2, 3), keepdim=True)) / pixels.std((0, 2, 3), keepdim=True)
    net.fit_whitening(normalised)
    components = torch.nn.functional.conv2d(normalised, net.whiten.weight).permute(1, 0, 2, 3).flatten(1)
    assert torch.allclose(torch.cov(components[:12]), torch.eye(12), atol=0.05)


def test_the_peers_epochs_show_each_image_once_shifted_and_mirrored_every_second_time():
    """An image's pixels, at most two to any side, mirrored in one of two epochs."""
    pixels = images(40).float()
    loader = airbench_muon.Loader(pixels, torch.arange(40), 20, torch.Generator().manual_seed(0))
    sides = []
    for _ in range(2):
        seen = {}
        for batch, numbers in loader:
            for image, number in zip(batch, numbers.tolist(), strict=True):
                centre, original = (
                    image[:, 2:-2, 2:-2],
                    torch.nn.functional.pad(pixels[number][None], (2,) * 4, "reflect")[0],
                )
                matches = {
                    mirrored
                    for mirrored in (False, True)
                    for down in range(5)
                    for right in range(5)
                    if torch.equal(
                        (image.flip(2) if mirrored else image), original[:, down : down + 32, right : right + 32]
                    )
                }
                assert centre.shape == (3, 28, 28)
                assert len(matches) == 1
                seen[number] = matches.pop()
        assert sorted(seen) == list(range(40))
        sides.append([seen[number] for number in range(40)])
    assert [not side for side in sides[0]] == sides[1]


def test_the_peer_learns(archive, cpu):
    """In a handful of steps, far above chance; the same seed gives the same accuracy."""
    data = speedrun.read(archive)
    outcomes = [
        speedrun.train_peer(Recipe((8, 16, 16), epochs=8, batch_size=100), data, cpu, 0, lambda _: None)
        for _ in range(2)
    ]
    assert outcomes[0].accuracy == outcomes[1].accuracy > 0.2
    assert outcomes[0].seconds > 0


def test_the_packages_own_table_is_read():
    """Seconds of the last epoch, before the evaluation is added; the accuracy over six views."""
    printed = (
        "|  run     |  epoch  |  train_loss  |  train_acc  |  val_acc  |  tta_val_acc  |  total_time_seconds  |\n"
        "|  warmup  |         |      2.3026  |             |           |               |                      |\n"
        "|       0  |      0  |      1.9700  |     0.5186  |   0.5083  |               |              0.4123  |\n"
        "|          |      9  |      0.9912  |     0.9678  |   0.9329  |               |              3.7611  |\n"
        "-----------------------------------------------------------------------------------------------------\n"
        "|          |   eval  |      0.9912  |     0.9678  |   0.9329  |       0.9401  |              3.8287  |\n"
    )
    assert airbench_package.parse(printed) == Outcome(3.7611, 0.9401)


def test_every_peer_has_a_preset():
    """Of the same name."""
    assert set(speedrun.PEERS) <= {preset.name for preset in presets.every()}


@pytest.fixture(scope="module")
def small_archive(tmp_path_factory):
    """Just enough images for one of the peer's batches."""
    path = tmp_path_factory.mktemp("speedrun") / "archive.tar.gz"
    shapes10.write_archive(path, train_images=1200, test_images=100, noise=5.0, seed=0)
    return path


@pytest.mark.e2e
def test_both_sides_are_trained_and_compared(small_archive, tmp_path):
    """With two seeds: what is printed and written agrees with the single runs."""
    out = tmp_path / "speedrun.json"
    command = [sys.executable, "-m", "benchmarks.speedrun", "--archive", str(small_archive), "--device", "cpu"]
    command += ["--runs", "2", "--preset", "fast", "--json", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(out.read_text())
    assert found["machine"]["device"] == "cpu"
    fast = found["fast"]
    for side in ("ours", "peer"):
        outcomes = fast[side]["outcomes"]
        assert len(outcomes) == fast[side]["n"] == 2
        assert fast[side]["accuracy_mean"] == pytest.approx(np.mean([one["accuracy"] for one in outcomes]))
        assert fast[side]["seconds_sd"] == pytest.approx(np.std([one["seconds"] for one in outcomes], ddof=1))
        assert f"{100 * fast[side]['accuracy_mean']:.2f}" in done.stdout
    ratios = [
        ours["seconds"] / peer["seconds"]
        for ours, peer in zip(*(fast[side]["outcomes"] for side in ("ours", "peer")), strict=True)
    ]
    assert fast["vs_peer"] == pytest.approx(np.median(ratios))
    drawn = [tmp_path / name for name in ("one.png", "two.png")]
    for path in drawn:
        speedrun_figure.main([out], path)
    one, two = (path.read_bytes() for path in drawn)
    assert one == two
    assert one.startswith(b"\x89PNG")
    speedrun_figure.main([out], drawn[1], "other images")
    assert drawn[1].read_bytes() != one


def test_results_of_two_machines_are_not_drawn_as_one(tmp_path):
    """Seconds of the one say nothing beside those of the other."""
    files = [tmp_path / "one.json", tmp_path / "two.json"]
    for path in files:
        path.write_text(json.dumps({"machine": {"device_name": path.stem}, "data": "CIFAR-10"}))
    with pytest.raises(BenchmarkError, match=r"two\.json: found results of two and CIFAR-10, expected one"):
        speedrun_figure.main(files, tmp_path / "out.png")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--preset", "slow"], "error: --preset: found slow, expected one of fast, brisk, balanced, accurate"),
        (["--package", "--preset", "fast"], "error: --package: airbench runs on CUDA GPUs only, found cpu"),
    ],
)
def test_mistakes_are_one_line(small_archive, arguments, expected, monkeypatch, capsys):
    """Before anything is trained."""
    command = ["speedrun.py", "--archive", str(small_archive), "--device", "cpu", *arguments]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        stage.command(speedrun.main)
    printed = capsys.readouterr()
    assert (ended.value.code, printed.err.splitlines()) == (1, [expected])
    assert "seed" not in printed.out
