"""The headline metrics: which of them DVC's tables show, and which direction is better."""

import pytest

from pipeline import headline


def test_metrics_are_split_into_those_that_tables_show_and_all_others():
    """Each is in one of the two, in the order given; text and other details are kept."""
    values = {"test/loss": 1.5, "test/accuracy": 0.5, "test/data": "shapes10", "model/macs": 7, "train/ema": 0.0}
    shown, others = headline.split(values)
    assert list(shown.items()) == [("test/accuracy", 0.5), ("model/macs", 7)]
    assert list(others.items()) == [("test/loss", 1.5), ("test/data", "shapes10"), ("train/ema", 0.0)]
    assert headline.split({}) == ({}, {})


def test_what_tables_show_is_part_of_the_headline():
    """`show` and MLflow have all that DVC's tables have."""
    assert set(headline.SHOWN) < headline.HEADLINE.keys()
    assert (len(headline.SHOWN), len(headline.HEADLINE)) == (6, 14)


@pytest.mark.parametrize("name", headline.HEADLINE)
def test_a_headline_metric_has_a_label_and_a_format(name):
    """Formats take integers and fractions."""
    label, form = headline.HEADLINE[name]
    assert label
    assert form.format(1) != form
    assert headline.smaller_is_better(name) == (
        name.endswith(("loss", "error", "parameters", "macs", "/seconds", "bytes", "latency_ms"))
    )
