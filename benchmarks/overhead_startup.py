"""How long a stage takes before it works: its imports, and how soon it tells of a mistake in params.yaml."""

import ast
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import inputs, measuring
from pipeline.experiments import dependencies

STAGES = ["download", "preprocess", "train", "evaluate", "inspect", "export", "track"]


def measure(names: Sequence[str], repeats: int, folder: Path) -> dict[str, Any]:
    """Time stages as dvc.yaml starts them.

    Args:
        names: of `STAGES`.
        folder: for a params.yaml with a mistake.

    Returns:
        For each stage, as ratios to `import torch`: "startup/STAGE", all that its file imports, also inside main();
        "mistake/STAGE", its whole run if params.yaml has a mistake. The seconds of each under "NAME/seconds".
    """
    stages = dependencies.stages(inputs.ROOT)
    wrong = folder / "params.yaml"
    wrong.write_text("a: mistake\n")
    sides: dict[str, Callable[[], object]] = {"startup/torch": partial(run, [sys.executable, "-c", "import torch"])}
    for name in names:
        command = [sys.executable, *stages[name]["cmd"].replace("params.yaml", str(wrong)).split()[1:]]
        sides[f"startup/{name}"] = partial(run, [sys.executable, "-c", imports_of(name)])
        sides[f"mistake/{name}"] = partial(run, command, code=1)
    title = f"start of {len(names)} stages: {len(sides)} commands, {repeats} + 1 times"
    with measuring.bar(title, len(sides) * (repeats + 1)) as advance:
        timings = measuring.interleaved(sides, repeats, torch.device("cpu"), on_call=advance)
    base = timings["startup/torch"]
    result: dict[str, Any] = {f"{name}/seconds": round(timing.median, 3) for name, timing in timings.items()}
    return result | {
        name: round(measuring.ratio(timing, base), 4) for name, timing in timings.items() if timing is not base
    }


def imports_of(stage: str) -> str:
    """Return the program that loads a stage and makes all imports of its file, also those inside main()."""
    tree = ast.parse((inputs.ROOT / f"stages/{stage}.py").read_text(encoding="utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    return "\n".join([f"import stages.{stage}", *map(ast.unparse, found)])


def run(command: list[str], *, code: int = 0) -> str:
    """Run a command in the repository's root and return what it printed."""
    return measuring.run(inputs.ROOT, command, code=code)
