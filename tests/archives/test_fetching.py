"""Archives fetched over real HTTP: retried, verified, kept in a cache, and every failure said in one line."""

import contextlib
import http.server
import socket
import threading
import time

import numpy as np
import pytest

from pipeline import files
from pipeline.archives import fetching
from pipeline.errors import ArchiveError
from tests.archives.test_cifar10 import pack


class Server:
    """A real HTTP server on this machine that plays a list of answers per path, the last one for ever."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.answers: dict[str, list[str]] = {}
        self.requests: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.requests.append(self.path)
                answers = outer.answers.get(self.path, ["404"])
                answer = answers.pop(0) if len(answers) > 1 else answers[0]
                if answer.isdigit():
                    self.send_error(int(answer))
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(outer.content)))
                self.end_headers()
                sent = {
                    "whole": outer.content,
                    "half": outer.content[: len(outer.content) // 2],
                    "wrong": b"?" * len(outer.content),
                }
                self.wfile.write(sent[answer])

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def url(self, path: str, *answers: str) -> str:
        self.answers[path] = list(answers)
        return f"http://127.0.0.1:{self.http.server_port}{path}"

    def stop(self) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


CONTENT = np.random.default_rng(0).bytes(700_000)  # several chunks


@pytest.fixture(autouse=True)
def _own_cache_and_no_proxy(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1,mirror.invalid")


@pytest.fixture
def server():
    server = Server(CONTENT)
    yield server
    server.stop()


@pytest.fixture
def sha256(tmp_path):
    path = tmp_path / "original"
    path.write_bytes(CONTENT)
    return files.sha256(path)


@pytest.fixture
def pauses(monkeypatch):
    """Pauses between attempts, noted and not waited for: 6 seconds a test would be spent asleep."""
    noted: list[float] = []
    monkeypatch.setattr(fetching.time, "sleep", noted.append)
    return noted


def refusal(sources, sha256, out) -> str:
    with pytest.raises(ArchiveError) as caught:
        fetching.fetch(sources, sha256, out)
    message = str(caught.value)
    for way_on in ("data.archive: FILE", "data.sha256: HASH", "data.archive: URL", "data.dataset: shapes10"):
        assert way_on in message
    for source in sources:
        assert f"{source}: " in message
    assert not out.exists()
    assert not out.parent.exists() or not list(out.parent.iterdir())
    return message


@pytest.fixture
def out(tmp_path):
    return tmp_path / "raw" / "archive.tar.gz"


def closed_port() -> int:
    """A port of this machine at which nobody listens."""
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def test_a_fetched_archive_stays_in_the_users_cache(server, sha256, out, tmp_path):
    """The second fetch, from another mirror's URL, does not touch the network."""
    fetching.fetch([server.url("/a.tar.gz", "whole")], sha256, out)
    assert out.read_bytes() == CONTENT
    assert [path.name for path in out.parent.iterdir()] == ["archive.tar.gz"]
    assert [path.name for path in (tmp_path / "cache" / fetching.CACHE).iterdir()] == [f"{sha256[:16]}.tar.gz"]
    out.unlink()
    fetching.fetch([f"http://127.0.0.1:{closed_port()}/b.tar.gz"], sha256, out)
    assert out.read_bytes() == CONTENT
    assert server.requests == ["/a.tar.gz"]


def test_a_damaged_copy_in_the_cache_is_fetched_anew(server, sha256, out, tmp_path):
    """The hash is checked on every use, not only after a download."""
    url = server.url("/a.tar.gz", "whole")
    fetching.fetch([url], sha256, out)
    (cached,) = (tmp_path / "cache" / fetching.CACHE).iterdir()
    cached.write_bytes(b"damaged")
    out.unlink()
    fetching.fetch([url], sha256, out)
    assert out.read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_bytes_of_another_hash_are_refused(server, sha256, out, tmp_path):
    """They reach neither the output nor the cache, and no second attempt is made."""
    message = refusal([server.url("/a.tar.gz", "wrong")], sha256, out)
    assert f"expected SHA-256 {sha256}, found other bytes" in message
    assert server.requests == ["/a.tar.gz"]
    assert not list((tmp_path / "cache" / fetching.CACHE).iterdir())


def test_a_mirror_without_the_file_is_left_at_once_for_the_next(server, sha256, out, pauses):
    """404 will be 404 again in two seconds."""
    fetching.fetch([server.url("/gone", "404"), server.url("/a.tar.gz", "whole")], sha256, out)
    assert out.read_bytes() == CONTENT
    assert server.requests == ["/gone", "/a.tar.gz"]
    assert pauses == []


