"""Exported networks in ONNX Runtime: what they say of image files is what the pipeline says of its arrays."""

import itertools
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from pipeline.config.loading import load as load_params
from pipeline.data import dataset
from pipeline.errors import PredictionError
from pipeline.export import graph as exporting
from pipeline.serving import prediction
from pipeline.serving.image_files import Unreadable
from pipeline.serving.prediction import Classifier, Prediction
from tests.conftest import SMALL, write_params
from tests.paths import ROOT

SIDE = 8


def graph(
    path,
    *,
    shape=("batch", SIDE, SIDE, 3),
    taken=TensorProto.UINT8,
    classes="red,green,blue",
    activation="Softmax",
    scale=0.1,
):
    """Write a network that classifies an image by the mean of each channel."""
    nodes = [
        helper.make_node("Cast", ["images"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["levels", "axes"], ["means"], keepdims=0),
        helper.make_node("Mul", ["means", "scale"], ["logits"]),
        helper.make_node(activation, ["logits"], ["probabilities"]),
    ]
    made = helper.make_model(
        helper.make_graph(
            nodes,
            "means",
            [helper.make_tensor_value_info("images", taken, shape)],
            [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ("batch", shape[-1]))],
            [
                numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
                numpy_helper.from_array(np.float32(scale), "scale"),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    if classes is not None:
        made.metadata_props.add(key="classes", value=classes)
    onnx.save(made, path)
    return path


def solid(folder, *colours):
    """Write one image of each colour, all of full strength, and return their names."""
    names = []
    for number, colour in enumerate(colours):
        names.append(str(folder / f"{number:03}.png"))
        Image.new("RGB", (SIDE, SIDE), {"green": "lime"}.get(colour, colour)).save(names[-1])
    return names


def flat(batches) -> list:
    return [item for batch in batches for item in batch]


@pytest.fixture
def classifier(tmp_path) -> Classifier:
    """The network that names an image's strongest channel."""
    return prediction.load(str(graph(tmp_path / "means.onnx")), tmp_path)


@pytest.fixture(scope="module")
def exported(processed, tmp_path_factory):
    """A convolutional network as the export stage writes it."""
    from pipeline.training.loop import initial_model

    folder = tmp_path_factory.mktemp("exported")
    params = load_params(write_params(folder / "params.yaml", SMALL))
    data = dataset.load(processed, "train")
    import torch

    model = initial_model(params.model, params.train, data, torch.device("cpu"))
    path = folder / "model.onnx"
    path.write_bytes(exporting.to_onnx(model, data.metadata.classes, 32, {}))
    return path


def test_test_images_as_files_are_predicted_as_the_pipeline_predicts_them(exported, data, tmp_path):
    """The same probabilities for every class as the exported graph gives for the processed arrays."""
    images = data["test"].images[:200]
    names = [str(tmp_path / f"{number:03}.png") for number in range(len(images))]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(name)
    classifier = prediction.load(str(exported), tmp_path)
    assert (classifier.side, classifier.channels) == (32, 3)
    assert classifier.classes == data.metadata.classes
    found = flat(prediction.predict(classifier, names, top=10))
    (expected,) = exporting.session(exported.read_bytes()).run(None, {"images": images})
    assert [item.image for item in found] == names
    for item, probabilities in zip(found, expected, strict=True):
        labels = [data.metadata.classes.index(label) for label, _ in item.best]
        assert sorted(labels) == list(range(10))
        assert [p for _, p in item.best] == sorted((p for _, p in item.best), reverse=True)
        assert np.abs(probabilities[labels] - [p for _, p in item.best]).max() < 1e-6


def test_the_graph_says_what_size_kind_and_classes_it_has(tmp_path):
    """Another side, one channel, other names."""
    path = graph(tmp_path / "grey.onnx", shape=(None, 5, 5, 1), classes="thing")
    classifier = prediction.load(str(path), tmp_path)
    assert (classifier.side, classifier.channels, classifier.classes) == (5, 1, ("thing",))
    assert flat(prediction.predict(classifier, solid(tmp_path, "red"))) == [
        Prediction(str(tmp_path / "000.png"), (("thing", 1.0),))
    ]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_order_and_results_do_not_depend_on_batches(batch_size, classifier, tmp_path):
    """Unreadable files keep their places, and batches have the size asked for."""
    colours = ["red", "green", "blue", "green", "red", "blue", "blue"] * 5
    names = solid(tmp_path, *colours)
    (tmp_path / "004.png").write_text("no picture")
    folder = Unreadable("folder", "for a reason")
    batches = list(prediction.predict(classifier, [*names, folder], batch_size=batch_size))
    assert {len(batch) for batch in batches[:-1]} <= {batch_size}
    found = flat(batches)
    assert found.pop() == folder
    assert isinstance(found[4], Unreadable)
    assert found[4].name == names[4]
    expected = [(name, colour) for name, colour in zip(names, colours, strict=True) if name != names[4]]
    assert [(item.image, item.best[0][0]) for item in found if isinstance(item, Prediction)] == expected


def test_no_more_than_two_batches_are_held(classifier, tmp_path):
    """From an endless folder, one batch has been classified when the next one is being read."""
    (name,) = solid(tmp_path, "green")
    taken = []
    endless = (taken.append(name) or name for _ in itertools.count())
    batches = prediction.predict(classifier, endless, batch_size=10)
    for count in (1, 2, 3):
        assert [item.best[0][0] for item in next(batches)] == ["green"] * 10
        assert len(taken) == 10 * (count + 1)
    batches.close()


def test_nothing_gives_nothing(classifier):
    """No images, and only unreadable ones."""
    assert list(prediction.predict(classifier, [])) == []
    assert flat(prediction.predict(classifier, [Unreadable("a", "b")])) == [Unreadable("a", "b")]


def test_of_equal_probabilities_the_first_class_is_named(classifier, tmp_path):
    """As argmax has it everywhere else in the pipeline."""
    (item,) = flat(prediction.predict(classifier, solid(tmp_path, "white"), top=3))
    assert item.best == tuple((label, pytest.approx(1 / 3)) for label in ("red", "green", "blue"))


def test_stretch_and_filter_reach_the_images(classifier, tmp_path):
    """A square of red amid blue: cropped it is red, stretched it is blue."""
    image = Image.new("RGB", (5 * SIDE, SIDE), "blue")
    image.paste("red", (2 * SIDE, 0, 3 * SIDE, SIDE))
    image.save(tmp_path / "a.png")
    for options, expected in (({}, "red"), ({"stretch": True}, "blue"), ({"resample": "nearest"}, "red")):
        (item,) = flat(prediction.predict(classifier, [str(tmp_path / "a.png")], **options))
        assert item.best[0][0] == expected


# Models that can't be used


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"taken": TensorProto.FLOAT}, r"images tensor\(float\)"),
        ({"shape": (1, SIDE, SIDE, 3)}, r"\[1, 8, 8, 3\]"),
        ({"shape": ("batch", SIDE, 9, 3)}, r"\['batch', 8, 9, 3\]"),
        ({"shape": ("batch", SIDE, SIDE, 4), "classes": "a,b,c,d"}, r"\['batch', 8, 8, 4\]"),
        ({"shape": ("batch", "height", "width", 3)}, "'height'"),
        ({"classes": "red,green"}, "and 2 names"),
        ({"classes": None}, "and 0 names"),
    ],
)
def test_a_graph_of_another_kind_is_refused(change, found, tmp_path):
    """One line with what is expected and what it is."""
    path = graph(tmp_path / "other.onnx", **change)
    with pytest.raises(PredictionError, match=rf"other.onnx: not a graph.*expected images tensor\(uint8\).*{found}"):
        prediction.load(str(path), tmp_path)


