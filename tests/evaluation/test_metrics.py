"""Metrics against numbers computed by hand, by plain loops and by scikit-learn."""

import math

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics

from pipeline.evaluation import inference, metrics

CLASSES = ("ant", "bee", "cat")
# Five images: predicted ant, ant, bee, cat, bee.
PROBS = np.array(
    [[0.7, 0.2, 0.1], [0.58, 0.32, 0.1], [0.1, 0.79, 0.11], [0.2, 0.3, 0.5], [0.1, 0.5, 0.4]],
    np.float32,
)
LABELS = np.array([0, 1, 1, 2, 2], np.uint8)


def predictions(count: int = 2000, *, skill: float = 2.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random probabilities (N, 10) float32, right more often than not, and labels of very unequal classes."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(10, count, p=np.arange(1, 11) / 55).astype(np.uint8)
    logits = rng.normal(size=(count, 10)) * 1.5
    logits[np.arange(count), labels] += skill
    probs = np.exp(logits)
    return (probs / probs.sum(1, keepdims=True)).astype(np.float32), labels


def names(count: int) -> tuple[str, ...]:
    return tuple("abcdefghij"[:count])


def test_metrics_are_those_computed_by_hand():
    """Three of five are right; the confusions are a bee taken for an ant and a cat taken for a bee."""
    found = metrics.metrics(PROBS, LABELS)
    losses = [-math.log(p) for p in (0.7, 0.32, 0.79, 0.5, 0.4)]
    expected = {
        "test/images": 5,
        "test/accuracy": 3 / 5,
        "test/accuracy_top2": 5 / 5,
        "test/loss": sum(losses) / 5,
        "test/f1_macro": (2 / 3 + 1 / 2 + 2 / 3) / 3,
        # Of 15 bins, that of 7/15..8/15 has two confidences of 0.5, one of them right; the others have one each.
        "test/calibration_error": (2 * abs(1 / 2 - 0.5) + 0.58 + (1 - 0.7) + (1 - 0.79)) / 5,
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name
    assert set(found) == set(expected) | {"test/accuracy_low", "test/accuracy_high"}
    assert all(isinstance(value, int | float) for value in found.values())  # as JSON and MLflow want them


def test_each_class_has_a_row_with_precision_recall_and_f1():
    """By hand, from the same two confusions; plain numbers, as they are written to classes.csv."""
    rows = metrics.by_class(PROBS, LABELS, CLASSES)
    assert [list(row) for row in rows] == [["class", "images", "precision", "recall", "f1"]] * 3
    assert [row["class"] for row in rows] == list(CLASSES)
    assert [row["images"] for row in rows] == [1, 2, 2]
    assert [row["precision"] for row in rows] == pytest.approx([1 / 2, 1 / 2, 1 / 1])
    assert [row["recall"] for row in rows] == pytest.approx([1 / 1, 1 / 2, 1 / 2])
    assert [row["f1"] for row in rows] == pytest.approx([2 / 3, 1 / 2, 2 / 3])
    assert {type(value) for row in rows for value in row.values()} == {str, int, float}


def test_second_guesses_count_for_top2_only():
    """The right class is among the two most probable, or is not."""
    labels = np.array([2, 1, 0, 1, 0], np.uint8)
    assert metrics.metrics(PROBS, labels)["test/accuracy_top2"] == 2 / 5


def test_confusion_counts_true_classes_in_rows():
    """Row bee, column ant: the bee taken for an ant."""
    assert metrics.confusion(PROBS, LABELS).tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 1]]


@pytest.mark.parametrize("seed", range(3))
def test_metrics_are_scikit_learns(seed):
    """On 2000 predictions over ten classes of very unequal size."""
    probs, labels = predictions(seed=seed)
    found = metrics.metrics(probs, labels)
    predicted = probs.argmax(1)
    assert found["test/accuracy"] == sklearn.metrics.accuracy_score(labels, predicted)
    exact = probs / probs.sum(1, keepdims=True, dtype=np.float64)  # scikit-learn wants sums of 1 in float64
    assert found["test/loss"] == pytest.approx(sklearn.metrics.log_loss(labels, exact), rel=1e-6)
    assert found["test/f1_macro"] == pytest.approx(
        sklearn.metrics.f1_score(labels, predicted, average="macro"), abs=1e-6
    )
    assert found["test/accuracy_top2"] == pytest.approx(sklearn.metrics.top_k_accuracy_score(labels, probs, k=2))
    per_class = sklearn.metrics.precision_recall_fscore_support(labels, predicted)
    rows = metrics.by_class(probs, labels, names(10))
    assert [row["images"] for row in rows] == per_class[3].tolist()
    for kind, values in zip(("precision", "recall", "f1"), per_class[:3], strict=True):
        ours = [row[kind] for row in rows]
        assert ours == pytest.approx(values.tolist(), abs=1e-6), kind
    assert np.array_equal(metrics.confusion(probs, labels), sklearn.metrics.confusion_matrix(labels, predicted))


