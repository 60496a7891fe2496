"""What `compare` says of results that are made to measure: rows, seeds, baselines, and that it reads git alone."""

import re
import subprocess
import sys

import numpy as np
import pytest

from pipeline.errors import PipelineError, ResultsError
from pipeline.experiments import comparison, report, tables
from pipeline.experiments.repository import Repository
from tests.forge import CLASSES, Forge
from tests.paths import ROOT

MARGIN = 0.003


def compared(
    forge: Forge, *names: str, baseline: str = "HEAD", sort: str = "val/accuracy", margin: float = MARGIN
) -> comparison.Comparison:
    with Repository(forge.folder) as repository:
        chosen = [repository.resolve(name) for name in names] or repository.experiments()
        return comparison.compare(repository, chosen, baseline=repository.resolve(baseline), sort=sort, margin=margin)


@pytest.fixture
def forge(tmp_path) -> Forge:
    """A baseline commit with 100 of 1,000 images wrong, and three experiments."""
    made = Forge(tmp_path / "repository")
    made.commit(predicted=made.right(range(100)))
    made.experiment("better", predicted=made.right(range(40, 80)), params={"model.cnn.activation": "gelu"})
    made.experiment("same", predicted=made.right(range(5, 105)), params={"model.cnn.activation": "relu"})
    made.experiment("worse", predicted=made.right(range(300)), params={"model.arch": "mlp"}, **{"model/macs": 10})
    return made


def test_rows_are_sorted_and_the_best_and_the_pareto_front_are_marked(forge):
    """By val accuracy; the cheapest is on the front however bad it is."""
    found = compared(forge, "better", "same", "worse", "HEAD")
    assert [row.name for row in found.rows] == ["better", "same", "HEAD", "worse"]
    assert [row.best for row in found.rows] == [True, False, False, False]
    assert [row.on_front for row in found.rows] == [True, False, False, True]
    assert compared(forge, sort="model/macs").rows[0].name == "worse"


def test_a_parameter_without_effect_makes_no_row_and_one_with_effect_does(forge):
    """Diagnostics leave the weights as they are; fewer images do not, and the difference is shown."""
    all_of_them = {"data.train_share": 1.0, "train.diagnostics": False}
    watched = {"data.train_share": 1.0, "train.diagnostics": True, "train.seed": 1}
    forge.experiment("all-0", predicted=forge.right(range(90)), params=all_of_them)
    forge.experiment("all-1", predicted=forge.right(range(95)), params=watched)
    forge.experiment("less", predicted=forge.right(range(200)), params=watched | {"data.train_share": 0.1})
    found = compared(forge, "all-0", "all-1", "less", baseline="all-0")
    assert [(row.name, [member.seed for member in row.members]) for row in found.rows] == [
        ("all", [0, 1]),
        ("less", [1]),
    ]
    assert found.differing == ("data.train_share",)


def test_each_is_held_against_the_baseline_on_the_same_images(forge):
    """Counts by construction: 60 won and none lost; 5 and 5; none and 200."""
    found = compared(forge)
    contests = {contest.row.name: contest for contest in found.contests}
    assert {name: (c.won, c.lost) for name, c in contests.items()} == {
        "better": (60, 0),
        "same": (5, 5),
        "worse": (0, 200),
    }
    assert {name: c.verdict for name, c in contests.items()} == {
        "better": "network better",
        "same": "undecided",
        "worse": "network worse",
    }
    assert contests["better"].difference.value == pytest.approx(0.06)
    assert contests["worse"].recall == pytest.approx(dict.fromkeys(CLASSES, -0.2))
    raw = [contest.difference.p_value for contest in found.contests]
    assert contests["same"].adjusted == 1
    assert min(raw) * 3 == pytest.approx(min(contest.adjusted for contest in found.contests))


def test_only_parameters_that_differ_are_columns(forge):
    """A section that one architecture lacks makes no column."""
    assert set(compared(forge).differing) == {"model.cnn.activation", "model.arch"}
    assert compared(forge, "better", "same", baseline="same").differing == ("model.cnn.activation",)


