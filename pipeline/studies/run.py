"""The command study: run the missing experiments, then write the page with the verdict; list studies, show plans."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline.errors import StudyError
from pipeline.experiments.repository import Repository
from pipeline.experiments.results import text_of
from pipeline.search.launcher import end_in_order, only_one
from pipeline.studies import analyses, existing, page, spec
from pipeline.studies import plan as plans
from pipeline.studies.collected import Collected
from pipeline.studies.plan import Plan
from pipeline.studies.runner import FOLDER, Ledger, Runner, missing
from pipeline.studies.spec import Overrides, Scale
from pipeline.tracking.studies import StudyRun


def plan(root: Path, name: str, *, dataset: str | None, scale: Scale, overrides: Sequence[str] = ()) -> Plan:
    """Plan a study and check it against its analysis.

    Args:
        root: the repository.
        dataset: a value of data.dataset; None: that of params.yaml.
        overrides: further parameters for all experiments, as "KEY=VALUE".

    Raises:
        StudyError: there is no such study or no analysis of it, or there are mistakes in the study or in `overrides`;
            one line for each of them.
        ParamsError: there are mistakes in params.yaml.
    """
    study = spec.find(root, name)
    quantities = analyses.find(name).quantities
    return plans.make(root, name, study, quantities, dataset=dataset, scale=scale, overrides=overrides)


def run(root: Path, planned: Plan, jobs: int) -> bool:
    """Run the missing experiments of a study, then write docs/studies/NAME.md and its figures.

    Args:
        root: the repository.
        jobs: how many experiments run at once.

    Returns:
        Whether the study is complete; False: it was interrupted, and the same command continues.

    Raises:
        StudyError: it is running already, experiments failed, or params.yaml or the code was changed meanwhile.
    """
    end_in_order()
    with only_one(root / FOLDER, planned.name, StudyError(f"the study {planned.name} is running already")):
        ledger = Ledger(root, planned.name)
        ledger.folder.mkdir(exist_ok=True)
        tracking = _track(root, planned, ledger)
        status = "FAILED"
        try:
            runner = Runner(root, planned, jobs, ledger, tracking)
            complete = runner.run()
            if complete:
                _conclude(root, planned, ledger, tracking)
            status = "FINISHED" if complete else "KILLED"
        finally:
            if tracking:
                tracking.end(status)
    if not complete:
        total = len(planned.experiments)
        print(f"interrupted with {runner.finished} of {total} experiments finished; the same command goes on")
    return complete


def preview(root: Path, planned: Plan) -> None:
    """Print the experiments of a study and which of them exist; nothing runs."""
    ledger = Ledger(root, planned.name)
    absent = {one.name for one in missing(root, planned, ledger)}
    table = Table(box=None, pad_edge=False)
    table.add_column("experiment", no_wrap=True)
    for head in ("state", "parameters"):
        table.add_column(head)
    for one in planned.experiments:
        state = "missing" if one.name in absent else "diverged" if one.name in ledger.diverged else "finished"
        table.add_row(one.name, state, "  ".join(_assignments(planned.own(one.variant))))
    console = Console(highlight=False)
    console.print(f"{planned.study.claim}\n{planned.scale}: {planned.setting.about}\n", style="bold")
    console.print(table)
    print(f"\nall experiments: {'  '.join(_assignments(planned.shared))}")
    print(f"{len(absent)} of {len(planned.experiments)} experiments are to be run")


def _assignments(values: Overrides) -> list[str]:
    return [f"{key}={text_of(value)}" for key, value in values.items()]


def listing(root: Path) -> None:
    """Print all studies with their claims."""
    table = Table(box=None, pad_edge=False)
    table.add_column("study", style="bold", no_wrap=True)
    table.add_column("claim")
    table.add_column("small", style="dim")
    for name in spec.names(root):
        study = spec.find(root, name)
        table.add_row(name, study.claim, study.small.about)
    Console().print(table)
    print("\npython -m pipeline study NAME --dry-run    prints the experiments of one")


def _conclude(root: Path, planned: Plan, ledger: Ledger, tracking: StudyRun | None) -> None:
    """Read the results, write the page and print the verdict."""
    with Repository(root) as repository:
        known = existing.by_name(repository)
        found = {one.name: there for one in planned.experiments if (there := existing.find(repository, one, known))}
        diverged = {name: reason for name, reason in ledger.diverged.items() if name not in found}
        results = Collected(repository, planned, found, diverged)
        analysis = analyses.find(planned.name)
        findings = analysis.analyse(results)
        written = page.write(root, analysis, results, findings)
    if tracking:
        tracking.conclude(written.verdict, findings.quantities)
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"{planned.study.claim}: [bold]{written.verdict}[/]")
    for line in written.reasons:
        console.print(f"- {line}", markup=False)
    print(f"wrote {written.path.relative_to(root)}")


def _track(root: Path, planned: Plan, ledger: Ledger) -> StudyRun | None:
    """Open the study's run in MLflow; None: tracking is off."""
    settings = planned.experiments[0].settings.tracking
    if not settings.enabled:
        return None
    tracked = StudyRun(root, settings.model_dump(), planned.name, ledger.mlflow_run)
    if tracked.run_id != ledger.mlflow_run:
        ledger.mlflow_run = tracked.run_id
        ledger.save()
        tracked.describe(planned.study.points(planned.scale))
    return tracked
