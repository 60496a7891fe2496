"""Plans of studies: their experiments, parameters and names."""

import pytest

from pipeline.config import loading
from pipeline.errors import StudyError
from pipeline.studies import spec
from tests.conftest import write_params
from tests.paths import ROOT
from tests.study_plans import edit, made

STUDIES = spec.names(ROOT)


@pytest.mark.parametrize("scale", ["small", "full"])
@pytest.mark.parametrize("dataset", ["cifar10", "shapes10"])
@pytest.mark.parametrize("name", STUDIES)
def test_every_study_has_a_plan_in_both_settings_on_both_datasets(name, dataset, scale):
    """All parameters are valid, no two experiments share a name, and every seed has every variant."""
    planned = made(ROOT, name, dataset=dataset, scale=scale)
    names = [one.name for one in planned.experiments]
    assert len(set(names)) == len(names) == len(planned.variants) * len(planned.setting.seeds)
    assert {one.settings.data.dataset for one in planned.experiments} == {dataset}
    base = loading.read(ROOT / "params.yaml")
    for one in planned.experiments:
        assert one.name.startswith(f"{name}-{one.variant}-s{one.seed}-")
        assert one.settings.train.seed == one.seed == one.values["train.seed"]
        assert loading.validate(loading.changed(base, one.values), "") == one.settings


@pytest.mark.parametrize(
    ("assignment", "line"),
    [
        ("train.epoch=1", "--set: train.epoch: unknown parameter; did you mean train.epochs?"),
        ("train.epochs", "--set: found train.epochs, expected KEY=VALUE, e.g. train.epochs=2"),
        ("train.epochs=[", "--set: train.epochs: found [, which is not YAML"),
        ("train.epochs=0", "--set: train.epochs: found 0, expected greater than or equal to 1"),
        ("model.cnn.pooling=max", "--set: model.cnn.pooling: varied by the study, expected a parameter"),
    ],
)
def test_a_mistake_in_what_is_set_is_one_line(assignment, line):
    """The line names the option, not the study's file."""
    with pytest.raises(StudyError) as raised:
        made(ROOT, overrides=[assignment])
    assert str(raised.value).startswith(line)
    assert len(str(raised.value).splitlines()) == 1
    with pytest.raises(StudyError, match=f"study: found pool, expected one of {', '.join(STUDIES)}"):
        made(ROOT, "pool")


def test_a_name_stands_for_all_that_decides_a_result(project):
    """Other parameters or other code of a stage: another name; what no result depends on changes nothing."""
    edit(project, "pooling")
    first = [one.name for one in made(project).experiments]
    assert [one.name for one in made(project).experiments] == first
    archive = ["data.archive=/some/file", f"data.sha256={'a' * 64}"]
    other = ["data.archive=/other/file", archive[1]]
    assert {*first}.isdisjoint(one.name for one in made(project, overrides=["optimizer.muon.lr=0.1"]).experiments)
    assert {*first}.isdisjoint(one.name for one in made(project, overrides=archive).experiments)
    assert made(project, overrides=archive).experiments[0].name == made(project, overrides=other).experiments[0].name
    write_params(project / "params.yaml", {"tracking.enabled": False, "model.mlp.dropout": 0.5})
    with (project / "pipeline/cli/__init__.py").open("a") as file:
        file.write("# of no stage\n")
    assert [one.name for one in made(project).experiments] == first
    with (project / "pipeline/models/cnn/network.py").open("a") as file:
        file.write("# of train\n")
    assert {*first}.isdisjoint(one.name for one in made(project).experiments)


def test_a_page_never_shows_the_path_of_an_archive():
    """Its command has placeholders, and else what was given."""
    overrides = ["data.archive=/some/file", f"data.sha256={'a' * 64}", "model.cnn.hidden=[8]"]
    planned = made(ROOT, overrides=overrides, scale="full", dataset="cifar10")
    assert planned.command == (
        "python -m pipeline study pooling --data cifar10 --full --set data.archive=FILE --set data.sha256=HASH "
        "--set 'model.cnn.hidden=[8]'"
    )
    assert not {"data.archive", "data.sha256"} & {*planned.shared}
