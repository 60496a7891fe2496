"""Results of studies that were never run: metrics are given by hand, files lie in a folder."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.data import dataset
from pipeline.experiments import results
from pipeline.experiments.repository import Revision
from pipeline.experiments.results import Results
from pipeline.models.common.build import build
from pipeline.models.common.saved import save_model
from pipeline.studies import analyses, page
from pipeline.studies.analysis import Estimate
from pipeline.studies.collected import Collected
from pipeline.studies.existing import Found
from pipeline.studies.page import Written
from pipeline.studies.plan import Plan, Planned

PATHS = {
    "preprocess": {"out": "data/processed"},
    "train": {"out": "model", "history": "model/history.csv"},
    "evaluate": {"robustness": "results/robustness"},
}


class MadeUp(Collected):
    """What experiments would have left, each in a subfolder of its name."""

    def __init__(self, plan: Plan, folder: Path, metrics: Mapping[str, Mapping[str, Any]]) -> None:
        """Take metrics by experiment; those that have none diverged."""
        self.folder = folder
        found, diverged = {}, {}
        for one in plan.experiments:
            if one.name in metrics:
                own = {"data/name": "made up", "data/test_images": 1000} | dict(metrics[one.name])
                outputs = {"data/processed": str(one.settings.data.train_share)}  # in place of a hash
                record = Results({"train.seed": one.seed}, own, outputs, PATHS, "", {})
                found[one.name] = Found(Revision(one.name, "a" * 40, one.name, "b" * 40), record)
            else:
                diverged[one.name] = "the loss is nan"
        super().__init__(None, plan, found, diverged)

    def read(self, name: str, path: str) -> bytes:
        return (self.folder / name / path).read_bytes()

    def history(self, name: str) -> pd.DataFrame:
        return pd.DataFrame(results.parse_history(self.read(name, "model/history.csv")))


def certain(quantities: Mapping[str, float]) -> dict[str, Estimate]:
    """Return quantities as if they were known without error, so that the rule alone decides."""
    return {name: Estimate.exact(value) for name, value in quantities.items()}


def leave(folder: Path, planned: Planned, processed: Path) -> None:
    """Leave a network of an experiment's kind with its initial weights, and the images it would have seen."""
    params, metadata = planned.settings.model, dataset.load_metadata(processed)
    model = build(params.arch, params.section, mean=metadata.mean, std=metadata.std, classes=len(metadata.classes))
    save_model(folder / planned.name / "model", model, params, metadata)
    shutil.copytree(processed, folder / planned.name / "data/processed")


def written(folder: Path, results: Collected) -> Written:
    """Write a study's page and figures twice and see that they are the same bytes, each figure named on the page."""
    analysis = analyses.find(results.plan.name)
    once, again = (
        page.write(folder / part, analysis, results, analysis.analyse(results)) for part in ("once", "again")
    )
    left = {path.name: path.read_bytes() for path in once.path.parent.iterdir()}
    assert left == {path.name: path.read_bytes() for path in again.path.parent.iterdir()}
    text = once.path.read_text()
    assert {name for name in left if name.endswith(".png")} == {
        word.split(")")[0] for word in text.split("](") if ".png)" in word
    }
    return once