def test_seeds_make_one_row_and_are_tested_by_their_means(tmp_path):
    """Three against three: the configurations; three against one: the two networks of the same seed."""
    forge = Forge(tmp_path / "seeds")
    for seed in range(3):
        forge.experiment(f"relu-{seed}", predicted=forge.right(range(100 + seed)), params={"train.seed": seed})
        params = {"train.seed": seed, "model.arch": "mlp"}
        forge.experiment(f"mlp-{seed}", predicted=forge.right(range(300 + 4 * seed)), params=params)
    forge.experiment("lone", predicted=forge.right(range(90)), params={"train.seed": 2, "model.arch": "resnet"})
    found = compared(forge, baseline="relu-0")
    assert [(row.name, len(row.members)) for row in found.rows] == [("lone", 1), ("relu", 3), ("mlp", 3)]
    assert found.rows[1].mean("test/accuracy") == pytest.approx(0.899)
    assert found.rows[1].spread("test/accuracy") == pytest.approx(0.001)
    contests = {contest.row.name: contest for contest in found.contests}
    assert (contests["mlp"].verdict, contests["mlp"].basis) == ("worse", "3 against 3 seeds")
    assert contests["mlp"].difference.value == pytest.approx(-0.203)
    assert (contests["lone"].verdict, contests["lone"].basis) == ("network better", "seed 2")
    assert contests["lone"].difference.value == pytest.approx(0.012)
    text = tables.to_markdown(found)
    assert "89.90 ± 0.10" in text
    assert "n = 1: no estimate of the variation between seeds" in text


@pytest.fixture
def seeds(tmp_path) -> Forge:
    """Three seeds each of a baseline, an equal, a slightly better and a clearly better configuration."""
    made = Forge(tmp_path / "repository", images=10_000)
    rng = np.random.default_rng(0)
    hard = rng.permutation(10_000)[:2000]
    for name, wrong, params in (
        ("base", 1000, {}),
        ("equal", 1000, {"model.arch": "resnet"}),
        ("slight", 980, {"model.arch": "vit"}),
        ("clear", 700, {"model.arch": "mlp"}),
    ):
        for seed in range(3):
            predicted = made.labels.copy()
            chosen = rng.permutation(hard)[: wrong + rng.integers(-5, 5)]
            predicted[chosen] = (predicted[chosen] + 1) % 10
            made.experiment(f"{name}-{seed}", predicted=predicted, params={"train.seed": seed, **params})
    return made


def test_a_verdict_is_better_worse_equivalent_or_undecided_and_says_what_would_settle_it(seeds):
    """By the interval, the margin and Holm's p; a settled one needs no more seeds."""
    found = compared(seeds, baseline="base-0")
    contests = {contest.row.name: contest for contest in found.contests}
    assert {name: contest.verdict for name, contest in contests.items()} == {
        "equal": "undecided",
        "slight": "undecided",
        "clear": "better",
    }
    assert contests["clear"].plan == ""
    assert re.fullmatch(r"\d+ seeds on each side: \d+ more, about \d+ (s|min|h)", contests["equal"].plan)
    wide = compared(seeds, baseline="base-0", margin=0.02)
    verdicts = {contest.row.name: (contest.verdict, contest.plan) for contest in wide.contests}
    assert verdicts["equal"] == verdicts["slight"] == ("equivalent", "")
    text = tables.to_markdown(found)
    assert "equivalent: the interval lies within ± 0.3 points (compare.margin)" in text


def test_the_forest_plot_of_the_terminal_is_to_scale(seeds):
    """Zero, the value and the ends of the interval stand where the axis has them."""
    found = compared(seeds, baseline="base-0")
    table = tables.tables(found, plot=True)[1]
    (column,) = (number for number, name in enumerate(table.head) if name.startswith(("+", "-")))
    low, high = (float(text) for text in table.head[column].split())
    for row, contest in zip(table.rows, found.contests, strict=True):
        line = row[column]
        for sign, value in (("●", contest.difference.value), ("┼│", 0.0)):
            at = [number for number, character in enumerate(line) if character in sign]
            expected = (100 * value - low) / (high - low) * (len(line) - 1)
            assert at == [] or at[0] == pytest.approx(expected, abs=1)
        assert line.count("●") == 1


def test_how_inspect_looked_at_a_network_makes_no_other_kind(tmp_path):
    """Seeds from before that stage are in one row with those after it, and its settings are no column."""
    forge = Forge(tmp_path / "repository")
    forge.commit(predicted=forge.right())
    for seed, settings in enumerate(({}, {"inspect.images": 1000}, {"inspect.images": 500})):
        forge.experiment(f"a-{seed}", predicted=forge.right(range(seed)), params={"train.seed": seed + 1, **settings})
    found = compared(forge, "a-0", "a-1", "a-2", baseline="a-0")
    assert [len(row.members) for row in found.rows] == [3]
    assert found.differing == ()