@pytest.mark.parametrize(("right", "count"), [(3, 5), (0, 7), (7, 7), (9123, 10_000)])
def test_interval_is_wilsons(right, count):
    """Against the formula (Wilson 1927) for 95 %; it stays within 0..1 and is never empty."""
    probs = np.tile(np.array([[0.9, 0.1]], np.float32), (count, 1))
    labels = (np.arange(count) >= right).astype(np.uint8)
    found = metrics.metrics(probs, labels)
    z, p = 1.959963984540054, right / count
    centre = (p + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(p * (1 - p) / count + z**2 / (4 * count**2))
    low, high = found["test/accuracy_low"], found["test/accuracy_high"]
    assert (low, high) == pytest.approx((centre - half, centre + half), abs=1e-9)
    assert 0 <= low <= p <= high <= 1
    assert low < high


def calibration_error(probs, labels, bins):
    """Naeini et al. 2015, one bin and one prediction at a time."""
    total = 0.0
    for bin_ in range(bins):
        inside = [
            (float(row.max()), row.argmax() == label)
            for row, label in zip(probs, labels, strict=True)
            if bin_ / bins < float(row.max()) <= (bin_ + 1) / bins
        ]
        if inside:
            confidence = sum(c for c, _ in inside) / len(inside)
            accuracy = sum(r for _, r in inside) / len(inside)
            total += len(inside) / len(labels) * abs(accuracy - confidence)
    return total


@pytest.mark.parametrize("bins", [2, 10, 15])
def test_calibration_error_is_that_of_a_plain_loop_and_of_the_diagram(bins):
    """The number in the title and the bars below it are about the same bins."""
    probs, labels = predictions(600)
    found = metrics.reliability(probs, labels, bins=bins)
    error = found.error
    assert error == pytest.approx(calibration_error(probs, labels, bins), abs=1e-9)
    if bins == metrics.CALIBRATION_BINS:
        assert metrics.metrics(probs, labels)["test/calibration_error"] == error
    assert error == pytest.approx((found.counts / 600 * np.abs(found.accuracy - found.confidence)).sum(), abs=1e-9)
    assert found.counts.sum() == 600
    assert found.edges.tolist() == pytest.approx([i / bins for i in range(bins + 1)])
    filled = found.counts > 0
    assert (found.edges[:-1][filled] < found.confidence[filled]).all()
    assert (found.confidence[filled] <= found.edges[1:][filled]).all()
    assert (found.accuracy @ found.counts) == pytest.approx((probs.argmax(1) == labels).sum())
    assert (found.accuracy[~filled] == 0).all()


def test_a_confidence_of_exactly_one_belongs_to_the_last_bin():
    """float32 rounds sure predictions to 1; in a bin of their own they could not make up for their neighbours."""
    probs = np.array([[1.0, 0.0]] * 4 + [[0.95, 0.05]] * 4, np.float32)
    labels = np.array([1, 0, 0, 0, 0, 0, 0, 0], np.uint8)  # 7 of 8 right at a mean confidence of 0.975
    assert metrics.reliability(probs, labels, bins=10).counts.tolist() == [0] * 9 + [8]
    assert metrics.reliability(probs, labels, bins=10).error == pytest.approx(0.1, abs=1e-6)


def test_perfect_predictions():
    """Everything that should be 1 is 1, and what should be 0 is 0."""
    labels = np.tile(np.arange(10, dtype=np.uint8), 5)
    probs = np.eye(10, dtype=np.float32)[labels]
    for name, value in metrics.metrics(probs, labels).items():
        if name in ("test/loss", "test/calibration_error"):
            assert value == pytest.approx(0, abs=1e-9), name
        elif name not in ("test/images", "test/accuracy_low"):
            assert value == pytest.approx(1), name
    for row in metrics.by_class(probs, labels, names(10)):
        assert (row["precision"], row["recall"], row["f1"]) == (1, 1, 1), row


def test_the_worst_predictions_still_give_finite_numbers():
    """Always sure and always wrong: a probability of 0 for the truth must not make the loss infinite."""
    labels = np.tile(np.arange(10, dtype=np.uint8), 5)
    found = metrics.metrics(np.eye(10, dtype=np.float32)[(labels + 1) % 10], labels)
    assert all(math.isfinite(value) for value in found.values())
    assert found["test/accuracy"] == found["test/accuracy_low"] == found["test/f1_macro"] == 0
    assert found["test/calibration_error"] == pytest.approx(1)
    assert found["test/loss"] > 80


def test_a_class_that_is_never_predicted_scores_zero():
    """No division by zero, no NaN, which JSON does not have."""
    probs = np.tile(np.array([[0.8, 0.1, 0.1]], np.float32), (4, 1))
    ant, bee, cat = metrics.by_class(probs, np.array([0, 0, 1, 1], np.uint8), CLASSES)
    assert (ant["precision"], ant["recall"]) == (0.5, 1)
    assert bee["precision"] == bee["recall"] == cat["f1"] == 0
    assert (bee["images"], cat["images"]) == (2, 0)


def test_accuracy_is_the_share_of_right_first_guesses():
    """Three of five."""
    assert inference.accuracy(PROBS, LABELS) == 3 / 5


def test_table_has_a_row_for_every_image():
    """By name, so that it can be read without the order of the classes."""
    table = pd.DataFrame(metrics.table(PROBS, LABELS, CLASSES))
    assert list(table.columns) == ["index", "label", "predicted", "ant", "bee", "cat"]
    assert table["index"].tolist() == [0, 1, 2, 3, 4]
    assert table["label"].tolist() == ["ant", "bee", "bee", "cat", "cat"]
    assert table["predicted"].tolist() == ["ant", "ant", "bee", "cat", "bee"]
    assert np.array_equal(table[list(CLASSES)].to_numpy(np.float32), PROBS)
