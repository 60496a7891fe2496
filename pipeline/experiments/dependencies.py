"""The code dependencies of stages as listed in dvc.yaml; checkpoints, studies and tests use them."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.config import loading
from pipeline.config.schema import Params
from pipeline.errors import PipelineError

VALUE = re.compile(r"\$\{([^}]*)\}")
"""A parameter's value in dvc.yaml, by its full name: `${model.arch}`."""


def stages(root: Path) -> dict[str, Any]:
    """Return the stages of a repository's dvc.yaml by name.

    Raises:
        PipelineError: it is missing, is not YAML, or has no stages.
    """
    path = root / "dvc.yaml"
    tree = loading.read(path)
    found = tree.get("stages") if isinstance(tree, dict) else None
    if not isinstance(found, dict):
        raise PipelineError(f"{path}: expected the pipeline's stages, found none; run this in its repository")
    return found


def code(root: Path, stage: Mapping[str, Any], values: Mapping[str, str]) -> set[str]:
    """Return the source files of a stage's dependencies, including those in folders, relative to the root.

    Args:
        stage: its definition in dvc.yaml.
        values: replacements for `${KEY}` in its dependencies, e.g. `{"model.arch": "cnn"}`.
    """
    found: set[str] = set()
    for pattern in stage.get("deps", []):
        path = VALUE.sub(lambda match: values[match[1]], pattern)
        if path.endswith(".py"):
            found.add(path)
        else:
            found |= {file.relative_to(root).as_posix() for file in (root / path).rglob("*.py")}
    return found


def digest(root: Path, names: Iterable[str], params: Params) -> str:
    """Return a SHA-256 of the definitions and code dependencies of some stages with these parameters.

    Raises:
        PipelineError: dvc.yaml is missing, is not YAML, or has no stages.
    """
    defined = stages(root)
    chosen = {name: defined[name] for name in names if name in defined}
    keys = {key for stage in chosen.values() for path in stage.get("deps", []) for key in VALUE.findall(path)}
    values = {key: attrgetter(key)(params) for key in keys}
    sources = set().union(*(code(root, stage, values) for stage in chosen.values()))
    definitions = [[name, {**stage, "desc": ""}] for name, stage in chosen.items()]
    content = files.sha256_all((root / path for path in sources), root=root)
    return hashlib.sha256(json.dumps([definitions, content]).encode()).hexdigest()
