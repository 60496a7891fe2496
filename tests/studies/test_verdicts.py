"""Verdicts: those of a rule, and those of the studies that judge test accuracy alone, on made-up results."""

import math

import pytest

from pipeline.experiments.repository import Revision
from pipeline.experiments.results import Results
from pipeline.experiments.statistics import mean_interval
from pipeline.studies import analyses
from pipeline.studies.analyses import depth_and_width
from pipeline.studies.analysis import Estimate, Verdict, decide, estimates, met
from pipeline.studies.collected import Collected
from pipeline.studies.existing import Found
from pipeline.studies.plan import Plan
from pipeline.studies.spec import Condition
from tests.made_up_studies import certain, written
from tests.paths import ROOT
from tests.study_plans import made


def collected(planned: Plan, accuracy: dict[str, list[float]]) -> Collected:
    """Return results with these test accuracies by variant, by seed or one for all; NaN: it diverged."""
    found, diverged = {}, {}
    for one in planned.experiments:
        values = accuracy[one.variant]
        value = values[planned.setting.seeds.index(one.seed) % len(values)]
        metrics = {"test/accuracy": value, "train/accuracy": value, "train/seconds": 6.0, "train/epochs": 3}
        if math.isnan(value):
            diverged[one.name] = "the loss is nan"
        else:
            record = Results({}, metrics | {"data/name": "made up", "data/test_images": 1000}, {}, {}, "", {})
            found[one.name] = Found(Revision(one.name, "a" * 40, one.name, "b" * 40), record)
    return Collected(None, planned, found, diverged)


def test_the_rule_gives_each_verdict():
    """All conditions; some; none that is essential; or a number is not known that would decide."""
    rule = [
        Condition(text="more", quantity="a", at_least=1.0),
        Condition(text="less", quantity="b", at_most=0.0),
        Condition(text="cheap", quantity="c", at_most=5.0, essential=False),
    ]
    for values, verdict in (
        ((1.0, 0.0, 5.0), Verdict.HOLDS),
        ((1.0, 0.0, 5.1), Verdict.IN_PART),
        ((0.9, 0.0, 5.0), Verdict.IN_PART),
        ((0.9, 0.1, 5.0), Verdict.NOT_HERE),
        ((1.0, math.nan, 5.0), Verdict.UNDECIDED),
        ((0.9, math.nan, 5.0), Verdict.UNDECIDED),
        ((1.0, math.nan, 5.1), Verdict.IN_PART),  # whatever the number is
    ):
        assert decide(rule, certain(dict(zip("abc", values, strict=True)))) is verdict, values


MADE_UP = [
    ("pooling", {"max": 0.7, "average": 0.69, "stride": 0.6, "none": 0.7}, "holds"),
    ("pooling", {"max": 0.7, "average": 0.6, "stride": 0.6, "none": 0.7}, "holds in part"),
    ("pooling", {"max": 0.7, "average": 0.6, "stride": 0.6, "none": math.nan}, "is undecided"),
    ("conv-or-dense", {"cnn": 0.7, "mlp-same-weights": 0.4, "mlp-same-macs": 0.5}, "holds"),
    ("conv-or-dense", {"cnn": 0.5, "mlp-same-weights": 0.4, "mlp-same-macs": 0.5}, "holds in part"),
]


@pytest.mark.e2e
@pytest.mark.parametrize(("name", "accuracy", "verdict"), MADE_UP)
def test_a_study_judges_made_up_results_as_its_rule_says(tmp_path, name, accuracy, verdict):
    """The page has verdict, numbers and figures, and the same bytes when it is written again."""
    planned = made(ROOT, name)
    results = collected(planned, {variant: [value] * 3 for variant, value in accuracy.items()})
    assert analyses.find(name).analyse(results).quantities.keys() == analyses.find(name).quantities.keys()
    page = written(tmp_path, results)
    assert page.verdict == verdict
    text = page.path.read_text()
    assert f"**This {verdict}**, as measured on made up in the setting `small`." in text
    assert ("3 diverged" in text) == any(map(math.isnan, accuracy.values()))


