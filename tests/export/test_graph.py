"""The ONNX graph: the same network for any batch size, the same bytes every time, refused where it differs."""

import copy
import functools
import getpass
import math
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from pipeline import files
from pipeline.config import architectures
from pipeline.config.loading import load
from pipeline.data import dataset
from pipeline.errors import ExportError
from pipeline.export import graph as exporting
from pipeline.training.loop import initial_model
from tests.conftest import SMALL, write_params
from tests.paths import ROOT

TOLERANCE = 1e-4
CHANGES = {
    "model.cnn.widths": [4, 8],
    "model.cnn.dropout": 0.3,
    "model.mlp.hidden": [16],
    "model.resnet.depth": 8,
    "model.resnet.width": 4,
    "model.speednet.widths": [4, 8],
    "model.vit.depth": 1,
    "model.vit.pooling": "token",
    "model.torchvision.name": "squeezenet1_1",
}


@pytest.fixture(scope="module")
def exported(processed, tmp_path_factory):
    """A function from an architecture to a small network, whose batch norm has seen images, and its graph."""
    data = dataset.load(processed, "train")

    @functools.cache  # an export takes a second
    def make(arch):
        path = tmp_path_factory.mktemp("params") / "params.yaml"
        params = load(write_params(path, SMALL | CHANGES | {"model.arch": arch}))
        model = initial_model(params.model, params.train, data, torch.device("cpu"))
        with torch.no_grad():
            model.train()(torch.from_numpy(data["train"].images[:100]).permute(0, 3, 1, 2))
        return model, export(model, data)

    return make


@pytest.fixture
def images(data):
    return data["test"].images[:64]


def export(model, data) -> bytes:
    return exporting.to_onnx(model, data.metadata.classes, 32, {"dataset": "shapes10"})


def probabilities(graph: bytes, images) -> np.ndarray:
    (out,) = exporting.session(graph).run([exporting.OUTPUT], {exporting.INPUT: images})
    return out


@pytest.mark.parametrize("arch", architectures.NAMES)
def test_onnx_runtime_and_pytorch_agree(arch, exported, data, images):
    """On images of the dataset as they are on disk, one, seven or all at once; the graph says what it takes."""
    model, graph = exported(arch)
    with torch.inference_mode():
        expected = model.eval()(torch.from_numpy(images).permute(0, 3, 1, 2)).softmax(1).numpy()
    for count in (1, 7, 64):
        found = probabilities(graph, images[:count])
        assert found.shape == (count, 10)
        assert found.dtype == np.float32
        assert np.abs(found - expected[:count]).max() < 1e-5
    parity = exporting.check_parity(model, graph, images, tolerance=TOLERANCE)
    assert parity["export/parity_images"] == 64
    assert 0 <= parity["export/parity_difference"] < 1e-5

    session = exporting.session(graph)
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type, taken.shape) == ("images", "tensor(uint8)", ["batch", 32, 32, 3])
    assert (given.name, given.type, given.shape) == ("probabilities", "tensor(float)", ["batch", 10])
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata == {"classes": ",".join(data.metadata.classes), "dataset": "shapes10"}


@pytest.mark.e2e
@pytest.mark.parametrize("arch", architectures.NAMES)
def test_the_same_network_gives_the_same_bytes_anywhere(arch, exported, data):
    """Two exports do not differ by a bit, and no path, user or line of code of this machine is in them."""
    model, graph = exported(arch)
    assert export(copy.deepcopy(model), data) == graph
    text = graph.decode("latin-1").lower()
    # A user's name can be short enough to occur by chance, hence its folder.
    traces = [
        str(ROOT),
        str(Path.home()) + "/",
        f"/{getpass.getuser()}/",
        "site-packages",
        ".py",
        tempfile.gettempdir(),
    ]
    assert not [trace for trace in traces if trace != "/" and trace.lower() in text]


def test_exporting_leaves_the_network_as_it_was(exported, data):
    """Training could go on; weights and gradients are untouched."""
    model, _ = exported("mlp")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    export(model, data)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_an_image_of_another_kind_is_refused(exported, images):
    """Floats would be taken for grey levels between 0 and 1."""
    _, graph = exported("mlp")
    for wrong in (images.astype(np.float32), images.transpose(0, 3, 1, 2)):
        with pytest.raises(Exception, match="INVALID_ARGUMENT"):
            probabilities(graph, wrong)


