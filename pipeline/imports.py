"""What a module imports of this repository, found by reading its source, and what dvc.yaml lists of that."""

import ast
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline import params
from pipeline.errors import PipelineError

UNLISTED = {"train": "pipeline/tracking"}
"""What a stage loads without listing it: train to report live curves, on which no output of it depends."""


def stages(root: Path) -> dict[str, Any]:
    """Return the stages of a repository's dvc.yaml: their names and definitions.

    Raises:
        PipelineError: it is missing, is not YAML, or has no stages.
    """
    path = root / "dvc.yaml"
    tree = params.read(path)
    found = tree.get("stages") if isinstance(tree, dict) else None
    if not isinstance(found, dict):
        raise PipelineError(f"{path}: expected the pipeline's stages, found none; run this in its repository")
    return found


def closure(start: Path, root: Path, *, without: str | None = None) -> set[str]:
    """Return the repository's files that running `start` can load, relative to its root, itself included.

    Args:
        without: a folder, relative to the root, whose files are left out, and with them what only they import.
    """
    found: set[str] = set()
    waiting = [start]
    while waiting:
        path = waiting.pop()
        name = path.relative_to(root).as_posix()
        if name not in found and not (without and path.is_relative_to(root / without)):
            found.add(name)
            waiting += _packages(path, root)
            waiting += [file for module in _imported(path) for file in _files(module, root)]
    return found


def listed(dependencies: Iterable[str], root: Path) -> set[str]:
    """Return the source files among a stage's dependencies, those in folders included, relative to the root."""
    found: set[str] = set()
    for path in dependencies:
        if (root / path).is_dir():
            found |= {file.relative_to(root).as_posix() for file in (root / path).rglob("*.py")}
        elif path.endswith(".py"):
            found.add(path)
    return found


class _RuntimeOnly(ast.NodeTransformer):
    """Drops `if TYPE_CHECKING:` blocks, which never run."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)


def _imported(path: Path) -> set[str]:
    modules: set[str] = set()
    tree = _RuntimeOnly().visit(ast.parse(path.read_text(encoding="utf-8")))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{path}: relative import"
            modules |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {module for module in modules if module.split(".")[0] in ("pipeline", "stages")}


def _files(module: str, root: Path) -> list[Path]:
    base = root.joinpath(*module.split("."))
    return [path for path in (base.with_suffix(".py"), base / "__init__.py") if path.exists()]


def _packages(path: Path, root: Path) -> list[Path]:
    """Return the `__init__.py` of every package a file lies in: Python runs them first."""
    return [folder / "__init__.py" for folder in path.parents if folder.is_relative_to(root) and folder != root]
