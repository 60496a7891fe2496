"""The study of augmentation: its quantities and verdicts on accuracies that were made up, and its page."""

import math
import shutil

import pytest

from pipeline import files
from pipeline.studies.analyses import augmentation
from pipeline.studies.analyses.augmentation import ALL, KINDS, NONE
from pipeline.studies.analysis import Verdict, decide
from tests.made_up_studies import MadeUp, certain, leave, written
from tests.paths import ROOT
from tests.study_plans import made

pytestmark = pytest.mark.e2e

TINY = ("model.cnn.widths=[4]", "model.cnn.hidden=[]", "model.cnn.convs_per_block=1")


@pytest.fixture(scope="module")
def left(tmp_path_factory, processed):
    """What experiments leave, the same network for all; a function from accuracies to results in either setting."""
    folder = tmp_path_factory.mktemp("left")
    made_before: dict[str, str] = {}

    def results(accuracy, *, scale="small", without=()) -> MadeUp:
        plan = made(ROOT, "augmentation", scale=scale, overrides=TINY)
        metrics = {}
        for one in plan.experiments:
            if one.variant in without:
                continue
            metrics[one.name] = {"test/accuracy": accuracy[one.variant], "val/loss": 1.5, "data/train_images": 500}
            if one.name not in made_before and made_before:
                shutil.copytree(folder / next(iter(made_before)), folder / one.name)
            elif one.name not in made_before:
                leave(folder, one, processed)
                rows = [{"epoch": epoch, "val/loss": 2 / epoch, "val/accuracy": 0.2 * epoch} for epoch in (1, 2, 3)]
                files.write_csv(folder / one.name / "model/history.csv", rows)
            made_before[one.name] = one.variant
        return MadeUp(plan, folder, metrics)

    return results


def accuracies(few: dict[str, float], many: dict[str, float]) -> dict[str, float]:
    """Return test accuracies by variant of the small setting."""
    return {f"{kind}-p2": few[kind] for kind in KINDS} | {f"{kind}-p10": many[kind] for kind in KINDS}


FEW = {NONE: 0.3, "flip": 0.33, "translate": 0.34, "cutout": 0.31, ALL: 0.38}
MANY = {NONE: 0.5, "flip": 0.52, "translate": 0.54, "cutout": 0.51, ALL: 0.56}
NO_USE = {NONE: 0.5, "flip": 0.5, "translate": 0.45, "cutout": 0.49, ALL: 0.5}


def judged(collected: MadeUp) -> tuple[dict[str, float], Verdict]:
    quantities = augmentation.ANALYSIS.analyse(collected).quantities
    assert quantities.keys() == augmentation.QUANTITIES.keys()
    return quantities, decide(collected.plan.study.rule, certain(quantities))


def test_gains_and_gaps_are_differences_in_points(left):
    """All networks know the training images alike here, so the gap closes by what test accuracy gains."""
    quantities, verdict = judged(left(accuracies(FEW, MANY)))
    assert quantities == pytest.approx({"gain": 6, "gap_closed": 6, "more_for_few": 2, "least_alone": 1})
    assert verdict is Verdict.HOLDS


@pytest.mark.parametrize(
    ("few", "many", "verdict"),
    [
        (FEW | {"cutout": 0.2}, MANY, Verdict.IN_PART),  # alone it harms: not essential, but a condition
        (FEW, MANY | {ALL: 0.6}, Verdict.IN_PART),  # most of all with many images
        (NO_USE, NO_USE, Verdict.NOT_HERE),
    ],
)
def test_each_verdict_is_given_where_it_is_due(left, few, many, verdict):
    """Augmentation that changes nothing is no help."""
    assert judged(left(accuracies(few, many)))[1] is verdict


def test_the_gap_is_of_training_images_as_they_are(left, data, cpu):
    """The accuracy of the very network on the first training images of each class, less that on test images."""
    from pipeline.data import dataset
    from pipeline.evaluation import inference
    from pipeline.studies import trained

    collected = left(accuracies(FEW, MANY))
    train = dataset.first_of_each_class(data["train"], 5000)
    name = collected.plan.experiments[0].name
    probs = inference.predict(trained.network(collected, name).model, train, batch_size=100, place=cpu)
    expected = 100 * inference.accuracy(probs, train.labels)
    rows = augmentation.ANALYSIS.analyse(collected).tables[0].rows
    gap = expected - 30
    cells = ("none", "2", "500", "30.00 ± 0.00", f"{expected:.2f} ± 0.00", f"{gap:.2f} ± 0.00", "1.500 ± 0.000", "3")
    assert rows[0] == cells


def test_a_training_that_diverged_leaves_the_claim_undecided_and_the_page_readable(left, tmp_path):
    """What needs it is unknown, the rest is told."""
    collected = left(accuracies(FEW, MANY), without=("all-p10",))
    quantities, verdict = judged(collected)
    assert verdict is Verdict.UNDECIDED
    assert quantities["least_alone"] == pytest.approx(1)
    assert all(math.isnan(quantities[name]) for name in ("gain", "gap_closed", "more_for_few"))
    text = written(tmp_path, collected).path.read_text()
    assert "| all | 10 | — | — | — | — | — | 0 (3 diverged) |" in text
    assert "by an unknown number of points with 10 %" in text
    assert "validation loss ends at 0.67 nats without augmentation and at 0.67 nats with all" in text
    collected = left(accuracies(FEW, MANY), without=("all-p2",))
    assert (
        "at 0.67 nats without augmentation and at an unknown loss with all"
        in written(tmp_path / "other", collected).path.read_text()
    )


def test_the_page_of_several_seeds_has_spreads_and_figures(left, tmp_path):
    """Three sizes of the training set, three seeds."""
    sizes = {f"{kind}-{size}": value for size in ("p1", "p10", "p100") for kind, value in MANY.items()}
    page = written(tmp_path, left(sizes, scale="full"))
    assert page.verdict is Verdict.IN_PART  # as much for many images as for few
    text = page.path.read_text()
    assert "| none | 100 | 500 | 50.00 ± 0.00 |" in text
    assert "change test accuracy by +6.0 points with 1 % of the images and by +6.0 points with 100 %" in text
