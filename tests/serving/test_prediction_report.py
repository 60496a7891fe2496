"""`python -m pipeline predict` as people and programs see it: results on stdout, all else on stderr."""

import csv
import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import PredictionError
from pipeline.serving import prediction_report
from tests.paths import ROOT
from tests.serving.test_prediction import SIDE, graph, solid

DEFAULTS = {"form": "table", "top": None, "resample": "lanczos", "stretch": False, "batch_size": 64}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The current folder, with three images of one colour each and a network that names it."""
    monkeypatch.chdir(tmp_path)
    graph(tmp_path / "means.onnx", scale=0.01)
    (tmp_path / "photos").mkdir()
    solid(tmp_path / "photos", "red", "green", "blue")
    return tmp_path


@pytest.fixture
def report(folder, capsys):
    """A function that predicts in this process: how many were unreadable, stdout, stderr."""

    def call(*arguments, **options):
        unreadable = prediction_report.run(arguments, "means.onnx", folder, **(DEFAULTS | options))
        return unreadable, *capsys.readouterr()

    return call


def command(*arguments) -> list[str]:
    return [sys.executable, "-m", "pipeline", "predict", *arguments]


@pytest.fixture
def run(folder, environment):
    """A function that runs the command as a user does."""

    def call(*arguments, code=0, **options):
        options = {"capture_output": True} | options
        surroundings = environment | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command(*arguments), cwd=folder, env=surroundings, check=False, **options)
        assert done.returncode == code, done.stderr
        return done

    return call


def test_json_is_one_object_a_line_in_full_precision(report):
    """The same keys for any number of classes."""
    unreadable, out, err = report("photos", form="json", top=2)
    lines = [json.loads(line) for line in out.splitlines()]
    assert (unreadable, err) == (0, "")
    assert [line["image"] for line in lines] == ["photos/000.png", "photos/001.png", "photos/002.png"]
    assert [line["predictions"][0]["class"] for line in lines] == ["red", "green", "blue"]
    for line in lines:
        assert set(line) == {"image", "predictions"}
        (best, second) = line["predictions"]
        assert set(best) == set(second) == {"class", "probability"}
        assert best["probability"] == pytest.approx(np.exp(2.55) / (np.exp(2.55) + 2), abs=1e-6)
        assert best["probability"] + 2 * second["probability"] == pytest.approx(1, abs=1e-6)


def test_csv_has_the_same_columns_for_any_number_of_classes(report):
    """One row a class, in full precision."""
    for top in (1, 3):
        _, out, err = report("photos", form="csv", top=top)
        rows = list(csv.DictReader(io.StringIO(out)))
        assert err == ""
        assert list(rows[0]) == ["image", "rank", "class", "probability"]
        assert [row["rank"] for row in rows] == [str(rank + 1) for rank in range(top)] * 3
        assert [row["class"] for row in rows[::top]] == ["red", "green", "blue"]
        assert len(rows[0]["probability"]) > 10
    assert sum(float(row["probability"]) for row in rows) == pytest.approx(3, abs=1e-6)


def test_a_table_is_for_people_and_comes_in_parts_that_fit_together(report):
    """One header, aligned columns whatever the batch; three classes, or fewer where asked."""
    whole = report("photos", batch_size=64)
    assert report("photos", batch_size=1) == whole
    unreadable, out, err = whole
    header, rule, *rows = out.splitlines()
    assert (unreadable, err) == (0, "")
    assert header.split() == ["image", "class", "probability", "others"]
    assert set(rule) <= set("─ ")
    assert len({len(line) for line in (header, rule, *rows)}) == 1
    best, rest = rows[0].split("%", 1)
    assert best.split()[:2] == ["photos/000.png", "red"]
    assert "green" in rest
    assert "blue" in rest
    assert "green" not in report("photos/000.png", top=1)[1]


def test_names_of_any_bytes_survive(report, folder):
    """Line ends, escape sequences, markup and bytes that are not UTF-8."""
    names = ["two\nlines.png", "\x1b[31mred.png", "[bold]x.png", os.fsdecode(b"\xff.png"), "größe.png"]
    for name in names:
        Image.new("RGB", (SIDE, SIDE)).save(folder / name)
    _, out, _ = report(*names, form="json")
    assert [json.loads(line)["image"] for line in out.splitlines()] == names
    _, out, _ = report(*names)
    rows = out.splitlines()[2:]
    shown = ["two\\nlines.png", "\\x1b[31mred.png", "[bold]x.png", "\\udcff.png", "größe.png"]
    assert [row.split()[0] for row in rows] == shown


def test_csv_keeps_names_that_are_not_utf8(run, folder):
    """Byte for byte as they are in the folder."""
    name = b"\xff.png"
    Image.new("RGB", (SIDE, SIDE), "red").save(folder / os.fsdecode(name))
    done = run(name, "--csv", "--top=1", "--model=means.onnx")
    assert done.stdout.splitlines()[1].startswith(name + b",1,red,")


def test_what_can_not_be_read_is_reported_and_the_others_are_printed(run, folder):
    """Exit code 1, a line each on stderr, and stdout as if they weren't there."""
    good = run("photos", "--json", "--model=means.onnx").stdout
    (folder / "photos/0005.png").write_text("no picture")
    (folder / "photos/000x.png").write_bytes((folder / "photos/000.png").read_bytes()[:40])
    (folder / "empty").mkdir()
    done = run("photos", "gone.png", "empty", "--json", "--model=means.onnx", code=1)
    assert done.stdout == good
    lines = done.stderr.decode().splitlines()
    assert [line.split(":")[1].strip() for line in lines] == [
        "photos/0005.png",
        "photos/000x.png",
        "gone.png",
        "empty",
    ]
    assert all(line.startswith("error: ") for line in lines)


