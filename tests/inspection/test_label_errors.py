"""Suspect labels and confused classes, planted and found."""

import numpy as np
import pytest

from pipeline.inspection import confusions, label_errors
from tests.evaluation.test_figures import predictions


def rows(*probs: tuple[float, ...]) -> np.ndarray:
    return np.array(probs, np.float32)


def test_planted_label_errors_are_found_and_hardly_anything_else():
    """Of 2,000 good predictions, 5 % of the labels are changed; those that are predicted faintly go unnoticed."""
    probs, right = predictions(2000, skill=9.0)
    planted, labels = np.arange(7, 2000, 20), right.copy()
    labels[planted] = (labels[planted] + 3) % 10
    found = label_errors.suspicions(probs, labels)
    hits = np.isin(found.indices, planted)
    assert hits.sum() >= 0.8 * len(planted)
    assert hits.mean() >= 0.95
    assert (found.suggested[hits] == right[found.indices[hits]]).all()


def test_the_most_suspect_comes_first_with_the_probability_of_its_label():
    """Northcutt's self-confidence; equal ones in the order of the images."""
    probs = rows((0.9, 0.1), (0.8, 0.2), (0.1, 0.9), (0.2, 0.8), (0.97, 0.03), (0.1, 0.9), (0.1, 0.9))
    labels = np.array([0, 0, 1, 1, 1, 0, 0], np.uint8)
    found = label_errors.suspicions(probs, labels)
    assert found.indices.tolist() == [4, 5, 6]
    assert found.suggested.tolist() == [0, 1, 1]
    assert found.scores == pytest.approx([0.03, 0.1, 0.1])
    assert len(found) == 3


def test_a_prediction_below_its_classs_threshold_is_no_suspicion():
    """Class 1's images average 0.9: 0.7 for it is no more than the network says of many an image."""
    probs = rows((0.6, 0.4), (0.6, 0.4), (0.3, 0.7), (0.1, 0.9), (0.1, 0.9))
    found = label_errors.suspicions(probs, np.array([0, 0, 0, 1, 1], np.uint8))
    assert len(found) == 0


def test_a_label_that_the_network_itself_predicts_is_no_suspicion():
    """Class 1's threshold is low: 0.45 reaches it, while 0.55 does not reach class 0's; yet 0 is what it says."""
    probs = rows((0.9, 0.1), (0.9, 0.1), (0.55, 0.45), (0.6, 0.4), (0.6, 0.4))
    labels = np.array([0, 0, 0, 1, 1], np.uint8)
    found = label_errors.suspicions(probs, labels)
    assert 2 not in found.indices.tolist()


def test_a_class_that_no_image_carries_makes_no_label_suspect():
    """It has no threshold that a probability could reach, however sure the network is of it."""
    probs = rows((0.1, 0.2, 0.7), (0.1, 0.2, 0.7), (0.2, 0.5, 0.3), (0.4, 0.3, 0.3))
    assert len(label_errors.suspicions(probs, np.array([0, 0, 1, 0], np.uint8))) == 0


def test_of_one_class_alone_no_label_is_suspect():
    """There is nothing else that an image could be."""
    probs = rows((0.9, 0.1), (0.2, 0.8), (0.4, 0.6))
    for label in (0, 1):
        assert len(label_errors.suspicions(probs, np.full(3, label, np.uint8))) == 0


def test_confused_pairs_come_by_number_with_the_surest_mistakes_first():
    """1 is taken for 2 three times, 2 for 1 once; 0 for 1 twice."""
    labels = np.array([1, 1, 1, 2, 0, 0, 0, 1, 2], np.uint8)
    predicted = np.array([2, 2, 2, 1, 1, 1, 0, 1, 2])
    confidence = np.array([0.6, 0.9, 0.7, 0.8, 0.6, 0.5, 0.9, 0.9, 0.9], np.float32)
    probs = np.repeat((1 - confidence[:, None]) / 2, 3, axis=1).astype(np.float32)
    probs[np.arange(9), predicted] = confidence
    first, second = confusions.most_confused(probs, labels, 5)
    assert (first.first, first.second, first.counts) == (1, 2, (3, 1))
    assert first.indices.tolist() == [1, 3, 2, 0]
    assert (second.first, second.second, second.counts) == (0, 1, (2, 0))
    assert second.indices.tolist() == [4, 5]
    assert len(confusions.most_confused(probs, labels, 1)) == 1


def test_the_direction_that_happens_more_often_is_named_first():
    """Whatever the order of the labels; and who is always right confuses nothing."""
    labels = np.array([1, 1, 0], np.uint8)
    wrong = rows((0.9, 0.1), (0.8, 0.2), (0.3, 0.7))
    (pair,) = confusions.most_confused(wrong, labels, 5)
    assert (pair.first, pair.second, pair.counts) == (1, 0, (2, 1))
    assert confusions.most_confused(1 - wrong, labels, 5) == []
