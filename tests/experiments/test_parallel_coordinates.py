"""The figure of which parameters go with accuracy: where values lie on their axes."""

import xml.etree.ElementTree as ElementTree

import pytest

from pipeline.experiments import parallel_coordinates

VALUES = {"activation": ["relu", "tanh", "relu"], "lr": [0.001, 0.01, 0.1], "norm": ["batch", None, "batch"]}


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)  # noqa: S314  # our own text
    return [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]


def test_every_parameter_and_the_accuracy_has_a_named_axis():
    """With the values of categories and numbers; what a configuration lacks is a dash."""
    found = texts(parallel_coordinates.draw(VALUES, [0.7, 0.6, 0.8]))
    for text in (*VALUES, "val/accuracy, %", "relu", "tanh", "0.001", "0.1", "—", "80", "60"):
        assert text in found, text


@pytest.mark.parametrize(
    ("column", "heights"),
    [
        ([1, 2, 3], [0, 0.5, 1]),
        ([0.001, 0.01, 0.1], [0, 0.5, 1]),  # logarithmic
        ([5, 5, 5], [0.5, 0.5, 0.5]),
        ([True, False, True], [0, 1, 0]),
        (["a", "b", "c"], [0, 0.5, 1]),
    ],
)
def test_values_lie_where_they_belong(column, heights):
    """Numbers in proportion, or by their logarithms if they span decades; kinds at equal distances."""
    found, _ = parallel_coordinates._positions(column)
    assert found == pytest.approx(heights)


def test_the_same_rows_give_the_same_bytes_and_many_parameters_fit():
    """The first eight have axes."""
    values = {f"p{number}": [1, 2, number] for number in range(12)}
    first, second = (parallel_coordinates.draw(values, [0.1, 0.2, 0.3]) for _ in range(2))
    assert first == second
    assert "p7" in texts(first)
    assert "p8" not in texts(first)
