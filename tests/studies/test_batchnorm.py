"""The study of batch norm: what its analysis makes of made-up results, diverged trainings among them."""

import math
from collections.abc import Callable

import pytest

from pipeline.experiments.repository import Revision
from pipeline.experiments.results import Results
from pipeline.studies.analyses import batchnorm
from pipeline.studies.analysis import CHANCE, Verdict, decide
from pipeline.studies.collected import Collected
from pipeline.studies.existing import Found
from pipeline.studies.plan import Plan
from tests.made_up_studies import certain, written
from tests.paths import ROOT
from tests.study_plans import made

pytestmark = pytest.mark.e2e

LOST = math.nan


def collected(planned: Plan, accuracy: Callable[..., float]) -> Collected:
    """Return results with an accuracy, of val and test alike, for each norm, scale, learning rate and seed."""
    found, diverged = {}, {}
    for one in planned.experiments:
        cnn = one.settings.model.cnn
        value = accuracy(cnn.norm, cnn.init_scale, one.settings.optimizer.lr, one.seed)
        if math.isnan(value):
            diverged[one.name] = "the loss is nan"
        else:
            record = Results({}, {"test/accuracy": value, "val/accuracy": value}, {}, {}, "", {})
            found[one.name] = Found(Revision(one.name, "a" * 40, one.name, "b" * 40), record)
    return Collected(None, planned, found, diverged)


def textbook(norm: str, scale: float, lr: float, *_) -> float:
    """As the claim says: with batch norm nothing matters; without it bad starts fail, and high rates diverge."""
    if norm == "batch":
        return 0.70 if scale == 1 else 0.68
    if scale != 1:
        return LOST if scale > 1 else CHANCE
    return LOST if lr >= 0.3 else 0.66


def no_difference(norm: str, scale: float, *_) -> float:
    """Batch norm does nothing: bad starts fail with it, too, and no learning rate is lost without it."""
    return 0.6 if scale == 1 else 0.2 if norm == "batch" else 0.55


def gain_and_loss(norm: str, scale: float, lr: float, *_) -> float:
    """It saves from bad starts and costs ten points from a proper one."""
    return textbook(norm, scale, lr) - (0.15 if norm == "batch" else 0)


@pytest.mark.parametrize("scale", ["small", "full"])
@pytest.mark.parametrize(
    ("results", "verdict"),
    [(textbook, Verdict.HOLDS), (no_difference, Verdict.NOT_HERE), (gain_and_loss, Verdict.IN_PART)],
)
def test_the_study_judges_as_its_rule_says(results, verdict, scale):
    """In both settings, of which one has a single seed."""
    planned = made(ROOT, "batchnorm", scale=scale)
    findings = batchnorm.ANALYSIS.analyse(collected(planned, results))
    assert findings.quantities.keys() == batchnorm.QUANTITIES.keys()
    assert decide(planned.study.rule, certain(findings.quantities)) is verdict


def test_losses_are_of_the_ends_of_the_grid_and_diverged_trainings_are_at_chance():
    """0.70 to 0.68 with batch norm; without it 0.66 to 0.10, whether a training stood still or diverged."""
    findings = batchnorm.ANALYSIS.analyse(collected(made(ROOT, "batchnorm"), textbook))
    assert findings.quantities == pytest.approx(
        {"norm_loss": 2, "plain_loss": 56, "rates_ratio": 3 / 2, "norm_gain": 4}
    )
    starts = {row[:2]: row for row in findings.tables[0].rows}
    network = "without batch norm"
    assert starts[network, "100"] == (network, "100", "—", "10.00 ± 0.00", "10.00 ± 0.00", "9 of 9")
    assert starts[network, "1"] == (network, "1", "0.01", "66.00 ± 0.00", "66.00 ± 0.00", "3 of 9")
    assert findings.tables[1].rows[1] == (network, "0.01, 0.1", "67", "66.00")


def test_each_start_is_judged_at_its_own_best_rate():
    """A rate that suits one start need not suit another."""
    suits = {0.01: 1.0, 1.0: 0.1, 100.0: 0.01}

    def accuracy(_norm: str, scale: float, lr: float, _seed: int) -> float:
        return 0.7 if suits[scale] == lr else 0.3

    findings = batchnorm.ANALYSIS.analyse(collected(made(ROOT, "batchnorm"), accuracy))
    assert findings.quantities == pytest.approx({"norm_loss": 0, "plain_loss": 0, "rates_ratio": 1, "norm_gain": 0})


def test_where_no_rate_works_without_batch_norm_their_ratio_is_not_known():
    """A network that never learns has no rate that is as good as its best: all are as bad."""
    planned = made(ROOT, "batchnorm")
    findings = batchnorm.ANALYSIS.analyse(
        collected(planned, lambda norm, *_: 0.7 if norm == "batch" else CHANCE + 0.001)
    )
    assert math.isnan(findings.quantities["rates_ratio"])
    assert math.isnan(findings.quantities["plain_loss"])
    assert decide(planned.study.rule, certain(findings.quantities)) is Verdict.UNDECIDED
    assert findings.tables[1].rows[1][1:3] == ("—", "0")


def test_some_seeds_may_diverge(tmp_path):
    """Their share of the mean is chance; the page names them, and is the same bytes again."""
    planned = made(ROOT, "batchnorm", scale="full")

    def accuracy(norm: str, scale: float, lr: float, seed: int) -> float:
        return LOST if (norm, lr, seed) == ("none", 0.1, 1) else textbook(norm, scale, lr)

    results = collected(planned, accuracy)
    cells = [batchnorm._cell(results, variant) for variant in planned.variants]
    (half,) = [cell for cell in cells if (cell.norm, cell.scale, cell.lr) == ("none", 1.0, 0.1)]
    assert half.test == (0.66, CHANCE, 0.66)
    assert half.text == "47.3\n1 of 3\ndiverged"
    left = {path.name for path in written(tmp_path, results).path.parent.iterdir()}
    assert left == {"batchnorm.md", "batchnorm.png", "batchnorm-curves.png"}


def test_a_study_in_which_everything_diverged_has_a_page(tmp_path):
    """All is chance then, and no rate works."""
    planned = made(ROOT, "batchnorm")
    page = written(tmp_path, collected(planned, lambda *_: LOST))
    assert page.verdict is Verdict.UNDECIDED
    assert page.path.read_text().count("diverged: the loss is nan") == len(planned.experiments)