class OfOneSize(nn.Module):
    """len() of a tensor is a plain number to the exporter: the batch size of its example."""

    def forward(self, images):
        return images.float().reshape(len(images), -1)[:, :10]


def test_a_network_that_fixes_the_batch_size_is_refused(data):
    """Its graph would take batches of the example's size only."""
    with pytest.raises(ExportError, match="batches of 2 images only"):
        export(OfOneSize(), data)


# The check of parity


def tampered(graph: bytes, change) -> bytes:
    """The graph with its last floating-point matrix or filter bank changed in place."""
    model = onnx.load_from_string(graph)
    floats = [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT]
    tensor = [tensor for tensor in floats if len(tensor.dims) >= 2 and math.prod(tensor.dims) > 3][-1]
    values = numpy_helper.to_array(tensor).copy()
    change(values)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model.SerializeToString()


@pytest.mark.parametrize("arch", architectures.NAMES)
def test_a_changed_weight_is_refused(arch, exported, images):
    """The message has the difference, the image and the parameter that limits it."""
    model, graph = exported(arch)

    def enlarge(values):
        values *= 100

    graph = tampered(graph, enlarge)
    with pytest.raises(
        ExportError, match=r"differ by \S+ in a probability of test image \d+.*export.tolerance 0.0001"
    ):
        exporting.check_parity(model, graph, images, tolerance=TOLERANCE)


def test_nan_is_refused(exported, images):
    """NaN compares as neither larger nor smaller than anything."""
    model, graph = exported("mlp")

    def poison(values):
        values.flat[0] = np.nan

    graph = tampered(graph, poison)
    assert np.isnan(probabilities(graph, images)).any()
    with pytest.raises(ExportError, match="differ by nan"):
        exporting.check_parity(model, graph, images, tolerance=TOLERANCE)


class Fixed(nn.Module):
    """The same two scores for every image."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, images):
        return self.logits.expand(images.shape[0], -1) + 0 * images.float().mean((1, 2, 3))[:, None]


@functools.cache
def graph_of(*logits) -> bytes:
    return exporting.to_onnx(Fixed(*logits), ("a", "b"), 32, {})


def test_either_of_two_tied_classes_is_the_same_prediction(images):
    """Which of two equal probabilities is the larger is a matter of rounding."""
    parity = exporting.check_parity(Fixed(0.0, 1e-6), graph_of(1e-6, 0.0), images, tolerance=TOLERANCE)
    assert 0 < parity["export/parity_difference"] < 1e-6


def test_another_class_is_refused_where_there_is_no_tie(images):
    """Both probabilities moved by no more than the tolerance each, and yet it is another answer."""
    logit = math.log(0.506 / 0.494)
    with pytest.raises(ExportError, match="predict different classes for 64 of 64 test images, the first at 0"):
        exporting.check_parity(Fixed(0.0, logit), graph_of(0.0, -math.log(0.5001 / 0.4999)), images, tolerance=0.01)


def test_the_tolerance_is_inclusive_of_what_it_allows(images):
    """A larger tolerance accepts what a smaller one refuses."""
    model, graph = Fixed(0.0, 1.0), graph_of(0.0, 1.01)  # 0.0020 apart
    with pytest.raises(ExportError, match=r"differ by 0\.0019"):
        exporting.check_parity(model, graph, images, tolerance=0.001)
    assert exporting.check_parity(model, graph, images, tolerance=0.003)["export/parity_difference"] > 0.001


def test_writing_is_whole_or_not_at_all(tmp_path):
    """The bytes, and nothing beside them."""
    files.write_bytes(tmp_path / "model" / "model.onnx", b"graph")
    assert (tmp_path / "model" / "model.onnx").read_bytes() == b"graph"
    assert len(list((tmp_path / "model").iterdir())) == 1


def test_latency_is_a_time_in_milliseconds(images):
    """Positive, and within what a call that does nearly nothing can take."""
    assert 0 < exporting.latency(graph_of(0.0, 1.0), images[:1], seconds=0.01) < 1000
