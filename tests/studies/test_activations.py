"""The study of activations: times to a target, bounds on them, and what its analysis makes of made-up trainings."""

import math
from collections.abc import Callable, Mapping, Sequence

import pandas as pd
import pytest

from pipeline.errors import ResultsError
from pipeline.experiments.repository import Revision
from pipeline.experiments.results import Results
from pipeline.studies import convergence
from pipeline.studies.analyses import activations
from pipeline.studies.analysis import Estimate, LessThan, MoreThan, Verdict, decide, met
from pipeline.studies.collected import Collected
from pipeline.studies.convergence import Reach
from pipeline.studies.existing import Found
from pipeline.studies.plan import Plan, Planned
from pipeline.studies.spec import Condition
from pipeline.training.probe import COLUMNS
from tests.made_up_studies import certain, written
from tests.paths import ROOT
from tests.study_plans import made

pytestmark = pytest.mark.e2e

Training = tuple[Sequence[float], float] | None
"""Training accuracies by epoch, and validation accuracy at the end; None: it diverged."""

SATURATED = {"relu": None, "tanh": 0.3, "sigmoid": 0.2}
MEAN = {"relu": 0.4, "tanh": -0.05, "sigmoid": 0.5}
GRADIENT = {"relu": 2.0, "tanh": 1.0, "sigmoid": 0.01}


class MadeUp(Collected):
    """Results whose files are made up, too."""

    def __init__(self, planned: Plan, training: Callable[[Planned], Training], **layers: Mapping[str, float]) -> None:
        self.layers = {"saturated": SATURATED, "mean": MEAN, "gradient": GRADIENT} | layers
        self.trainings = {one.name: training(one) for one in planned.experiments}
        found, diverged = {}, {}
        for one in planned.experiments:
            if (made_up := self.trainings[one.name]) is None:
                diverged[one.name] = "the loss is nan"
                continue
            accuracies, val = made_up
            metrics = {"train/accuracy": accuracies[-1], "val/accuracy": val, "test/accuracy": val}
            record = Results({}, metrics | {"train/seconds": 2.0 * len(accuracies)}, {}, {}, "", {})
            found[one.name] = Found(Revision(one.name, "a" * 40, one.name, "b" * 40), record)
        super().__init__(None, planned, found, diverged)

    def history(self, name: str) -> pd.DataFrame:
        if name not in self.found:
            raise ResultsError(name)
        return history(self.trainings[name][0])

    def read(self, name: str, path: str) -> bytes:
        assert path == "model/layers.csv"
        if name not in self.found:
            raise ResultsError(name)
        activation = next(word for word in SATURATED if f"-{word}-" in name)
        rows = []
        for epoch in range(len(self.trainings[name][0]) + 1):
            for layer, factor in (("first", 1), ("second", 3)):
                gradient = self.layers["gradient"][activation] * factor
                rows.append({"epoch": epoch, "layer": layer, "kind": "Conv2d", "gradient_norm": gradient})
                share = {"dead": 0.1} if activation == "relu" else {"saturated": self.layers["saturated"][activation]}
                mean = self.layers["mean"][activation] * min(epoch, 1)
                rows.append({"epoch": epoch, "layer": f"{layer}.act", "kind": "Act", "mean": mean, **share})
        return pd.DataFrame(rows, columns=COLUMNS).to_csv(index=False).encode()


def history(accuracies: Sequence[float]) -> pd.DataFrame:
    return pd.DataFrame({"epoch": range(1, len(accuracies) + 1), "train/accuracy": accuracies})


def fast(*, relu: float, tanh: float, sigmoid: float, epochs: int = 12) -> Callable[[Planned], Training]:
    """Return trainings whose accuracy rises to 75 % in so many epochs, and on; the middle rate is the best."""

    def training(one: Planned) -> Training:
        activation = one.settings.model.cnn.activation
        takes = {"relu": relu, "tanh": tanh, "sigmoid": sigmoid}[activation]
        if one.settings.optimizer.lr == 0.1:
            return None
        best = one.settings.optimizer.lr == 0.03
        rise = 0.65 / takes * (1 if best else 0.5)
        accuracies = [min(0.99, 0.1 + rise * (epoch - 0.5)) for epoch in range(1, epochs + 1)]
        return accuracies, 0.6 if best else 0.5

    return training


