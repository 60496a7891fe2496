"""Studies: their files, their plans, what their analyses make of results, and one by the real dvc in a clone."""

import math
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline import params
from pipeline.errors import ResultsError, StudyError
from pipeline.experiments import Repository, Revision
from pipeline.results import Results
from pipeline.studies import counts, existing, plan, spec
from pipeline.studies.analyses import ANALYSES, depth_and_width
from pipeline.studies.analysis import Verdict, decide
from pipeline.studies.collected import Collected
from pipeline.studies.existing import Found
from pipeline.studies.plan import Plan
from pipeline.studies.spec import Condition
from tests.clone import Clone
from tests.conftest import write_params
from tests.made_up_studies import written
from tests.paths import ROOT

STUDIES = spec.names(ROOT)
STUDY = (sys.executable, "-m", "pipeline", "study")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """The files that a plan is made from, to be changed at will; nothing can run in it."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("pipeline", "stages", "studies"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(ROOT / name, folder / name)
    return folder


def edit(root: Path, name: str, **changes) -> None:
    """Write the project's study of this name with values changed: `small__seeds=[0]`; None removes a key."""
    yaml = YAML()
    tree = yaml.load(ROOT / f"studies/{name}.yaml")
    for key, value in changes.items():
        *sections, last = key.split("__")
        section = tree
        for part in sections:
            section = section[int(part) if part.isdigit() else part]
        section.pop(last) if value is None else section.update({last: value})
    yaml.dump(tree, root / f"studies/{name}.yaml")


def made(root: Path, name: str = "pooling", **options) -> Plan:
    return plan.make(root, name, **{"dataset": "shapes10", "scale": "small", **options})


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
        assert params.validate(params.changed(params.read(ROOT / "params.yaml"), one.values), "") == one.settings


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
        ({"grids": {"g": {"train.lr": [0.1]}}}, "variants: found both it and grids, expected one of them"),
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
    edit(project, "depth-and-width", grids__cnn={"train.lr": [0.1, "0-1"]}, small__grids=None)
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
        grids={"cnn": {"train.lr": [0.1, 0.2], "model.cnn.norm": {"bn": "batch", "no": "none"}, "train.epochs": [1]}},
        small__grids={"cnn": {"train.lr": [0.3]}},
    )
    study = spec.find(project, "depth-and-width")
    assert list(study.points("full")) == ["cnn-0-1-bn", "cnn-0-1-no", "cnn-0-2-bn", "cnn-0-2-no"]
    assert study.points("full")["cnn-0-2-no"] == {"train.lr": 0.2, "model.cnn.norm": "none", "train.epochs": 1}
    assert study.points("small") == {
        "cnn-bn": {"train.lr": 0.3, "model.cnn.norm": "batch", "train.epochs": 1},
        "cnn-no": {"train.lr": 0.3, "model.cnn.norm": "none", "train.epochs": 1},
    }


def test_a_name_stands_for_all_that_decides_a_result(project):
    """Other parameters or other code of a stage: another name; what no result depends on changes nothing."""
    edit(project, "pooling")
    first = [one.name for one in made(project).experiments]
    assert [one.name for one in made(project).experiments] == first
    archive = ["data.archive=/some/file", f"data.sha256={'a' * 64}"]
    other = ["data.archive=/other/file", archive[1]]
    assert {*first}.isdisjoint(one.name for one in made(project, given=["train.lr=0.1"]).experiments)
    assert {*first}.isdisjoint(one.name for one in made(project, given=archive).experiments)
    assert made(project, given=archive).experiments[0].name == made(project, given=other).experiments[0].name
    write_params(project / "params.yaml", {"tracking.enabled": False, "model.mlp.dropout": 0.5})
    with (project / "pipeline/cli.py").open("a") as file:
        file.write("# of no stage\n")
    assert [one.name for one in made(project).experiments] == first
    with (project / "pipeline/models/cnn.py").open("a") as file:
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


# Longer than anything a clone needs, whatever else the machine does.
clone_tests = pytest.mark.timeout(1200)
QUICK = ("pooling", "--set=train.epochs=1", "--set=model.cnn.norm=none")


@pytest.fixture(scope="module")
def clone(tmp_path_factory, environment) -> Clone:
    """A repository in which the study `pooling` was ended by Ctrl-C, finished, and called once more."""
    made = Clone(tmp_path_factory.mktemp("clone") / "repository", environment)
    edit(made.folder, "pooling", small__seeds=[0])
    made("git", "rm", "-rq", "docs/studies")
    made("git", "commit", "-qam", "one seed, no pages yet")
    made.preview = made(*STUDY, *QUICK, "--dry-run")
    first = made.begin(*STUDY, *QUICK)
    while not any("Running stage" in log.read_text() for log in (made.folder / ".studies").glob("pooling/*.log")):
        assert first.poll() is None, first.stdout.read()
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGINT)
    made.interrupted, _ = first.communicate(timeout=120)
    made.interrupted_code = first.returncode
    made.finished = made(*STUDY, *QUICK, "--jobs=2")
    made.pages = pages(made)
    made.again = made(*STUDY, *QUICK)
    return made


def pages(clone: Clone) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((clone.folder / "docs/studies").iterdir())}


def experiments(clone: Clone) -> set[str]:
    with Repository(clone.folder) as repository:
        return {found.name for found in repository.experiments()}


def of_clone(clone: Clone, *given: str) -> Plan:
    return made(clone.folder, given=[*(option.removeprefix("--set=") for option in QUICK[1:]), *given])


