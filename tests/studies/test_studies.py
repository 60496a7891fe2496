"""Studies before and after they run: their files, their plans, and what their analyses make of results."""

import math
import shutil
from pathlib import Path

import pytest

from pipeline.config import loading
from pipeline.errors import StudyError
from pipeline.experiments.repository import Revision
from pipeline.experiments.results import Results
from pipeline.studies import counts, spec
from pipeline.studies.analyses import ANALYSES, depth_and_width
from pipeline.studies.analysis import Verdict, decide
from pipeline.studies.collected import Collected
from pipeline.studies.existing import Found
from pipeline.studies.plan import Plan
from pipeline.studies.spec import Condition
from tests.conftest import write_params
from tests.made_up_studies import written
from tests.paths import ROOT
from tests.study_plans import edit, made

STUDIES = spec.names(ROOT)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """The files that a plan is made from, to be changed at will; nothing can run in it."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("pipeline", "stages", "studies"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(ROOT / name, folder / name)
    return folder


def collected(planned: Plan, accuracy: dict[str, list[float]]) -> Collected:
    """Return results with these test accuracies by variant, in the order of seeds; NaN: the training diverged."""
    found, diverged = {}, {}
    for one in planned.experiments:
        seed = planned.setting.seeds.index(one.seed)
        value = accuracy[one.variant][seed]
        metrics = {"test/accuracy": value, "train/accuracy": value, "train/loop_seconds": 6.0, "train/epochs": 3}
        if math.isnan(value):
            diverged[one.name] = "the loss is nan"
        else:
            record = Results({}, metrics | {"data/name": "made up", "data/test_images": 1000}, {}, {}, "", {})
            found[one.name] = Found(Revision(one.name, "a" * 40, one.name, "b" * 40), record)
    return Collected(None, planned, found, diverged)


@pytest.mark.parametrize("scale", ["small", "full"])
@pytest.mark.parametrize("dataset", ["cifar10", "shapes10"])
@pytest.mark.parametrize("name", STUDIES)
def test_every_study_has_a_plan_in_both_settings_on_both_datasets(name, dataset, scale):
    """All parameters are valid, no two experiments share a name, and every seed has every variant."""
    planned = made(ROOT, name, dataset=dataset, scale=scale)
    names = [one.name for one in planned.experiments]
    assert len(set(names)) == len(names) == len(planned.variants) * len(planned.setting.seeds)
    assert {one.settings.data.dataset for one in planned.experiments} == {dataset}
    for one in planned.experiments:
        assert one.name.startswith(f"{name}-{one.variant}-s{one.seed}-")
        assert one.settings.train.seed == one.seed == one.values["train.seed"]
        assert loading.validate(loading.changed(loading.read(ROOT / "params.yaml"), one.values), "") == one.settings


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"claim": None}, "claim: missing"),
        ({"clam": "x"}, "clam: unknown key; did you mean claim?"),
        ({"rule__0__at_lest": 1.0}, "rule[0].at_lest: unknown key; did you mean at_least?"),
        ({"small__sedes": [0]}, "small.sedes: unknown key; did you mean seeds?"),
        ({"small__seeds": []}, "small.seeds: found [], expected tuple should have at least 1 item"),
        ({"small__seeds": [0, 0]}, "small.seeds: found [0, 0], expected each seed once"),
        ({"variants__Max": {}}, "variants.Max: found \"Max\", expected string should match pattern"),
        ({"variants__max": {"model.cnn.poling": "max"}}, "variants.max.model.cnn.poling: unknown parameter; did"),
        ({"variants__max": {"model.cnn.pooling": "maxx"}}, "variants.max.model.cnn.pooling: found \"maxx\", expected"),
        ({"full__params": {"train.epochs": 0}}, "full.params.train.epochs: found 0, expected greater than"),
        ({"params": {"train.seed": 1}}, "params.train.seed: expected another parameter: seeds has them"),
        ({"params": {"data.dataset": "cifar10"}}, "params.data.dataset: expected another parameter: --data"),
        ({"variants__twin": {"model.cnn.pooling": "max"}}, "variant twin: found the very parameters of max"),
        ({"small__variants": {"mux": {}}}, "small.variants.mux: expected a name that variants has: max, average"),
        ({"grids": {"g": {"optimizer.muon.lr": [0.1]}}}, "variants: found both it and grids, expected one of them"),
        ({"variants": None}, "variants: found neither it nor grids, expected one of them"),
        ({"rule__0__quantity": "speed"}, "rule[0].quantity: found speed, expected one of macs_ratio"),
        ({"rule__0__at_least": 1.0}, "rule[0]: found"),
        ({"small__params": {"model.cnn.convs_per_block": [1, 2]}}, "every variant: model.cnn.convs_per_block: found"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_study_is_one_line_with_file_and_key(project, changes, line):
    """Before anything runs."""
    edit(project, "pooling", **changes)
    with pytest.raises(StudyError) as raised:
        made(project)
    (found,) = str(raised.value).splitlines()
    assert found.startswith(f"studies/pooling.yaml: {line}")


def test_a_grid_needs_values_that_can_be_told_apart(project):
    """Their labels are parts of names."""
    edit(project, "depth-and-width", grids__cnn={"optimizer.muon.lr": [0.1, "0-1"]}, small__grids=None)
    with pytest.raises(StudyError, match=r"grids\.cnn\.train\.lr: found \[0\.1, \"0-1\"\], expected values"):
        made(project, "depth-and-width")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("train.epoch=1", "--set: train.epoch: unknown parameter; did you mean train.epochs?"),
        ("train.epochs", "--set: found train.epochs, expected KEY=VALUE, e.g. train.epochs=2"),
        ("train.epochs=[", "--set: train.epochs: found [, which is not YAML"),
        ("train.epochs=0", "--set: train.epochs: found 0, expected greater than or equal to 1"),
        ("model.cnn.pooling=max", "--set: model.cnn.pooling: expected another parameter"),
    ],
)
def test_a_mistake_in_what_is_set_is_one_line(given, line):
    """It names the option, not the study's file."""
    with pytest.raises(StudyError) as raised:
        made(ROOT, given=[given])
    assert str(raised.value).startswith(line)
    assert len(str(raised.value).splitlines()) == 1
    with pytest.raises(StudyError, match=f"study: found pool, expected one of {', '.join(STUDIES)}"):
        made(ROOT, "pool")


