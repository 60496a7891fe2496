"""MLflow's own pages on the pipeline's runs, in a real browser: what a person does to compare two experiments."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect, sync_playwright

from pipeline.experiments.repository import Repository
from pipeline.tracking import store, sync
from tests.forge import Forge
from tests.mlflow_server import Server

SECONDS = 1000  # playwright counts milliseconds
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; apt-get install chromium brings one"),
]


@pytest.fixture
def address(tmp_path, environment) -> Iterator[str]:
    """`mlflow ui` on a store with two experiments that differ in their activation."""
    forge = Forge(tmp_path / "repository")
    for name, activation, wrong in (("first-relu", "relu", 100), ("second-tanh", "tanh", 200)):
        params = {"model.cnn.activation": activation, "optimizer.muon.lr": wrong / 1000}
        forge.experiment(name, predicted=forge.right(range(wrong)), params=params)
    settings = {"experiment": "cifar10", "model": "cifar10-cnn"}
    with Repository(forge.folder) as repository:
        for change in sync.plan(repository, settings).changes:
            sync.apply(repository, settings, change)
    server = Server(tmp_path / "ui", environment, "ui", "--backend-store-uri", store.uri(forge.folder))
    with server.running():
        yield server.url


def test_two_experiments_can_be_compared_in_the_mlflow_ui(address, tmp_path):
    """Select both in the table of runs, press Compare: parallel coordinates, both names, parameters that differ."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(f"{address}/#/experiments/1/runs", wait_until="domcontentloaded", timeout=120 * SECONDS)
        expect(page.get_by_text("first-relu").first).to_be_visible(timeout=120 * SECONDS)
        expect(page.get_by_text("second-tanh").first).to_be_visible()
        page.get_by_label("Select all runs").check()
        page.get_by_role("button", name="Compare", exact=True).click()
        expect(page.get_by_text("Parallel Coordinates Plot").first).to_be_visible(timeout=120 * SECONDS)
        text = page.locator("body").inner_text()
        for part in ("Comparing 2 Runs", "first-relu", "second-tanh", "model.cnn.activation", "test/accuracy"):
            assert part in text, part
        picture = tmp_path / "compare.png"
        page.screenshot(path=picture)
        assert picture.stat().st_size > 30_000
        browser.close()
