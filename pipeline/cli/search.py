"""Commands that run many experiments: a search for good parameters, the test of a claim, further seeds."""

from pathlib import Path
from typing import Annotated, Literal

import typer

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C ended, as shells report it."""


def tune(
    space: Annotated[Path, typer.Option(help="YAML file: parameters and their ranges or choices.")],
    trials: Annotated[int, typer.Option(min=1, help="Trials to finish, those of earlier starts included.")] = 20,
    name: Annotated[str, typer.Option(help="Of the search; its experiments are NAME-0000, NAME-0001, ...")] = "tune",
    jobs: Annotated[int, typer.Option(min=1, help="Trials that run at once.")] = 1,
    sampler: Annotated[Literal["tpe", "random", "grid"], typer.Option(help="How parameters are chosen.")] = "tpe",
    seed: Annotated[int, typer.Option(min=0, help="Of the sampler.")] = 0,
    startup: Annotated[int, typer.Option(min=1, help="Trials to complete before poor ones are pruned.")] = 5,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the first trials without running them.")] = False,
) -> None:
    """Search for the parameters with the best validation accuracy; each trial is an experiment.

    After Ctrl-C the same command continues.
    """
    from pipeline.search import study
    from pipeline.search import tune as command  # optuna takes seconds to import

    plan = study.Plan(name, trials, jobs, sampler, seed, startup)
    if dry_run:
        command.preview(Path.cwd(), space, plan)
    elif not command.run(Path.cwd(), space, plan):
        raise typer.Exit(INTERRUPTED)


def study(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The study that studies/NAME.yaml describes.")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the studies.")] = False,
    data: Annotated[
        Literal["cifar10", "shapes10"] | None, typer.Option(help="The dataset; default: that of params.yaml.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="The large setting, for a GPU; default: small.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Experiments that run at once.")] = 1,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            "-S",
            metavar="KEY=VALUE",
            help="A parameter for all experiments; may be given several times.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the experiments without running them.")] = False,
) -> None:
    """Test a claim about CNNs: run the experiments that are missing, then write docs/studies/NAME.md.

    After Ctrl-C the same command continues.
    """
    if listed == (name is not None):
        raise typer.BadParameter("name either a study or --list")
    from pipeline.studies import run as command

    if name is None:
        command.listing(Path.cwd())
        return
    plan = command.plan(Path.cwd(), name, dataset=data, scale="full" if full else "small", overrides=overrides or ())
    if dry_run:
        command.preview(Path.cwd(), plan)
    elif not command.run(Path.cwd(), plan, jobs):
        raise typer.Exit(INTERRUPTED)


def replicate(
    rev: Annotated[
        str | None,
        typer.Argument(metavar="REV", help="A commit or experiment; default: all that compare leaves open."),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=2, help="Seeds that each should have; default: 3 of REV, else what settles the comparison."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Compare the experiments of every commit.")] = False,
    baseline: Annotated[str, typer.Option(help="What the others are compared against.")] = "HEAD",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the experiments without queueing them.")] = False,
) -> None:
    """Queue the missing seeds of a configuration, or of all comparisons that are undecided."""
    from pipeline.search import replication

    replication.run(Path.cwd(), rev, seeds, everything=everything, baseline=baseline, dry_run=dry_run)
