"""`python -m pipeline explain` as a user runs it: what it prints, the page it writes, what it says of mistakes."""

import base64
import html
import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import cli, files
from pipeline.data import dataset
from pipeline.models.common.build import build
from pipeline.models.common.saved import save_model

pytestmark = pytest.mark.e2e

ANSWER = ("prediction.png", "attribution.png", "attribution_rival.png", "neighbours.png", "convolution.gif")
LAYERS = ("edges.png", "first_layer.png", "feature_maps.png", "patches.png")
ALL_IMAGES = ("embedding.png", "confusions.png", "label_errors.png")
PICTURES = (*ANSWER, *LAYERS, *ALL_IMAGES)
COUNTS = (("train", 300), ("test", 200))


def save(folder: Path, params, metadata) -> torch.nn.Module:
    """Save an untrained network of the architecture that params name, and return it."""
    torch.manual_seed(0)
    arch, section = params.model.arch, params.model.section
    model = build(arch, section, mean=metadata.mean, std=metadata.std, classes=10).eval()
    save_model(folder, model, params.model, metadata)
    return model


@pytest.fixture
def model(tmp_path, small_params, data):
    """A small untrained cnn, saved in tmp_path/model."""
    return save(tmp_path / "model", small_params(), data.metadata)


@pytest.fixture
def few(data) -> dataset.Dataset:
    """300 training and 200 test images, so that a page takes seconds."""
    splits = {name: dataset.Split(data[name].images[:count], data[name].labels[:count]) for name, count in COUNTS}
    return dataset.Dataset(data.metadata, splits)


