"""Workflows, container and hooks: valid, and what they run is there and works."""

import json
import re
import subprocess
import sys

import pytest
from ruamel.yaml import YAML

from tests.clone import Clone
from tests.paths import ROOT
from tests.serving.test_prediction import graph
from tests.serving.test_service import running

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def scripts(path) -> dict[str, str]:
    """Return what the steps of a workflow run, by their names."""
    jobs = YAML(typ="safe").load(path)["jobs"].values()
    return {step.get("name", step["run"]): step["run"] for job in jobs for step in job["steps"] if "run" in step}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_are_valid(path):
    """Against the schema of GitHub's workflows that check-jsonschema ships."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_make_targets_and_scripts_of_the_workflows_exist():
    """Also those of the hook and the container for development."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    texts = [script for path in WORKFLOWS for script in scripts(path).values()]
    texts.append((ROOT / ".pre-commit-config.yaml").read_text())
    texts.append(json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())["postCreateCommand"])
    used = {target for text in texts for target in re.findall(r"\bmake ([a-z-]+)", text)}
    assert used >= {"install", "lint", "test-fast"}
    assert used <= targets
    assert (ROOT / ".ci/run").stat().st_mode & 0o100


@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_a_pull_request_is_compared_with_its_target(tmp_path, finished, environment):
    """The steps of the workflow as they stand, from both runs to the comment, which a stand-in for gh keeps."""
    clone = Clone.new(tmp_path / "repository", environment, {"tracking.enabled": False}, cache=finished.cache)
    base = clone("git", "rev-parse", "HEAD").strip()
    params = clone.folder / "params.yaml"
    params.write_text(params.read_text().replace("activation: relu", "activation: tanh"))
    clone.commit("Try tanh")
    clone("git", "checkout", "-q", "--detach")  # as actions/checkout leaves it
    gh = tmp_path / "bin/gh"
    gh.parent.mkdir()
    gh.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    gh.chmod(0o755)
    steps = scripts(ROOT / ".github/workflows/report.yml")
    values = {
        "BASE": base,
        "PROPOSED": clone("git", "rev-parse", "HEAD").strip(),
        "NUMBER": "7",
        "PATH": f"{gh.parent}:{environment['PATH']}",
    }
    for name in ("Run the target branch", "Run the proposal", "Compare", "Comment"):
        clone("bash", "-eo", "pipefail", "-c", steps[name], **values)
    assert (tmp_path / "asked").read_text().startswith("pr comment 7 --body-file report.md --edit-last")
    report = (clone.folder / "report.md").read_text()
    assert re.search(r"^\| proposed .*\| tanh \|", report, re.MULTILINE), report
    assert re.search(r"^\| base .*baseline.*\| relu \|", report, re.MULTILINE), report


def test_the_image_serves_what_the_repository_has(tmp_path, environment):
    """No container engine here: its files exist, its extra too, and its health check passes on a running service."""
    text = (ROOT / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / name).exists() for name in line.split())
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {name for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE) for name in line.split()}
    assert copied == kept
    extras = set(re.findall(r"'\.\[(\w+)\]'", text))
    assert extras == {"serve", "train"}
    assert all(f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text() for extra in extras)
    assert text.count("USER user") == 2
    health = json.loads(re.findall(r"HEALTHCHECK .*\\\n\s*CMD (\[.*\])", text)[0])
    with running(graph(tmp_path / "model.onnx"), environment, "--data", "nowhere") as (url, process):
        command = [sys.executable, "-c", health[2].replace("http://127.0.0.1:8000", url)]
        assert subprocess.run(command, check=False).returncode == 0
        process.kill()
        process.wait()
        assert subprocess.run(command, capture_output=True, check=False).returncode != 0