def test_what_is_no_onnx_file_is_refused(tmp_path):
    """Text, nothing, and half a graph, each in one line."""
    whole = graph(tmp_path / "whole.onnx").read_bytes()
    for content in (b"no graph", b"", whole[: len(whole) // 2]):
        (tmp_path / "broken.onnx").write_bytes(content)
        with pytest.raises(PredictionError, match=r"broken.onnx: not a") as caught:
            prediction.load(str(tmp_path / "broken.onnx"), tmp_path)
        assert len(str(caught.value).splitlines()) == 1


def test_a_missing_file_is_one_line_that_says_how_to_make_it(tmp_path):
    """Or how to name another."""
    with pytest.raises(
        PredictionError, match=r"nowhere.onnx: no such file; dvc repro creates export/model.onnx.*--model"
    ):
        prediction.load("nowhere.onnx", tmp_path)


@pytest.mark.parametrize("change", [{"activation": "Relu"}, {"scale": float("nan")}])
def test_what_are_no_probabilities_is_refused(change, tmp_path):
    """Scores that don't add up to one, and NaN."""
    classifier = prediction.load(str(graph(tmp_path / "scores.onnx", **change)), tmp_path)
    with pytest.raises(PredictionError, match="expected probabilities that add up to 1"):
        flat(prediction.predict(classifier, solid(tmp_path, "red")))


def test_pytorch_and_mlflow_are_not_loaded(exported, tmp_path, environment):
    """A prediction from an ONNX file starts in a moment."""
    (name,) = solid(tmp_path, "red")
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pipeline import cli\n"
        "try: cli.app()\n"
        "except SystemExit as end: print(end.code, {'torch', 'mlflow', 'onnxruntime'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "predict", name, "--json", f"--model={exported}"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "0 {'onnxruntime'}"