def test_gains_of_depth_and_width_are_means_over_the_other():
    """Accuracies that are a plane over depth and width, so that both gains are known."""
    planned = made(ROOT, "depth-and-width")
    points = {"d1": 0.0, "d2": 0.04, "d8": 0.0, "d14": -0.02, "w8": 0.0, "w16": 0.1, "w4": -0.06}
    accuracy = {name: [0.5 + sum(points[word] for word in name.split("-")[1:])] for name in planned.variants}
    findings = depth_and_width.ANALYSIS.analyse(collected(planned, accuracy))
    assert findings.quantities == pytest.approx(
        {"cnn_depth": 4, "cnn_width": 10, "resnet_depth": -2, "resnet_width": 6}
    )
    assert decide(planned.study.rule, certain(findings.quantities)) is Verdict.IN_PART
    marked = {row[0].split()[0] for row in findings.tables[0].rows if "◆" in row[0]}
    # The smallest CNN computes less than the smallest ResNet and is better, and so are all others.
    assert marked == {"cnn-w8-d1", "cnn-w8-d2", "cnn-w16-d1", "cnn-w16-d2"}
    accuracy["resnet-w8-d14"] = [math.nan]
    findings = depth_and_width.ANALYSIS.analyse(collected(planned, accuracy))
    assert math.isnan(findings.quantities["resnet_depth"])
    assert findings.quantities["cnn_depth"] == pytest.approx(4)
    assert decide(planned.study.rule, certain(findings.quantities)) is Verdict.UNDECIDED
    flat = {variant: [0.5] for variant in planned.variants}
    findings = depth_and_width.ANALYSIS.analyse(collected(planned, flat))
    assert decide(planned.study.rule, certain(findings.quantities)) is Verdict.NOT_HERE


def test_a_verdict_rests_on_the_interval_over_seeds(tmp_path):
    """Accuracies lost by pooling of 1, 1.2 and 1.4 points are below 2, those of 0.5, 1.2 and 1.9 may not be."""
    planned = made(ROOT, "pooling")
    close, apart = (0.010, 0.012, 0.014), (0.005, 0.012, 0.019)
    for losses, said, text in ((close, "yes", "1.2 (0.7 to 1.7, n = 3)"), (apart, "unknown", "n = 3")):
        lost = [0.7 - loss for loss in losses]
        results = collected(planned, {"max": lost, "average": lost, "stride": [0.6], "none": [0.7]})
        page = written(tmp_path / said, results)
        assert page.verdict == ("holds" if said == "yes" else "is undecided")
        row = next(line for line in page.path.read_text().splitlines() if line.startswith("| Pooling costs little"))
        assert row.endswith(f"| {said} |")
        assert text in row


def test_the_jackknife_is_students_interval_for_a_mean_and_knows_what_is_exact():
    """Of a mean it is exactly Student's; counted weights have no interval; one seed gives none."""
    planned = made(ROOT, "pooling")
    lost = [0.69, 0.68, 0.64]
    results = collected(planned, {"max": lost, "average": lost, "stride": [0.6], "none": [0.7]})
    analysis = analyses.find("pooling")
    found = estimates(analysis, results, analysis.analyse(results))
    expected = mean_interval([100 * (0.7 - value) for value in lost])
    assert (found["accuracy_loss"].low, found["accuracy_loss"].high) == pytest.approx(expected)
    assert found["macs_ratio"] == Estimate.exact(found["macs_ratio"].value)
    one = results.without(0).without(1)
    alone = estimates(analysis, one, analysis.analyse(one))["accuracy_loss"]
    assert alone.value == pytest.approx(6)
    assert met(Condition(text="x", quantity="x", at_most=10.0), alone) is None