def test_a_grid_is_all_combinations_and_names_only_what_varies(project):
    """A list's values are their own labels; a setting replaces the values of one parameter."""
    edit(
        project,
        "depth-and-width",
        grids={
            "cnn": {
                "optimizer.muon.lr": [0.1, 0.2],
                "model.cnn.norm": {"bn": "batch", "no": "none"},
                "train.epochs": [1],
            }
        },
        small__grids={"cnn": {"optimizer.muon.lr": [0.3]}},
    )
    study = spec.find(project, "depth-and-width")
    assert list(study.points("full")) == ["cnn-0-1-bn", "cnn-0-1-no", "cnn-0-2-bn", "cnn-0-2-no"]
    assert study.points("full")["cnn-0-2-no"] == {
        "optimizer.muon.lr": 0.2,
        "model.cnn.norm": "none",
        "train.epochs": 1,
    }
    assert study.points("small") == {
        "cnn-bn": {"optimizer.muon.lr": 0.3, "model.cnn.norm": "batch", "train.epochs": 1},
        "cnn-no": {"optimizer.muon.lr": 0.3, "model.cnn.norm": "none", "train.epochs": 1},
    }


def test_a_name_stands_for_all_that_decides_a_result(project):
    """Other parameters or other code of a stage: another name; what no result depends on changes nothing."""
    edit(project, "pooling")
    first = [one.name for one in made(project).experiments]
    assert [one.name for one in made(project).experiments] == first
    archive = ["data.archive=/some/file", f"data.sha256={'a' * 64}"]
    other = ["data.archive=/other/file", archive[1]]
    assert {*first}.isdisjoint(one.name for one in made(project, given=["optimizer.muon.lr=0.1"]).experiments)
    assert {*first}.isdisjoint(one.name for one in made(project, given=archive).experiments)
    assert made(project, given=archive).experiments[0].name == made(project, given=other).experiments[0].name
    write_params(project / "params.yaml", {"tracking.enabled": False, "model.mlp.dropout": 0.5})
    with (project / "pipeline/cli/__init__.py").open("a") as file:
        file.write("# of no stage\n")
    assert [one.name for one in made(project).experiments] == first
    with (project / "pipeline/models/cnn/network.py").open("a") as file:
        file.write("# of train\n")
    assert {*first}.isdisjoint(one.name for one in made(project).experiments)