@pytest.fixture
def explain(tmp_path, few, monkeypatch, capsys):
    """A function that runs the command on the network in tmp_path/model: exit code, stdout, stderr."""
    dataset.save(tmp_path / "data/processed", few)
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["pipeline", "explain", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, *capsys.readouterr()

    return call


def predicted(model, images: np.ndarray) -> np.ndarray:
    """What a network says of (N, H, W, 3) images, without any of the library."""
    with torch.inference_mode():
        return model(torch.from_numpy(images).permute(0, 3, 1, 2)).argmax(1).numpy()


def read(page: Path) -> tuple[str, list[str], list[bytes]]:
    """Return a page's text, the titles of its sections, and its pictures' bytes."""
    source = page.read_text(encoding="utf-8")
    text = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", source.split("<body>")[1])).split())
    titles = [html.unescape(title) for title in re.findall(r"<h2.*?>(.*?)</h2>", source)]
    pictures = re.findall(r'<img src="data:image/(?:png|gif);base64,([^"]+)"', source)
    assert not re.search(r'(src|href)="(?!data:|#)', source), "the page needs another file"
    assert re.findall(r'href="#(.*?)"', source) == re.findall(r'<h2 id="(.*?)"', source)
    return text, titles, [base64.b64decode(picture) for picture in pictures]


def test_a_mistake_is_explained_on_a_page_with_all_pictures_in_it(model, explain, few, tmp_path):
    """The prediction, the label, and a line for each finding."""
    test, classes = few["test"], few.metadata.classes
    said = predicted(model, test.images)
    index = int(np.flatnonzero(said != test.labels)[0])
    wrong, right = classes[said[index]], classes[test.labels[index]]
    code, out, err = explain("--index", index, "--out", "here")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith(f"test image {index}: {wrong} ")
    assert lines[0].endswith(f"(label {right})")
    for name in ("Grad-CAM", "occlusion", "integrated gradients"):
        for label in (wrong, right):
            assert sum(line.startswith(f"{name} for {label}: rank correlation") for line in lines) == 1
    mistakes = int((said != test.labels).sum())
    assert f"of {mistakes:,} errors on 200 test images" in out
    assert lines[-1] == f"wrote {Path('here/explanation.html')}"
    text, titles, pictures = read(tmp_path / "here/explanation.html")
    assert pictures == [(tmp_path / "here" / name).read_bytes() for name in PICTURES]
    assert f"Attribution of {right}, the label" in titles
    assert text.startswith(f"test image {index}: {wrong}")
    assert "cnn trained on shapes10" in text
    assert "near 1 the map depends on the image or the architecture" in text
    for picture in pictures:
        with Image.open(io.BytesIO(picture)) as image:
            assert min(image.size) > 200


def test_the_same_image_gives_the_same_bytes_and_another_seed_other_random_networks(model, explain, tmp_path):
    """Pictures and page; the seed decides nothing about the trained network."""
    del model
    runs = [explain("--index", 3, "--out", name, *seed) for name, *seed in (("a",), ("b",), ("c", "--seed", "1"))]
    assert [code for code, *_ in runs] == [0, 0, 0]
    hashes = [
        {path.name: files.sha256(path) for path in sorted((tmp_path / folder).iterdir())} for folder in ("a", "b", "c")
    ]
    assert hashes[0] == hashes[1]
    assert hashes[0]["attribution.png"] != hashes[2]["attribution.png"]
    assert hashes[0]["neighbours.png"] == hashes[2]["neighbours.png"]


def test_an_image_file_is_explained_without_a_label(model, explain, few, tmp_path):
    """A training image as a PNG: its neighbour is itself, with a cosine of 1."""
    image = few["train"].images[11]
    Image.fromarray(image).save(tmp_path / "mine.png")
    code, out, _ = explain("--image", "mine.png")
    assert code == 0
    name = few.metadata.classes[predicted(model, image[None])[0]]
    assert out.startswith(f"mine.png: {name} ")
    assert "(label" not in out.splitlines()[0]
    assert "(cosine 1.00 to " in out
    _, titles, _ = read(tmp_path / "explain/explanation.html")
    assert any(title.endswith(", the second most probable class") for title in titles)


def test_of_an_mlp_a_line_says_why_what_convolutions_do_is_left_out(explain, small_params, data, tmp_path):
    """Printed and on the page; the other sections, and the other two maps, are there."""
    save(tmp_path / "model", small_params({"model.arch": "mlp"}), data.metadata)
    code, out, _ = explain()
    assert code == 0
    left_out = [line.removeprefix("left out: ") for line in out.splitlines() if line.startswith("left out: ")]
    no_filters = "this network has no first-layer filters: no layer has weights (F, 3, k, k)"
    no_maps = "this network has no feature maps: none of its parts has an output (N, C, H, W)"
    topics = ("edges", "the first layer's filters", "feature maps", "patches that activate channels")
    reasons = (no_filters, no_filters, no_maps, no_maps)
    assert left_out[2:] == [f"{topic}: {reason}" for topic, reason in zip(topics, reasons, strict=True)]
    assert all(line.startswith("Grad-CAM: this network has no convolution") for line in left_out[:2])
    text, _, pictures = read(tmp_path / "explain/explanation.html")
    assert len(pictures) == len(ANSWER + ALL_IMAGES)
    assert all(f"left out: {line}" in text for line in left_out[2:])
    assert "Grad-CAM weights" not in text
    assert "Occlusion covers" in text


def test_filters_of_single_pixels_see_no_edges_but_have_feature_maps(explain, small_params, data, tmp_path):
    """What cannot be shown of a network takes nothing else with it."""
    save(tmp_path / "model", small_params({"model.cnn.kernel_size": 1}), data.metadata)
    code, out, _ = explain()
    assert code == 0
    assert out.count("the first layer's filters: found 1 x 1 px, which cannot detect edges") == 2
    written = {path.name for path in (tmp_path / "explain").iterdir()}
    assert set(PICTURES) - written == {"edges.png", "first_layer.png"}


def test_what_layers_answer_is_said_in_numbers(model, explain, few):
    """The filter's sums, the first layer and random filters, the feature maps' shapes, the classes of patches."""
    del model
    _, out, _ = explain("--index", 5)
    grey = np.asarray(Image.fromarray(few["test"].images[5]).convert("L"))
    kernel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    sums = {int((grey[y : y + 3, x : x + 3] * kernel).sum()) for y in range(30) for x in range(30)}
    low, high = map(int, re.search(r"25 sums from ([+-]\d+) to ([+-]\d+)", out).groups())
    assert low < high
    assert {low, high} <= sums
    assert re.search(r"orientation selectivity of the first layer 0\.\d\d, of random filters 0\.\d\d \(p = ", out)
    assert re.search(
        r"cosine similarity of the first layer with edge filters 0\.\d\d, of random filters 0\.\d\d \(p = ", out
    )
    assert "first layer to last: 8 of 16 x 16 (blocks.0), 16 of 8 x 8 (blocks.1)" in out
    assert re.search(r"of the 9 of \d+ images .* \d\.\d \(blocks\.0\), \d\.\d \(blocks\.1\) have the same label", out)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--index", "200"), 1, "error: --index: expected 0..199, as data/processed has 200 test images; found 200"),
        (("--index", "-1"), 1, "error: --index: expected 0..199"),
        (("--image", "none.png"), 1, "error: none.png: No such file or directory; --image expects an image file"),
        (("--image", "text.png"), 1, "error: text.png: not an image in a supported format"),
        (("--model", "nowhere"), 1, "error: nowhere/model.json: no such file; run dvc repro train"),
        (("--data", "nowhere"), 1, "error: nowhere/metadata.json: no such file; run dvc repro preprocess"),
        (("--index", "0", "--image", "text.png"), 2, "--index and --image exclude one another"),
    ],
)
def test_mistakes_are_one_line_each(arguments, code, message, model, explain, tmp_path):
    """And nothing is written."""
    del model
    (tmp_path / "text.png").write_text("no picture")
    found, out, err = explain(*arguments)
    assert found == code
    assert message in " ".join(err.replace("│", " ").split())
    assert code == 2 or len(err.splitlines()) == 1
    assert out == ""
    assert not (tmp_path / "explain").exists()


def test_a_network_for_other_classes_is_refused(explain, small_params, data, tmp_path):
    """It would name things that are not in the images."""
    names = tuple(f"kind {number}" for number in range(10))
    other = dataset.Metadata(**(vars(data.metadata) | {"classes": names}))
    save(tmp_path / "model", small_params(), other)
    code, _, err = explain()
    assert code == 1
    assert "expected images of the classes that model knows (kind 0, kind 1" in err
    assert "name the right folders: --model, --data" in err