def test_standard_input_is_an_image(run, folder):
    """Beside others, in its place."""
    with (folder / "photos/002.png").open("rb") as file:
        done = run("photos/000.png", "-", "--json", "--model=means.onnx", stdin=file)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["image"], line["predictions"][0]["class"]) for line in lines] == [
        ("photos/000.png", "red"),
        ("-", "blue"),
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("photos", "--model=other.onnx"), 1, "error: other.onnx: no such file; dvc repro creates"),
        (("photos",), 1, "error: export/model.onnx: no such file; dvc repro creates export/model.onnx"),
        (("photos", "--model=models:/cifar10-cnn/1"), 1, "error: models:/cifar10-cnn/1: there is no MLflow store"),
        (
            ("photos", "--model=means.onnx", "--top=4"),
            1,
            "error: --top: found 4, expected 1..3, as means.onnx has",
        ),
        (("photos", "--json", "--csv"), 2, "--json and --csv exclude one another"),
        (("photos", "--filter=sharp"), 2, "'sharp' is not one of 'lanczos', 'bicubic', 'bilinear', 'box', 'nearest'"),
        (("photos", "--top=0"), 2, "Invalid value for '--top'"),
    ],
)
def test_mistakes_are_explained_on_stderr(arguments, code, message, run):
    """And nothing is on stdout."""
    done = run(*arguments, code=code)
    text = " ".join(done.stderr.decode().replace("│", " ").split())
    assert message in text
    assert done.stdout == b""
    assert code == 2 or len(done.stderr.splitlines()) == 1


def test_more_classes_than_there_are_is_refused_and_fewer_is_no_default(folder, capsys):
    """By default three, or all of a network that has fewer."""
    graph(folder / "grey.onnx", shape=("batch", SIDE, SIDE, 1), classes="thing")
    assert prediction_report.run(["photos"], "grey.onnx", folder, **(DEFAULTS | {"form": "csv"})) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    with pytest.raises(PredictionError, match=r"--top: found 2, expected 1..1"):
        prediction_report.run(["photos"], "grey.onnx", folder, **(DEFAULTS | {"top": 2}))


@pytest.mark.parametrize("in_terminal", [False, True], ids=["results in a file", "results in the same terminal"])
def test_a_bar_is_drawn_in_a_terminal_and_only_there(in_terminal, folder, environment):
    """On stderr; what is on stdout is the same with and without it."""
    ours, theirs = pty.openpty()
    surroundings = environment | {"PYTHONPATH": str(ROOT), "TERM": "xterm"}
    arguments = command("photos", "--json", "--model=means.onnx", "--batch-size=1")
    plain = subprocess.run(arguments, cwd=folder, env=surroundings, capture_output=True, check=True)
    assert plain.stderr == b""
    with (folder / "out").open("wb") as file:
        process = subprocess.Popen(
            arguments, cwd=folder, env=surroundings, stdout=theirs if in_terminal else file, stderr=theirs
        )
    os.close(theirs)
    terminal = b""
    try:
        while part := os.read(ours, 65536):
            terminal += part
    except OSError:  # how a terminal that nobody writes to any more ends
        pass
    os.close(ours)
    assert process.wait() == 0
    assert b"3/3" in terminal
    if in_terminal:
        lines = terminal.decode().splitlines()
        for line in plain.stdout.decode().splitlines():
            assert any(line in shown for shown in lines)
    else:
        assert (folder / "out").read_bytes() == plain.stdout


def test_a_reader_that_has_seen_enough_ends_it_quietly(folder, environment):
    """As in `predict ... | head -1`."""
    for number in range(300):
        Image.new("RGB", (SIDE, SIDE)).save(folder / f"photos/{'x' * 200}{number}.png")
    process = subprocess.Popen(
        command("photos", "--json", "--batch-size=1", "--model=means.onnx"),
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline().startswith(b'{"image": "photos/000.png"')
    process.stdout.close()
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()
    assert process.wait() == 1
