"""The study of filters: edge filters set by hand are found, and verdicts are those of what was seen."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from pipeline.inspection.convolution import EDGE_FILTERS
from pipeline.inspection.separability import Separability
from pipeline.models.common.saved import load_model, save_model
from pipeline.studies.analyses import filters
from pipeline.studies.analysis import Verdict, decide
from pipeline.studies.collected import Collected
from pipeline.studies.insight import look
from tests.made_up_studies import MadeUp, certain, leave, written
from tests.paths import ROOT
from tests.study_plans import made

pytestmark = pytest.mark.e2e

TINY = ("model.cnn.widths=[8, 8]", "model.cnn.hidden=[]", "model.resnet.width=8")
EDGES = torch.stack([torch.from_numpy(kernel).float() for kernel in EDGE_FILTERS.values()])


@pytest.fixture(scope="module")
def untrained(tmp_path_factory, processed) -> MadeUp:
    """Networks with their initial weights."""
    folder = tmp_path_factory.mktemp("untrained")
    plan = made(ROOT, "filters", overrides=TINY)
    for one in plan.experiments:
        torch.manual_seed(one.seed)
        leave(folder, one, processed)
    return MadeUp(plan, folder, {one.name: {"test/accuracy": 0.1} for one in plan.experiments})


def test_networks_that_were_not_trained_have_learned_nothing(untrained):
    """What a stage tells of the classes is then to the digit what it told before training."""
    findings = filters.ANALYSIS.analyse(untrained)
    assert findings.quantities.keys() == filters.QUANTITIES.keys()
    assert findings.quantities["learned"] == 0
    assert findings.quantities["oriented"] < 80
    _, separable = findings.tables
    assert [row[:3] for row in separable.rows[:3]] == [
        ("cnn3", "blocks.0", "8"), ("cnn3", "blocks.1", "8"), ("cnn5", "blocks.0", "8"),
    ]  # fmt: skip
    assert all(row[3] == row[4] for row in separable.rows)


def test_edge_filters_set_by_hand_are_found_in_every_network(untrained, tmp_path, processed):
    """Each first layer is made of edge filters, enlarged where its filters are of 5 px."""
    for one in untrained.plan.experiments:
        leave(tmp_path, one, processed)
        saved = load_model(tmp_path / one.name / "model")
        layer = next(module for module in saved.model.modules() if isinstance(module, nn.Conv2d))
        side = layer.kernel_size[0]
        enlarged = nn.functional.interpolate(EDGES[:, None], (side, side), mode="bilinear")
        with torch.no_grad():
            layer.weight.copy_(enlarged.repeat(8, 3, 1, 1)[:8])
        save_model(tmp_path / one.name / "model", saved.model, one.settings.model, saved.metadata)
    collected = MadeUp(untrained.plan, tmp_path, {one.name: {} for one in untrained.plan.experiments})
    quantities = filters.ANALYSIS.analyse(collected).quantities
    assert quantities["oriented"] == quantities["edge_like"] == 100


def stages(*accuracies: float) -> list[Separability]:
    return [Separability(f"stage {number}", 8, accuracy) for number, accuracy in enumerate(accuracies)]


@pytest.mark.parametrize(
    ("p", "after", "before", "quantities", "verdict"),
    [
        (0.002, (0.3, 0.4, 0.6), (0.3, 0.3, 0.32), (100, 30, 28, 10), Verdict.HOLDS),
        (0.002, (0.3, 0.6, 0.5), (0.3, 0.3, 0.32), (100, 20, 18, -10), Verdict.IN_PART),  # a stage is worse
        (0.05, (0.3, 0.4, 0.6), (0.3, 0.3, 0.32), (0, 30, 28, 10), Verdict.IN_PART),
        (0.05, (0.3, 0.31, 0.35), (0.3, 0.3, 0.32), (0, 5, 3, 1), Verdict.NOT_HERE),
    ],
)
def test_each_verdict_is_given_where_it_is_due(untrained, p, after, before, quantities, verdict):
    """What was seen in the networks is made up."""
    made_up = {
        variant: [
            replace(
                one,
                first=one.first | {f"first_layer/{name}_p": p for name in filters.MEASURES},
                stages=stages(*after),
                before=stages(*before),
            )
            for one in several
        ]
        for variant, several in look(untrained).items()
    }
    findings = filters.conclude(untrained, made_up)
    share, rise, learned, least_step = quantities
    assert findings.quantities == pytest.approx(
        {"oriented": share, "edge_like": share, "rise": rise, "learned": learned, "least_step": least_step}
    )
    assert decide(untrained.plan.study.rule, certain(findings.quantities)) is verdict


def test_the_page_shows_filters_and_stages(untrained, tmp_path):
    """A figure of filters for each kind of network."""
    page = written(tmp_path, untrained)
    pictures = {path.name for path in page.path.parent.glob("*.png")}
    assert pictures == {"filters.png", "filters-cnn3.png", "filters-cnn5.png", "filters-resnet.png"}


def diverged(collected: MadeUp, variants: set[str]) -> MadeUp:
    left = {one.name: {} for one in collected.plan.experiments if one.variant not in variants}
    return MadeUp(collected.plan, collected.folder, left)


def test_trainings_that_diverged_leave_the_claim_undecided_and_the_page_readable(untrained, tmp_path):
    """Of one kind of network, or of all."""
    page = written(tmp_path / "some", diverged(untrained, {"cnn3"}))
    assert page.verdict is Verdict.UNDECIDED
    text = page.path.read_text()
    assert "| cnn3 | — | — | — | — | — | — | — | 0 (3 diverged) |" in text
    assert "First-layer filters of cnn5" in text
    assert "First-layer filters of cnn3" not in text
    nothing: Collected = diverged(untrained, {"cnn3", "cnn5", "resnet"})
    assert all(map(math.isnan, filters.ANALYSIS.analyse(nothing).quantities.values()))
    assert written(tmp_path / "none", nothing).verdict is Verdict.UNDECIDED
