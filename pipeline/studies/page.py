"""docs/studies/NAME.md: claim, verdict, figures, tables and experiments; same results give the same bytes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import files
from pipeline.experiments import tables
from pipeline.experiments.results import text_of
from pipeline.experiments.tables import ABSENT, Table
from pipeline.studies.analysis import Analysis, Estimate, Findings, Verdict, decide, estimates, met
from pipeline.studies.collected import Collected
from pipeline.studies.plan import Plan
from pipeline.studies.spec import Condition, Overrides

FOLDER = "docs/studies"
MACHINE = ("device_name", "threads", "precision", "platform", "python", "torch")

Found = Mapping[str, Estimate]


@dataclass(frozen=True)
class Written:
    """A page: its path, its verdict, and a sentence for each condition."""

    path: Path
    verdict: Verdict
    reasons: tuple[str, ...]


def write(root: Path, analysis: Analysis, results: Collected, findings: Findings) -> Written:
    """Write the page of a study and its figures.

    Args:
        root: the repository.
    """
    plan, study = results.plan, results.plan.study
    found = estimates(analysis, results, findings)
    verdict = decide(study.rule, found)
    pictures = []
    for picture in findings.pictures:
        file = root / FOLDER / f"{plan.name}{picture.suffix}.png"
        picture.draw(file)
        pictures.append(f"![{picture.caption}]({file.name})\n\n{picture.caption}")
    data = _values(results, "data/name")
    parts = [
        f"# {study.claim}",
        f"Source: {study.source}",
        f"**This {verdict}**, as measured on {data} in the setting `{plan.scale}`.",
        tables.markdown(_rule(study.rule, analysis, found)),
        "A condition is met or not if its whole 95 % interval over seeds (jackknife) agrees; else it is unknown. A "
        "claim holds if all conditions are met, does not hold here if no essential one is, and holds in part "
        "otherwise; it is undecided while that depends on an unknown one.",
        *pictures,
        *(tables.markdown(table) for table in findings.tables),
        *(["## Limitations", "\n".join(f"- {note}" for note in study.notes)] if study.notes else []),
        "## Experiments",
        tables.markdown(_experiments(plan)),
        "\n".join(f"- {line}" for line in _circumstances(results, data)),
        f"```sh\n{plan.command}\n```",
    ]
    path = root / FOLDER / f"{plan.name}.md"
    files.write_text(path, "\n\n".join(parts) + "\n")
    return Written(path, verdict, tuple(_reason(condition, analysis, found) for condition in study.rule))


def _reason(condition: Condition, analysis: Analysis, found: Found) -> str:
    meaning = analysis.quantities[condition.quantity].meaning
    numbers = f"{_found(condition, analysis, found)}, expected {_needed(condition, analysis)}"
    return f"{condition.text}: {_met(condition, found)}. {meaning[0].upper()}{meaning[1:]}: {numbers}"


def _found(condition: Condition, analysis: Analysis, found: Found) -> str:
    """Format a value with its interval and the number of seeds."""
    estimate, form = found[condition.quantity], analysis.quantities[condition.quantity].form
    if math.isnan(estimate.value):
        return ABSENT
    text = f"{estimate.value:{form}}"
    if estimate == Estimate.exact(estimate.value):
        return text
    if math.isnan(estimate.low):
        return f"{text} (n = {estimate.seeds})"
    return f"{text} ({estimate.low:{form}} to {estimate.high:{form}}, n = {estimate.seeds})"


def _met(condition: Condition, found: Found) -> str:
    result = met(condition, found[condition.quantity])
    return "unknown" if result is None else "yes" if result else "no"


def _needed(condition: Condition, analysis: Analysis) -> str:
    form = analysis.quantities[condition.quantity].form
    if condition.at_least is not None:
        return f"at least {condition.at_least:{form}}"
    return f"at most {condition.at_most:{form}}"


def _rule(rule: Sequence[Condition], analysis: Analysis, found: Found) -> Table:
    rows = tuple(
        (
            condition.text,
            "yes" if condition.essential else "no",
            analysis.quantities[condition.quantity].meaning,
            _needed(condition, analysis),
            _found(condition, analysis, found),
            _met(condition, found),
        )
        for condition in rule
    )
    return Table("Conditions", ("condition", "essential", "measured", "expected", "found", "met"), rows, text=3)


def _experiments(plan: Plan) -> Table:
    """Return the parameters that each variant changes; those that all share are listed below."""
    rows = []
    for variant in plan.variants:
        planned = [one for one in plan.experiments if one.variant == variant]
        rows.append((variant, _assignments(plan.own(variant)), ", ".join(str(one.seed) for one in planned)))
    return Table("Variants", ("variant", "parameters", "seeds"), tuple(rows), text=3)


def _assignments(values: Overrides) -> str:
    return ", ".join(f"`{key}={text_of(value)}`" for key, value in values.items()) or ABSENT


def _circumstances(results: Collected, data: str) -> list[str]:
    plan = results.plan
    train, val, test = (_values(results, f"data/{split}_images") for split in ("train", "val", "test"))
    commits = sorted({str(found.revision.baseline)[:7] for found in results.found.values()})
    lines = [
        f"data: {data}; {train} training, {val} validation and {test} test images",
        f"compared: {plan.study.measure}",
        f"setting `{plan.scale}`, {plan.setting.about}: {_assignments(plan.shared)}",
        f"other parameters: `params.yaml` of commit {', '.join(commits) or ABSENT}",
        "machine: " + ", ".join(f"{key} {_values(results, f'train/{key}')}" for key in MACHINE),
    ]
    return lines + [f"{name} diverged: {reason}" for name, reason in results.rows["diverged"].items() if reason]


def _values(results: Collected, metric: str) -> str:
    """Format the values that the experiments recorded, each different one once."""
    if metric not in results.rows:
        return ABSENT
    values = dict.fromkeys(results.rows[metric].dropna())
    return ", ".join(f"{int(value):,}" if isinstance(value, int | float) else str(value) for value in values)
