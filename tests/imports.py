"""What running a module can import of this repository, found by reading its source."""

import ast
from collections.abc import Callable
from pathlib import Path


def closure(start: Path, root: Path, *, skipped: Callable[[str], bool]) -> set[str]:
    """Return the repository's files that running `start` can load, relative to its root, itself included.

    Args:
        skipped: says of a file, relative to the root, that it is left out, and with it what only it imports.
    """
    found: set[str] = set()
    waiting = [start]
    while waiting:
        path = waiting.pop()
        name = path.relative_to(root).as_posix()
        if name not in found and not skipped(name):
            found.add(name)
            waiting += [file for module in _imported(path) for file in _files(module, root)]
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
