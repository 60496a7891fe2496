"""The description of a run: a short report in Markdown."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline.experiments.configuration import SEED
from pipeline.experiments.results import Results
from pipeline.headline import HEADLINE, signed
from pipeline.tracking.owner import Owner

if TYPE_CHECKING:
    from mlflow.entities import Run

FIGURES = ("training", "confusion", "mistakes", "reliability")


def describe(run: "Run", record: Results, owner: Owner, differing: Mapping[str, str], before: Results | None) -> str:
    """Return the description of a result's run.

    Args:
        differing: parameters that differ from those of the commit it started from, with their values.
        before: the results of that commit, if it has any.
    """
    lines = []
    if owner.baseline:
        changes = ", ".join(f"`{key}={value}`" for key, value in differing.items()) or "nothing"
        lines += [f"Differs from params.yaml at {owner.baseline[:7]}: {changes}", ""]
    head = ["result", "value", *(["difference to the baseline"] if before else [])]
    lines += [f"| {' | '.join(head)} |", f"| {' | '.join('---' for _ in head)} |"]
    for key, value in record.headline.items():
        label, form = HEADLINE[key]
        cells = [label, form.format(value)]
        if before:
            cells.append(signed(key, value - before.headline[key]) if key in before.headline else "")
        lines.append(f"| {' | '.join(cells)} |")
    if before and record.params[SEED] == before.params[SEED]:
        lines += ["", "These are two trainings: `python -m pipeline compare` tests whether they differ significantly."]
    if owner.experiment:
        changes = "".join(f" -S '{key}={value}'" for key, value in differing.items())
        lines += ["", f"Run it again: `dvc exp run --temp -n {owner.experiment}-again{changes}`"]
    root = f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/artifacts"
    figures = ", ".join(f"[{name}]({root}/figures/{name}.png)" for name in FIGURES)
    tables = ", ".join(f"[{name}]({root}/{name}.csv)" for name in ("history", "classes", "predictions"))
    return "\n".join([*lines, "", f"Figures: {figures}. Tables: {tables}. [Model card]({root}/MODEL_CARD.md)", ""])