@clone_tests
def test_ctrl_c_ends_a_study_in_order_and_the_same_command_goes_on(clone):
    """Nothing is left over, a line says what to do, and no experiment runs twice."""
    assert clone.interrupted_code == 130
    assert "interrupted with 0 of 4 experiments finished; the same command goes on" in clone.interrupted
    assert "4 of 4 experiments are to be run" in clone.preview
    assert clone.finished.count("started") == clone.finished.count("complete  test accuracy") == 4
    assert experiments(clone) == {one.name for one in of_clone(clone).experiments}
    assert not list((clone.folder / ".dvc/tmp/exps/standalone").glob("tmp*"))


@clone_tests
def test_a_finished_study_runs_nothing_more_and_writes_the_same_bytes(clone):
    """The page holds what the experiments recorded."""
    assert "4 experiments, 0 of them to be run" in clone.again
    assert "started" not in clone.again
    assert pages(clone) == clone.pages
    assert {*clone.pages} == {"pooling.md", "pooling.png"}
    text = clone.pages["pooling.md"].decode()
    with Repository(clone.folder) as repository:
        for one in of_clone(clone).experiments:
            accuracy = repository.results(repository.resolve(one.name)).metrics["test/accuracy"]
            assert f"| {accuracy * 100:.2f} |" in next(row for row in text.splitlines() if f"| {one.variant} |" in row)
        baseline = repository.resolve("HEAD").sha[:7]
    assert "data: shapes10; 500 training, 100 validation and 1,000 test images" in text
    assert f"commit {baseline}" in text
    assert "--set train.epochs=1 --set model.cnn.norm=none\n" in text
    assert str(clone.folder) not in text


@clone_tests
def test_every_experiment_is_a_child_of_the_studys_run(clone):
    """The parent says what was judged, and how."""
    (parent,) = [run for run in clone.runs() if run.data.tags.get("study") == "pooling"]
    children = [run for run in clone.runs() if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert {run.info.run_name for run in children} == {one.name for one in of_clone(clone).experiments}
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    assert f"**This {parent.data.tags['verdict']}**" in clone.pages["pooling.md"].decode()
    assert parent.data.metrics["macs_ratio"] == pytest.approx(1753728 / 7258752, rel=1e-3)


@clone_tests
def test_any_file_of_an_experiment_can_be_read(clone):
    """Of git, of DVC's cache, and one in a folder that DVC keeps."""
    planned = of_clone(clone)
    with Repository(clone.folder) as repository:
        known = existing.by_name(repository)
        found = {one.name: existing.find(repository, one, known) for one in planned.experiments}
        results = Collected(repository, planned, found, {})
        name = planned.experiments[0].name
        assert results.read(name, "results/history.csv").startswith(b"epoch,")
        assert results.read(name, "results/figures/training.png").startswith(b"\x89PNG")
        assert b"test/accuracy" in results.read(name, "metrics/evaluate.json")
        assert list(results.history(name)["epoch"]) == [1.0]
        with pytest.raises(ResultsError, match=r"nothing\.csv is neither in DVC's cache nor in a remote"):
            results.read(name, "nothing.csv")


@clone_tests
def test_an_experiment_with_other_parameters_is_not_taken(clone):
    """Even if it has the name of the one that is wanted."""
    planned, other = of_clone(clone).experiments[0], of_clone(clone, "train.lr=0.02").experiments[0]
    with Repository(clone.folder) as repository:
        known = existing.by_name(repository)
        assert existing.find(repository, planned, known).revision.name == planned.name
        assert existing.find(repository, other, known) is None
        assert existing.find(repository, other, {other.name: known[planned.name]}) is None


@clone_tests
def test_a_training_that_diverges_is_a_result_and_not_run_again(clone):
    """Only what is missing runs; nothing can be said of the accuracy, and the page says why."""
    wild = {"train.optimizer": "sgd", "train.lr": 1000, "train.warmup": 0.0}
    edit(clone.folder, "pooling", small__seeds=[0], small__variants={"none": wild})
    said = clone(*STUDY, *QUICK)
    assert "4 experiments, 1 of them to be run" in said
    assert said.count("  diverged  training stopped at epoch 1") == 1
    text = (clone.folder / "docs/studies/pooling.md").read_text()
    assert "**This cannot be decided**" in text
    assert text.count("diverged: training stopped at epoch 1, step") == 1
    assert "0 (1 diverged)" in next(row for row in text.splitlines() if row.startswith("| none | 7,258,752"))
    assert "4 experiments, 0 of them to be run" in clone(*STUDY, *QUICK)
    assert "diverged" in clone(*STUDY, *QUICK, "--dry-run")
    assert not list((clone.folder / ".checkpoints").glob("*/*"))


@clone_tests
def test_an_experiment_that_fails_is_told_in_one_line_and_no_page_is_written(clone):
    """It is tried again the next time: whatever it was may have been mended."""
    edit(clone.folder, "pooling", small__seeds=[0], small__variants={"stride": {"train.device": "cuda:99"}})
    before = pages(clone)
    for _ in range(2):
        said = clone(*STUDY, *QUICK, code=1)
        assert "4 experiments, 1 of them to be run" in said
        assert said.splitlines()[-1].startswith("error: 1 of 4 experiments failed, pooling-stride-s0-")
        assert "train.device: found cuda:99, but this machine has" in said.splitlines()[-1]
    assert pages(clone) == before
