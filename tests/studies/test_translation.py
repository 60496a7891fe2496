"""The study of translation: its quantities and verdicts on shifts that were made up, and its page."""

import math

import numpy as np
import pytest

from pipeline import files
from pipeline.evaluation import shifts
from pipeline.studies.analyses import translation
from pipeline.studies.analysis import Verdict, decide
from tests.made_up_studies import MadeUp, certain, written
from tests.paths import ROOT
from tests.study_plans import made

pytestmark = pytest.mark.e2e

CLEAN = 0.6
# Accuracy and consistency of what is moved, of networks trained on unmoved images: the claim holds.
HOLDS = {
    "mlp": (0.35, 0.5),
    "cnn-max": (0.58, 0.9),
    "cnn-average": (0.57, 0.88),
    "cnn-stride": (0.5, 0.8),
    "cnn-none": (0.5, 0.8),
}


def results(folder, still, moved=0.95, *, scale="small", without=()) -> MadeUp:
    """Return results: those of networks trained on moved images keep a share `moved` of their predictions."""
    plan = made(ROOT, "translation", scale=scale)
    metrics = {}
    for one in plan.experiments:
        if one.variant in without:
            continue
        network, _, training = one.variant.rpartition("-")
        accuracy, consistency = still[network] if training == "still" else (CLEAN, moved)
        rows = [
            {"fill": fill, "dx": dx, "dy": dy}
            | (
                {"accuracy": accuracy, "consistency": consistency}
                if dx or dy
                else {"accuracy": CLEAN, "consistency": 1}
            )
            for fill in shifts.FILLS
            for dy in shifts.offsets(8, 4)
            for dx in shifts.offsets(8, 4)
        ]
        files.write_csv(folder / one.name / "results/robustness/shifts.csv", rows)
        metrics[one.name] = {"test/accuracy": 0.61, "test/clean_accuracy": CLEAN} | shifts.summary(rows)
    return MadeUp(plan, folder, metrics)


def judged(collected: MadeUp) -> tuple[dict[str, float], Verdict]:
    quantities = translation.ANALYSIS.analyse(collected).quantities
    assert quantities.keys() == translation.QUANTITIES.keys()
    return quantities, decide(collected.plan.study.rule, certain(quantities))


def test_losses_are_shares_of_what_is_above_chance(tmp_path):
    """The CNN drops from 60 to 58 %, of 50 points above chance; consistency is compared in points."""
    quantities, verdict = judged(results(tmp_path, HOLDS))
    assert quantities == pytest.approx(
        {"cnn_loss": 4, "cnn_over_mlp": 46, "pooling_gain": 8, "augmentation_over_pooling": 5}
    )
    assert verdict is Verdict.HOLDS


@pytest.mark.parametrize(
    ("still", "moved", "verdict"),
    [
        (HOLDS, 0.85, Verdict.IN_PART),  # augmentation adds less than pooling: not essential, but a condition
        (HOLDS | {"cnn-average": (0.57, 0.81)}, 0.95, Verdict.IN_PART),
        (dict.fromkeys(HOLDS, (0.3, 0.6)), 0.7, Verdict.NOT_HERE),
    ],
)
def test_each_verdict_is_given_where_it_is_due(tmp_path, still, moved, verdict):
    """Nothing that is judged is as claimed where all networks lose alike."""
    assert judged(results(tmp_path, still, moved))[1] is verdict


def test_a_training_that_diverged_leaves_the_claim_undecided_and_the_page_readable(tmp_path):
    """Its row says so, its heat map is empty, and what needs it is unknown."""
    collected = results(tmp_path / "results", HOLDS, without=("cnn-none-still",))
    quantities, verdict = judged(collected)
    assert verdict is Verdict.UNDECIDED
    assert {name for name, value in quantities.items() if math.isnan(value)} == {
        "pooling_gain",
        "augmentation_over_pooling",
    }
    text = written(tmp_path, collected).path.read_text()
    assert "| cnn-none-still | — | — | — | — | — | 0 (3 diverged) |" in text


def test_a_network_no_better_than_chance_has_nothing_to_lose(tmp_path):
    """The claim can't be decided, and nothing is divided by 0."""
    collected = results(tmp_path, HOLDS)
    collected.rows.loc[collected.rows["variant"] == "cnn-max-still", "test/clean_accuracy"] = translation.CHANCE
    quantities, verdict = judged(collected)
    assert math.isnan(quantities["cnn_loss"])
    assert verdict is Verdict.UNDECIDED


def test_the_page_of_several_seeds_has_spreads_and_figures(tmp_path):
    """Accuracy falls with distance from where the image was."""
    collected = results(tmp_path / "results", HOLDS, scale="full")
    page = written(tmp_path, collected)
    assert page.verdict is Verdict.HOLDS
    assert "| mlp-still | 61.00 ± 0.00 | 60.00 ± 0.00 | 35.00 ± 0.00 | 50.00 ± 0.00 | 50.00 ± 0.00 | 3 |" in (
        page.path.read_text()
    )
    plots = translation.plots(translation.read(collected))
    assert [plot.title for plot in plots] == [*translation.TRAININGS.values()] * 2
    assert plots[0].curves["cnn-max"].x == [0, 4, 8]
    assert np.allclose(plots[0].curves["cnn-max"].values, [[60] * 3, [58] * 3, [58] * 3])
    assert np.allclose(plots[2].curves["cnn-max"].values, [[100] * 3, [90] * 3, [90] * 3])
