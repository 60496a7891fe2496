"""MLflow's own pages on the pipeline's runs, in a real browser: what a person does to compare two experiments."""

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from pipeline.experiments.repository import Repository
from pipeline.tracking import sync
from tests.browser import MARKS, chromium
from tests.conftest import heed_ctrl_c
from tests.forge import Forge

SECONDS = 1000  # playwright counts milliseconds

pytestmark = [*MARKS, pytest.mark.timeout(600)]


@pytest.fixture
def address(tmp_path, environment) -> Iterator[str]:
    """What `python -m pipeline ui` prints, on a store with two experiments that differ in their activation."""
    forge = Forge(tmp_path / "repository")
    for name, activation, wrong in (("first-relu", "relu", 100), ("second-tanh", "tanh", 200)):
        params = {"model.cnn.activation": activation, "optimizer.muon.lr": wrong / 1000}
        forge.experiment(name, predicted=forge.right(range(wrong)), params=params)
    settings = {"experiment": "cifar10", "model": "cifar10-cnn"}
    with Repository(forge.folder) as repository:
        for change in sync.plan(repository, settings).changes:
            sync.apply(repository, settings, change)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path / "log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "pipeline", "ui", "--port", str(port), "--no-browse"]
        streams = {"stdout": output, "stderr": output}
        server = subprocess.Popen(command, cwd=forge.folder, env=environment, preexec_fn=heed_ctrl_c, **streams)
    try:
        deadline = time.monotonic() + 200
        while not (found := re.search(r"compare configurations: (\S+)", log.read_text())):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        yield found[1]
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(180) == 0, log.read_text()


def test_two_configurations_can_be_compared_in_the_mlflow_ui(address):
    """The table has a row each, best first, with the headline columns; then select both and press Compare."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(address, wait_until="domcontentloaded", timeout=120 * SECONDS)
        expect(page.get_by_text("2 matching runs")).to_be_visible(timeout=120 * SECONDS)
        for column in ("val/accuracy", "val/accuracy_sd", "test/accuracy"):
            expect(page.get_by_role("columnheader", name=column, exact=True).first).to_be_visible()
        text = page.locator("body").inner_text()
        assert text.index("0.9\n") < text.index("0.8\n"), text
        assert "first-relu" not in text, "a seed is not a row"
        for notice in ("Assistant", "telemetry"):
            assert notice not in text
        page.get_by_label("Select all runs").check()
        page.get_by_role("button", name="Compare", exact=True).click()
        expect(page.get_by_text("Parallel Coordinates Plot").first).to_be_visible(timeout=120 * SECONDS)
        text = page.locator("body").inner_text()
        for part in ("Comparing 2 Runs", "model.cnn.activation", "test/accuracy"):
            assert part in text, part