def test_a_server_in_trouble_is_asked_again_with_growing_pauses(server, sha256, out, pauses):
    """Two errors 5xx, then the file."""
    fetching.fetch([server.url("/a.tar.gz", "500", "503", "whole")], sha256, out)
    assert out.read_bytes() == CONTENT
    assert len(server.requests) == 3
    assert pauses == [2, 4]


def test_a_server_that_stays_in_trouble_is_left_after_three_attempts(server, sha256, out, pauses):
    """The last answer is in the message."""
    message = refusal([server.url("/a.tar.gz", "500")], sha256, out)
    assert "the server answered 500, 3 times" in message
    assert len(server.requests) == 3
    assert pauses == [2, 4]


def test_a_server_that_breaks_off_is_asked_again(server, sha256, out, pauses):
    """Half a file, then the whole."""
    fetching.fetch([server.url("/a.tar.gz", "half", "whole")], sha256, out)
    assert out.read_bytes() == CONTENT
    assert pauses == [2]


def test_a_server_that_always_breaks_off_is_named(server, sha256, out, pauses, tmp_path):
    """Half a file is left nowhere."""
    message = refusal([server.url("/a.tar.gz", "half")], sha256, out)
    assert "the connection broke off" in message
    assert "3 times" in message
    assert len(pauses) == 2
    assert not list((tmp_path / "cache" / fetching.CACHE).iterdir())


def test_without_a_network_it_fails_within_seconds(sha256, out):
    """Every source is named with its failure, and so is every way on; nothing is left behind."""
    started = time.perf_counter()
    sources = [f"http://127.0.0.1:{closed_port()}/one.tar.gz", f"http://127.0.0.1:{closed_port()}/two.tar.gz"]
    message = refusal(sources, sha256, out)
    assert time.perf_counter() - started < 5
    assert message.count("no connection (") == 2
    assert "refused" in message
    assert "0x" not in message  # addresses of objects help nobody


def test_a_name_that_does_not_resolve_is_no_connection(sha256, out):
    """What a laptop on a train sees; the top-level domain is reserved, so nobody is asked in vain."""
    assert "no connection (" in refusal(["http://mirror.invalid/a.tar.gz"], sha256, out)


def test_a_local_file_is_copied_when_its_hash_is_right(tmp_path, sha256, out):
    """The way on for machines without a network."""
    fetching.fetch([str(tmp_path / "original")], sha256, out)
    assert out.read_bytes() == CONTENT
    assert (tmp_path / "original").read_bytes() == CONTENT


def test_a_local_file_of_another_hash_is_refused_with_both_hashes(tmp_path, sha256, out):
    """So that the right one can be put into params.yaml."""
    (tmp_path / "other").write_bytes(b"other")
    found = files.sha256(tmp_path / "other")
    assert f"expected SHA-256 {sha256}, found {found}" in refusal([str(tmp_path / "other")], sha256, out)


def test_a_local_file_that_is_not_there_is_named(tmp_path, sha256, out):
    """A wrong path in params.yaml; a folder is no file either."""
    assert "absent.tar.gz: no such file" in refusal([str(tmp_path / "absent.tar.gz")], sha256, out)
    assert "no such file" in refusal([str(tmp_path)], sha256, out)


def test_a_failed_fetch_keeps_the_file_that_was_there(tmp_path, sha256, out):
    """An old archive is better than none."""
    fetching.fetch([str(tmp_path / "original")], sha256, out)
    with pytest.raises(ArchiveError):
        fetching.fetch([str(tmp_path / "absent")], sha256, out)
    assert out.read_bytes() == CONTENT


def test_the_python_edition_is_named_before_anything_is_copied(tmp_path, out):
    """Its hash is what params.yaml says, as the user took it from the file."""
    source = pack(tmp_path / "python.tar.gz", {"cifar-10-batches-py/data_batch_4": b"pickle"})
    message = refusal([str(source)], files.sha256(source), out)
    assert "found the Python edition (cifar-10-batches-py/data_batch_4), which is pickle and can run code" in message


@pytest.mark.parametrize(
    ("source", "expected"),
    [("https://host/a.tar.gz", True), ("http://host/a", True), ("httpdata/a.tar.gz", False), ("/data/a", False)],
)
def test_urls_are_told_from_files(source, expected):
    """A folder may well be called http-something."""
    assert fetching.is_url(source) is expected