def quantities(planned: Plan, training: Callable[[Planned], Training], **layers) -> dict[str, float]:
    found = activations.ANALYSIS.analyse(MadeUp(planned, training, **layers)).quantities
    assert found.keys() == activations.QUANTITIES.keys()
    return found


def test_the_target_is_reached_between_two_epochs():
    """An epoch's accuracy stands for its middle, and before the first the network guesses."""
    rising = history([0.2, 0.3, 0.5])
    assert convergence.reach(rising, 0.4, seconds=6.0) == Reach(2.0, 4.0, reached=True)
    assert convergence.reach(rising, 0.15, seconds=6.0) == Reach(pytest.approx(0.25), pytest.approx(0.5), reached=True)
    assert convergence.reach(rising, 0.5, seconds=6.0) == Reach(2.5, 5.0, reached=True)
    assert convergence.reach(rising, 0.51, seconds=6.0) == Reach(2.5, 5.0, reached=False)
    falling = history([0.6, 0.3, 0.5])
    assert convergence.reach(falling, 0.6, seconds=6.0).epochs == 0.5


def test_one_seed_that_never_arrives_makes_a_mean_a_bound():
    """It is written as such; without any training there is no mean."""
    arrived, late = Reach(2.0, 4.0, reached=True), Reach(10.0, 20.0, reached=False)
    assert type(convergence.mean_epochs([arrived, arrived])) is float
    mean = convergence.mean_epochs([arrived, late])
    assert isinstance(mean, MoreThan)
    assert f"{mean:.1f}" == "more than 6.0"
    assert convergence.written([arrived, late], "seconds") == "more than 12.0 (1 of 2 reached it)"
    assert convergence.written([arrived, Reach(4.0, 8.0, reached=True)], "epochs") == "3.0 ± 1.4"
    assert convergence.written([late, late], "epochs") == "more than 10.0"
    assert math.isnan(convergence.mean_epochs([]))


def test_a_quotient_of_bounds_says_no_more_than_is_known():
    """A bound above gives a bound; two leave everything open."""
    assert convergence.ratio(6.0, 2.0) == 3
    assert f"{convergence.ratio(MoreThan(6.0), 2.0):.1f}" == "more than 3.0"
    assert f"{convergence.ratio(6.0, MoreThan(2.0)):.1f}" == "less than 3.0"
    for slow, quick in ((MoreThan(6.0), MoreThan(2.0)), (math.nan, 2.0), (MoreThan(6.0), math.nan)):
        assert math.isnan(convergence.ratio(slow, quick))


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        (4.0, True, True),
        (MoreThan(5.0), True, False),
        (MoreThan(3.0), None, None),
        (LessThan(3.0), False, True),
        (LessThan(5.0), None, None),
        (math.nan, None, None),
    ],
)
def test_a_bound_meets_a_condition_only_if_all_beyond_it_does(value, least, most):
    """More than 3 may be 4 or not."""
    for limit, expected in (({"at_least": 4.0}, least), ({"at_most": 4.0}, most)):
        condition = Condition(text="x", quantity="x", **limit)
        assert met(condition, Estimate.exact(value)) is expected
        assert (decide([condition], {"x": Estimate.exact(value)}) is Verdict.UNDECIDED) == (expected is None)


def test_quantities_are_of_the_best_rate_without_batch_norm():
    """Six times as many epochs, as the trainings were made; the layers as theirs."""
    planned = made(ROOT, "activations")
    found = quantities(planned, fast(relu=1.5, tanh=9.0, sigmoid=3.0))
    assert found == pytest.approx(
        {
            "tanh_epochs": 6,
            "sigmoid_epochs": 2,
            "sigmoid_gradient": 200,
            "sigmoid_saturated": 20,
            "tanh_saturated": 30,
            "tanh_mean": 0.05,
        }
    )
    assert decide(planned.study.rule, certain(found)) is Verdict.IN_PART


