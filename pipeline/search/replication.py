"""Queue further seeds of configurations, with the parameters and the code of the results that exist."""

import itertools
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import loading
from pipeline.errors import ResultsError
from pipeline.experiments import comparison, dependencies, git
from pipeline.experiments.comparison import duration
from pipeline.experiments.configuration import SEED
from pipeline.experiments.leaderboard import NUMBER, Member, Row
from pipeline.experiments.repository import Repository, Revision
from pipeline.experiments.results import REQUIRED_STAGES
from pipeline.search.experiment import exp_run

SEEDS = 3
"""Number of seeds of a revision that is named, unless the user chooses another."""

SHOWN = 3
"""Number of parameters that a message names."""

GROUPS = ("data", "augment", "model", "optimizer", "train", "evaluate")
"""Sections of params.yaml whose effective parameters results record in full."""


@dataclass(frozen=True)
class Replica:
    """One experiment to queue: its name, the parameters that differ from params.yaml, and its expected duration."""

    name: str
    values: Mapping[str, Any]
    seconds: float


def run(root: Path, rev: str | None, seeds: int | None, *, everything: bool, baseline: str, dry_run: bool) -> None:
    """Print which seeds are missing and how long they take, and add them to DVC's queue.

    Args:
        root: the repository.
        rev: the configuration to replicate; None: those of a comparison.
        seeds: of each configuration; None: 3 of a revision, else as many as settle what the comparison leaves open.
        everything: compare the experiments of every commit, not only HEAD's.
        baseline: of the comparison.
        dry_run: print without queueing.

    Raises:
        ResultsError: there are no results, or they come from other code or parameters than the workspace has.
        PipelineError: there is no such revision.
    """
    with Repository(root) as repository:
        if rev is None:
            targets = _of_comparison(repository, seeds, everything=everything, baseline=baseline)
        else:
            revision = repository.resolve(rev)
            rows, notes = comparison.collected(repository, [*repository.experiments(), revision])
            row = next((row for row in rows if row.has(revision)), None)
            if row is None:
                raise ResultsError("\n".join(notes))
            targets = [(row, seeds or SEEDS)]
        taken = {found.name for found in repository.experiments()} | repository.queued()
        found = [replica for row, count in targets for replica in replicas(repository, row, count, taken)]
    if not found:
        print("nothing to queue")
        return
    total = duration(sum(replica.seconds for replica in found))
    names = ", ".join(replica.name for replica in found)
    print(f"{len(found)} experiments, about {total} one after the other: {names}", flush=True)
    if dry_run:
        return
    for replica in found:
        queue(root, replica)
        print(f"queued {replica.name}", flush=True)
    print("dvc queue start -j 1 runs them; python -m pipeline compare reads the results")


def replicas(repository: Repository, row: Row, seeds: int, taken: set[str]) -> Iterator[Replica]:
    """Yield the experiments that a row lacks to have a number of seeds.

    Args:
        taken: names of experiments that exist or are queued; those that an earlier call has queued are left out.

    Raises:
        ResultsError: the row's results come from other code or parameters than the workspace has.
    """
    if len(row.members) >= seeds:
        return
    member = row.members[0]
    _check_code(repository, member)
    values = _values(repository, member)
    stem = NUMBER.sub("", member.revision.name) if member.revision.experiment else member.revision.sha[:7]
    known = {each.seed for each in row.members}
    for seed in itertools.islice((seed for seed in itertools.count() if seed not in known), seeds - len(known)):
        name = f"{stem}-s{seed}"
        if name not in taken:
            yield Replica(name, values | {SEED: seed}, row.seconds)


def queue(root: Path, replica: Replica) -> None:
    """Add an experiment to DVC's queue.

    Raises:
        ResultsError: DVC refuses it.
    """
    command = exp_run("--queue", replica.name, replica.values)
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)  # noqa: S603  # our own words
    if done.returncode:
        raise ResultsError(f"{replica.name}: not queued: {' '.join(done.stderr.split())}")


def _of_comparison(
    repository: Repository, seeds: int | None, *, everything: bool, baseline: str
) -> list[tuple[Row, int]]:
    """Return the rows of a comparison, without `seeds` those that more would settle, and how many each should have."""
    margin = loading.load(repository.root / "params.yaml").compare.margin
    found = comparison.compare(
        repository,
        repository.current(everything=everything),
        baseline=repository.resolve(baseline),
        sort="val/accuracy",
        margin=margin,
    )
    if found.baseline is None:
        raise ResultsError(f"{baseline}: no results to compare with; choose another revision with --baseline")
    if seeds:
        return [(row, seeds) for row in found.rows]
    wanted = [
        (contest.row, contest.seeds) for contest in found.contests if not contest.settled and contest.seeds is not None
    ]
    return [(found.baseline, max(count for _, count in wanted)), *wanted] if wanted else []


def _check_code(repository: Repository, member: Member) -> None:
    """Raise if files that decide the results differ between the workspace and the revision."""
    stages = dependencies.stages(repository.root)
    listed = {
        path for name in REQUIRED_STAGES for path in stages[name]["deps"] if path.startswith(("pipeline", "stages"))
    }
    paths = [dependencies.VALUE.sub(member.record.arch, path) for path in sorted(listed)]
    different = git.output(repository.root, "diff", "--name-only", "--relative", member.revision.sha, "--", *paths)
    if different is None or different.strip():
        files = ", ".join((different or b"").decode().split()) or "the commit is missing"
        raise _refusal(member.revision, f"its code differs from the workspace's: {files}")


def _values(repository: Repository, member: Member) -> dict[str, Any]:
    """Return the recorded parameters that differ from params.yaml; raise if it has others than those recorded."""
    tree = loading.read(repository.root / "params.yaml")
    recorded = dict(member.record.params)
    values = loading.differing(recorded, tree)
    params = loading.validate(loading.changed(tree, values), "params.yaml").effective(*GROUPS)
    other = sorted(params.keys() ^ {key for key in recorded if key.partition(".")[0] in GROUPS})
    if other:
        named = ", ".join(other[:SHOWN]) + (f" and {len(other) - SHOWN} more" if len(other) > SHOWN else "")
        raise _refusal(member.revision, f"expected params.yaml's parameters, found others: {named}")
    return values


def _refusal(revision: Revision, reason: str) -> ResultsError:
    """Return the error of a revision that the workspace cannot replicate."""
    commit = (revision.baseline or revision.sha)[:7]
    return ResultsError(f"{revision.name}: {reason}; git checkout {commit} to replicate it")
