"""Weights and multiply-accumulates of networks and layers."""

import pytest

from pipeline.studies import counts
from tests.paths import ROOT
from tests.study_plans import made


def test_layers_are_counted_as_by_hand():
    """The textbook's 150,528,000 weights; a convolution's weights stay, its computation grows with the pixels."""
    assert counts.dense_layer(224, 1000).parameters == counts.dense_layer(224, 1000).macs == 150_528_000
    for side in (32, 512):
        convolution = counts.conv_layer(side, 64)
        assert convolution.parameters == convolution.conv_parameters == 3 * 9 * 64
        assert convolution.macs == 3 * 9 * 64 * side**2
        assert counts.dense_layer(side, 10).dense_parameters == 3 * side**2 * 10


def test_pooling_saves_weights_of_the_first_dense_layer_and_of_no_convolution():
    """Two blocks: the dense layer sees a sixteenth of the pixels, the convolutions have the same filters."""
    planned = made(ROOT)
    kinds = {name: counts.network(planned.settings(name).model) for name in planned.variants}
    assert len({count.conv_parameters for count in kinds.values()}) == 1
    saved = 32 * 64 * (32 * 32 - 8 * 8)  # channels, units, pixels
    assert kinds["none"].dense_parameters - kinds["max"].dense_parameters == saved
    assert kinds["max"].macs == 1024 * 3 * 9 * 16 + 256 * 16 * 9 * 32 + 64 * 32 * 64 + 64 * 10
    assert kinds["max"] == kinds["average"]
    assert kinds["stride"].macs < kinds["max"].macs < kinds["none"].macs


@pytest.mark.parametrize("scale", ["small", "full"])
def test_dense_networks_are_as_large_or_as_costly_as_the_cnn(scale):
    """Within 3 %, as the study's rule demands."""
    planned = made(ROOT, "conv-or-dense", scale=scale)
    found = {name: counts.network(planned.settings(name).model) for name in planned.variants}
    assert found["mlp-same-weights"].parameters == pytest.approx(found["cnn"].parameters, rel=0.03)
    assert found["mlp-same-macs"].macs == pytest.approx(found["cnn"].macs, rel=0.03)