def test_a_network_that_never_reaches_the_target_gives_a_bound():
    """12 epochs end at 11.5: with ReLU's 1.5 that is more than 7.7 times, enough; with 4 it leaves that open."""
    planned = made(ROOT, "activations")
    found = quantities(planned, fast(relu=1.5, tanh=9.0, sigmoid=1000.0))
    assert isinstance(found["sigmoid_epochs"], MoreThan)
    assert found["sigmoid_epochs"] == pytest.approx(11.5 / 1.5)
    assert decide(planned.study.rule, certain(found)) is Verdict.HOLDS
    found = quantities(planned, fast(relu=4.0, tanh=9.0, sigmoid=1000.0))
    assert found["sigmoid_epochs"] == pytest.approx(11.5 / 4)
    (faster,) = [condition for condition in planned.study.rule if condition.quantity == "sigmoid_epochs"]
    assert met(faster, certain(found)["sigmoid_epochs"]) is None
    assert decide(planned.study.rule, certain(found)) is Verdict.IN_PART  # tanh is not slow enough
    found = quantities(planned, fast(relu=1000.0, tanh=9.0, sigmoid=9.0))
    assert isinstance(found["tanh_epochs"], LessThan)
    assert found["tanh_epochs"] == pytest.approx(9 / 11.5)


def test_a_world_without_differences_is_not_as_the_claim_says():
    """No condition is met."""
    planned = made(ROOT, "activations")
    same = dict.fromkeys(SATURATED, 0.02)
    found = quantities(
        planned,
        fast(relu=3.0, tanh=3.0, sigmoid=3.0),
        saturated=same,
        mean=dict.fromkeys(MEAN, 0.4),
        gradient=dict.fromkeys(GRADIENT, 1.0),
    )
    assert decide(planned.study.rule, certain(found)) is Verdict.NOT_HERE


def test_a_gradient_of_nothing_is_infinitely_smaller():
    """As when all of it is too small for a float."""
    found = quantities(
        made(ROOT, "activations"), fast(relu=2, tanh=3, sigmoid=4), gradient={**GRADIENT, "sigmoid": 0.0}
    )
    assert math.isinf(found["sigmoid_gradient"])


def test_an_activation_that_always_diverges_leaves_the_claim_open(tmp_path):
    """The page and its figures are there nevertheless, and say so."""
    planned = made(ROOT, "activations")
    usual = fast(relu=1.5, tanh=9.0, sigmoid=9.0)
    results = MadeUp(planned, lambda one: None if one.settings.model.cnn.activation == "tanh" else usual(one))
    findings = activations.ANALYSIS.analyse(results)
    assert {key for key, value in findings.quantities.items() if math.isnan(value)} == {
        "tanh_epochs",
        "tanh_saturated",
        "tanh_mean",
    }
    page = written(tmp_path, results)
    assert page.verdict is Verdict.UNDECIDED
    assert "tanh unknown, sigmoid 6.0" in page.path.read_text()


def test_the_page_has_every_rate_and_the_same_bytes_again(tmp_path):
    """With several seeds, of which some never reach the target."""
    planned = made(ROOT, "activations", scale="full")
    usual = fast(relu=1.5, tanh=9.0, sigmoid=10.0, epochs=30)

    def training(one: Planned) -> Training:
        stuck = one.seed == 2 and one.settings.model.cnn.activation == "sigmoid"
        return ([0.1] * 30, 0.55) if stuck else usual(one)

    page = written(tmp_path, MadeUp(planned, training)).path
    left = {path.name for path in page.parent.iterdir()}
    assert left == {"activations.md", "activations.png", "activations-layers.png"}
    text = page.read_text()
    assert "75% training accuracy" in text
    (row,) = [line for line in text.splitlines() if line.startswith("| sigmoid | without batch norm | 0.03 |")]
    assert f"| more than {(2 * 10 + 29.5) / 3:.1f} (2 of 3 reached it) |" in row
    assert "| diverged |" in text
