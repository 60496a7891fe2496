"""Stores that cannot be used: whatever is wrong with them, one line, soon, and results stay where they are."""

import shutil
import socket
import subprocess
import time

import pytest

from pipeline.errors import TrackingError
from pipeline.tracking import store


def refusal(publish) -> str:
    """Return the line that publishing ends with, within half a minute."""
    started = time.monotonic()
    with pytest.raises(TrackingError) as caught:
        publish()
    assert time.monotonic() - started < 30
    message = str(caught.value)
    assert message.endswith("; no results are lost: when it is reachable again, run python -m pipeline sync")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("content", [b"no database", bytes(4096), None])
def test_a_database_that_is_none_is_one_line(tmp_path, publish, content):
    """Text, zeros, or a folder of that name; MLflow would try again for two minutes."""
    (tmp_path / store.DATABASE).unlink()
    if content is None:
        (tmp_path / store.DATABASE).mkdir()
    else:
        (tmp_path / store.DATABASE).write_bytes(content)
    assert f"MLflow store sqlite:///{tmp_path}/mlflow.db: " in refusal(publish)


def test_artifacts_that_cannot_be_written_are_one_line_and_published_later(tmp_path, publish):
    """A file where the folder should be; then the same call completes the run."""
    (tmp_path / store.ARTIFACTS).write_text("in the way")
    message = refusal(publish)
    assert f"{tmp_path}/mlartifacts" in message
    (tmp_path / store.ARTIFACTS).unlink()
    assert publish().model_version == "1"


@pytest.mark.skipif(shutil.which("mount") is None, reason="a small file system needs a mount command")
def test_a_full_disk_is_one_line(tmp_path, publish):
    """A file system of 64 KiB for the artifacts."""
    folder = tmp_path / store.ARTIFACTS
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root can mount a small file system")
    try:
        (folder / "filler").write_bytes(bytes(60 * 1024))
        assert "No space left on device" in refusal(publish)
        (folder / "filler").unlink()
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_server_that_never_answers_is_one_line(publish, monkeypatch):
    """It accepts connections; the limits are shorter here, those that users have end it after a minute and a half."""
    settings = store.SETTINGS
    assert int(settings["MLFLOW_HTTP_REQUEST_TIMEOUT"]) * (int(settings["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]) + 1) <= 90
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert "Read tim" in refusal(publish)
