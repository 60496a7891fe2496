"""A disk that is full or breaks, or a process killed, at any system call of a stage: one line, nothing half, goes on.

`make torture` tries every call, the other tests a few of each stage.
"""

import shutil
from pathlib import Path

import pytest

from pipeline import files
from tests.conftest import SMALL, stage_command, write_params
from tests.faults import FAULTS, Point, inject, needs_strace, points, run

STAGES = ("download", "preprocess", "train", "evaluate", "inspect", "export")
TIMED = ("metrics/runtime/", "metrics/time.json", ".checkpoints/")
"""Files that differ from run to run."""
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900), needs_strace]


def content(folder: Path) -> dict[str, str]:
    """Return path -> SHA-256 of the files in a folder; of those that differ from run to run, the path alone."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: "" if name.startswith(TIMED) else files.sha256(path) for name, path in found.items()}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory, environment) -> dict[str, tuple[Path, list[Point]]]:
    """Stage -> the folder as it was before the stage ran, and the points at which the stage changes files."""
    top = tmp_path_factory.mktemp("faults")
    folder, found = top / "work", {}
    folder.mkdir()
    write_params(folder / "params.yaml", SMALL | {"tracking.enabled": False, "train.diagnostics": True})
    for name in STAGES:
        shutil.copytree(folder, top / name)
        found[name] = (top / name, points(stage_command(name, folder), folder, environment, top / f"{name}.log"))
    shutil.copytree(folder, top / "end")
    return found


def after(pipeline: dict[str, tuple[Path, list[Point]]], stage: str) -> dict[str, str]:
    """Return what is there when a stage has run."""
    before, _ = pipeline[stage]
    following = [*STAGES, "end"][STAGES.index(stage) + 1]
    return content(before.with_name(following))


def try_fault(pipeline, stage: str, point: Point, fault: str, work: Path, environment: dict[str, str]) -> bool:
    """Let a stage meet a fault and run it again; return whether the first run noticed."""
    before, _ = pipeline[stage]
    whole, shown = after(pipeline, stage), f"{fault} at {point}"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(before, work)
    first = inject(stage_command(stage, work), point, fault, environment)
    if fault != "killed" and first.returncode:
        lines = [line for line in first.stderr.splitlines() if line.startswith("error: ")]
        assert first.returncode == 1, (shown, first.stderr)
        assert len(lines) == 1, (shown, first.stderr)
        assert str(work) in lines[0], (shown, first.stderr)
        assert "Traceback" not in first.stderr, shown
        assert not [name for name in content(work) if Path(name).name.startswith(".")], shown
    for name, digest in content(work).items():
        known = (whole.get(name), content(before).get(name))
        assert digest in known or name.startswith(TIMED) or Path(name).name.startswith("."), (shown, name)
    again = run(stage_command(stage, work), environment)
    assert again.returncode == 0, (shown, again.stderr)
    assert content(work) == whole, shown
    return first.returncode != 0


@pytest.mark.parametrize(
    ("stage", "faults"),
    [
        ("download", ("full", "killed", "broken")),
        ("preprocess", ("killed", "full")),
        ("train", ("full", "killed")),
        ("evaluate", ("killed",)),
        ("inspect", ("full", "killed")),
        ("export", ("full",)),
    ],
)
def test_a_fault_at_a_few_calls_costs_nothing(pipeline, stage, faults, tmp_path, environment):
    """Spread over the stage; where one has no effect, as on a folder that is there already, the next one."""
    _, found = pipeline[stage]
    for number, fault in enumerate(faults):
        following = found[int((number + 0.5) * len(found) / len(faults)) :]
        assert any(try_fault(pipeline, stage, point, fault, tmp_path / "work", environment) for point in following)


@pytest.mark.torture
@pytest.mark.timeout(0)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("stage", STAGES)
def test_a_fault_at_any_call_costs_nothing(pipeline, stage, fault, tmp_path, environment, capsys):
    """All of them."""
    _, found = pipeline[stage]
    noticed = sum(try_fault(pipeline, stage, point, fault, tmp_path / "work", environment) for point in found)
    with capsys.disabled():
        print(f"\n{stage}, {fault}: {len(found)} calls tried, {noticed} runs ended by them, 0 results lost")
    assert noticed