def test_a_page_never_tells_where_an_archive_lies():
    """Its command has placeholders, and else what was given."""
    given = ["data.archive=/some/file", f"data.sha256={'a' * 64}", "model.cnn.hidden=[8]"]
    planned = made(ROOT, given=given, scale="full", dataset="cifar10")
    assert planned.command == (
        "python -m pipeline study pooling --data cifar10 --full --set data.archive=FILE --set data.sha256=HASH "
        "--set 'model.cnn.hidden=[8]'"
    )
    assert not {"data.archive", "data.sha256"} & {*planned.shared}


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


def test_the_rule_gives_each_verdict():
    """All conditions; some; none that is essential; or a number is not known that would decide."""
    rule = [
        Condition(text="more", quantity="a", at_least=1.0),
        Condition(text="less", quantity="b", at_most=0.0),
        Condition(text="cheap", quantity="c", at_most=5.0, essential=False),
    ]
    for values, verdict in (
        ((1.0, 0.0, 5.0), Verdict.HOLDS),
        ((1.0, 0.0, 5.1), Verdict.IN_PART),
        ((0.9, 0.0, 5.0), Verdict.IN_PART),
        ((0.9, 0.1, 5.0), Verdict.NOT_HERE),
        ((1.0, math.nan, 5.0), Verdict.UNDECIDED),
        ((0.9, math.nan, 5.0), Verdict.UNDECIDED),
        ((1.0, math.nan, 5.1), Verdict.IN_PART),  # whatever the number is
    ):
        assert decide(rule, dict(zip("abc", values, strict=True))) is verdict, values


MADE_UP = [
    ("pooling", {"max": 0.7, "average": 0.69, "stride": 0.6, "none": 0.7}, "holds"),
    ("pooling", {"max": 0.7, "average": 0.6, "stride": 0.6, "none": 0.7}, "holds in part"),
    ("pooling", {"max": 0.7, "average": 0.6, "stride": 0.6, "none": math.nan}, "cannot be decided"),
    ("conv-or-dense", {"cnn": 0.7, "mlp-same-weights": 0.4, "mlp-same-macs": 0.5}, "holds"),
    ("conv-or-dense", {"cnn": 0.5, "mlp-same-weights": 0.4, "mlp-same-macs": 0.5}, "holds in part"),
]


@pytest.mark.parametrize(("name", "accuracy", "verdict"), MADE_UP)
def test_a_study_judges_made_up_results_as_its_rule_says(tmp_path, name, accuracy, verdict):
    """The page has verdict, numbers and figures, and the same bytes when it is written again."""
    planned = made(ROOT, name)
    results = collected(planned, {variant: [value] * 2 for variant, value in accuracy.items()})
    assert ANALYSES[name].analyse(results).quantities.keys() == ANALYSES[name].quantities.keys()
    page = written(tmp_path, results)
    assert page.verdict == verdict
    text = page.path.read_text()
    assert f"**This {verdict}**, as measured on made up in the setting `small`." in text
    assert ("1 diverged" in text or "2 diverged" in text) == any(map(math.isnan, accuracy.values()))


def test_gains_of_depth_and_width_are_means_over_the_other():
    """Accuracies that are a plane over depth and width, so that both gains are known."""
    planned = made(ROOT, "depth-and-width")
    points = {"d1": 0.0, "d2": 0.04, "d8": 0.0, "d14": -0.02, "w8": 0.0, "w16": 0.1, "w4": -0.06}
    accuracy = {name: [0.5 + sum(points[word] for word in name.split("-")[1:])] for name in planned.variants}
    findings = depth_and_width.ANALYSIS.analyse(collected(planned, accuracy))
    assert findings.quantities == pytest.approx(
        {"cnn_depth": 4, "cnn_width": 10, "resnet_depth": -2, "resnet_width": 6}
    )
    assert decide(planned.study.rule, findings.quantities) is Verdict.IN_PART
    marked = {row[0].split()[0] for row in findings.tables[0].rows if "◆" in row[0]}
    # The smallest CNN computes less than the smallest ResNet and is better, and so are all others.
    assert marked == {"cnn-w8-d1", "cnn-w8-d2", "cnn-w16-d1", "cnn-w16-d2"}
    accuracy["resnet-w8-d14"] = [math.nan]
    findings = depth_and_width.ANALYSIS.analyse(collected(planned, accuracy))
    assert math.isnan(findings.quantities["resnet_depth"])
    assert findings.quantities["cnn_depth"] == pytest.approx(4)
    assert decide(planned.study.rule, findings.quantities) is Verdict.UNDECIDED
    flat = {variant: [0.5] for variant in planned.variants}
    findings = depth_and_width.ANALYSIS.analyse(collected(planned, flat))
    assert decide(planned.study.rule, findings.quantities) is Verdict.NOT_HERE
