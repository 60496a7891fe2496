"""studies/NAME.yaml: mistakes in it, and the variants that its grids stand for."""

import pytest

from pipeline.errors import StudyError
from pipeline.studies import spec
from tests.study_plans import edit, made


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
        ({"params": {"train.seed": 1}}, "params.train.seed: reserved, set by seeds"),
        ({"params": {"data.dataset": "cifar10"}}, "params.data.dataset: reserved, set by --data"),
        ({"variants__twin": {"model.cnn.pooling": "max"}}, "variant twin: same parameters as max"),
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
    with pytest.raises(StudyError) as raised:
        made(project, "depth-and-width")
    (line,) = str(raised.value).splitlines()
    assert 'grids.cnn.optimizer.muon.lr: found [0.1, "0-1"], expected values' in line


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


def test_a_study_without_an_analysis_is_an_error_that_names_the_missing_file(project):
    """The module's name has underscores for the hyphens of the study's."""
    edit(project, "pooling")
    (project / "studies/pooling.yaml").rename(project / "studies/global-pooling.yaml")
    with pytest.raises(StudyError) as raised:
        made(project, "global-pooling")
    assert str(raised.value) == (
        "studies/global-pooling.yaml: no analysis, expected one in pipeline/studies/analyses/global_pooling.py"
    )