def test_one_result_under_several_names_counts_once(tmp_path):
    """The experiment keeps its name when its result is committed; two of a seed that differ stay two rows."""
    forge = Forge(tmp_path / "names")
    forge.experiment("tanh", predicted=forge.right(range(50)))
    forge.experiment("again", predicted=forge.right(range(50)))
    forge.experiment("other-code", predicted=forge.right(range(60)))
    forge.commit(predicted=forge.right(range(50)))
    found = compared(forge)
    assert [len(row.members) for row in found.rows] == [1, 1]
    assert found.baseline is found.rows[0]
    assert "the same result as" in " ".join(found.notes)
    assert [(contest.won, contest.lost) for contest in found.contests] == [(0, 10)]


def test_other_test_images_are_not_compared(forge):
    """A note instead of a number that would mean nothing."""
    forge.labels = forge.labels[::-1].copy()
    forge.experiment("elsewhere", predicted=forge.right())
    found = compared(forge)
    assert "elsewhere" not in {contest.row.name for contest in found.contests}
    assert "elsewhere: other test images than those of HEAD, so they cannot be compared" in found.notes


def test_what_cannot_be_compared_is_said(forge, tmp_path):
    """A revision without results, a metric that nobody has, damaged or half-done results, a baseline without any."""
    head = forge.git("rev-parse", "HEAD")
    (forge.folder / "metrics/evaluate.json").write_text("{}")
    forge.git("commit", "-qam", "By hand")
    with pytest.raises(ResultsError, match=r"metrics/evaluate.json is not the file that dvc.lock recorded"):
        compared(forge, "HEAD")
    with pytest.raises(PipelineError, match=r"--sort: found accuracy, expected a numeric metric; .* test/accuracy"):
        compared(forge, head, baseline=head, sort="accuracy")
    found = compared(forge)
    assert found.contests == ()
    assert "HEAD has no results to compare with; choose another revision with --baseline" in found.notes
    with pytest.raises(PipelineError, match=r"^nowhere: .*dvc exp list -A lists"):
        compared(forge, "nowhere")
    with pytest.raises(PipelineError, match="expected a DVC repository"):
        Repository(tmp_path)


@pytest.mark.e2e
def test_markdown_fits_a_pull_request_and_replaces_only_its_own_part(tmp_path):
    """100 experiments are cut to 60 kB; text around the markers stays."""
    forge = Forge(tmp_path / "many", images=100)
    for number in range(100):
        params = {
            "optimizer.muon.lr": number / 1000,
            "model.cnn.activation": f"{number} " + "a rather long value " * 50,
        }
        forge.experiment(f"experiment-{number:03}", predicted=forge.right(range(number % 50)), params=params)
    found = compared(forge, baseline="experiment-000")
    assert len(found.rows) == 100
    text = tables.to_markdown(found)
    assert 30_000 < len(text.encode()) < tables.MARKDOWN_LIMIT
    assert "| … |" in text
    page = tmp_path / "results.md"
    page.write_text(f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n")
    tables.write_markdown(page, found)
    assert page.read_text() == f"before\n{tables.BEGIN}\n{text}{tables.END}\nafter\n"
    page.write_text(f"{tables.BEGIN}\n")
    with pytest.raises(PipelineError, match="expected both of the lines"):
        tables.write_markdown(page, found)


@pytest.mark.e2e
def test_the_report_is_one_file_that_names_all_it_shows(forge):
    """No address outside it; the numbers of the table; a section for each contest."""
    with Repository(forge.folder) as repository:
        found = comparison.compare(
            repository,
            repository.experiments(),
            baseline=repository.resolve("HEAD"),
            sort="val/accuracy",
            margin=MARGIN,
        )
        page = report.render(repository, found)
        assert report.render(repository, found) == page
    assert page.count("<details") == 3
    assert page.count("<svg") == 1 + 2 + 1 + 2 + 3
    summary = "Best by val/accuracy: better, with 96.00% on the test images. Against HEAD: "
    assert f"{summary}1 network better, 1 network worse, 1 undecided" in page
    for part in ('src="http', 'href="http', "@import", "<script"):
        assert part not in page


@pytest.mark.e2e
def test_the_command_asks_git_and_dvc_alone(forge, environment):
    """No MLflow store appears, and neither torch nor mlflow is loaded."""
    code = (
        "import sys; from pipeline.cli import app\n"
        "try: app(['compare', '--all'])\n"
        "except SystemExit as end: print('code', end.code, *({'torch', 'mlflow'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=forge.folder,
        env=environment | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "code 0", done.stderr
    assert "better ★ ◆" in done.stdout
    assert not (forge.folder / "mlflow.db").exists()
