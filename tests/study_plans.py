"""The project's studies, changed, and what is to be run for them."""

from pathlib import Path

from ruamel.yaml import YAML

from pipeline.studies import run
from pipeline.studies.plan import Plan
from tests.paths import ROOT


def edit(root: Path, name: str, **changes) -> None:
    """Write the project's study of this name with values changed: `small__seeds=[0]`; None removes a key."""
    yaml = YAML()
    tree = yaml.load(ROOT / f"studies/{name}.yaml")
    for key, value in changes.items():
        *sections, last = key.split("__")
        section = tree
        for part in sections:
            section = section[int(part) if part.isdigit() else part]
        section.pop(last) if value is None else section.update({last: value})
    yaml.dump(tree, root / f"studies/{name}.yaml")


def made(root: Path, name: str = "pooling", **options) -> Plan:
    """Plan a study, on shapes10 in the small setting if nothing else is said."""
    return run.plan(root, name, **{"dataset": "shapes10", "scale": "small", **options})
