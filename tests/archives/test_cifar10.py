"""The archive: read byte for byte, fetched over real HTTP, and every way it can be wrong said in one line."""

import contextlib
import gzip
import http.server
import io
import socket
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline import files
from pipeline.archives import cifar10, shapes10
from pipeline.errors import ArchiveError

FOLDER = "cifar-10-batches-bin"
BATCHES = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
META = "batches.meta.txt"
NAMES = "".join(f"{name}\n" for name in shapes10.CLASSES).encode()


def records(count: int, seed: int) -> np.ndarray:
    """Random records: (count, 3073) uint8, the first column the label."""
    rng = np.random.default_rng(seed)
    made = rng.integers(0, 256, (count, 3073), dtype=np.uint8)
    made[:, 0] = rng.integers(0, 10, count)
    return made


def contents() -> dict[str, bytes]:
    """Members of a right archive of 2, 3, 4, 5, 6 training records and 3 test records."""
    batches = {f"{FOLDER}/{name}": records(2 + i, i).tobytes() for i, name in enumerate(BATCHES[:5])}
    return {f"{FOLDER}/{META}": NAMES, **batches, f"{FOLDER}/{BATCHES[5]}": records(3, 9).tobytes()}


def pack(path: Path, members: dict[str, bytes | str]) -> Path:
    """Write members to a .tar.gz: bytes become a file, a string the target of a symbolic link."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def complaint(path: Path) -> str:
    with pytest.raises(ArchiveError) as caught:
        cifar10.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


# Reading


def test_reading_gives_the_records_back(tmp_path):
    """Planes become pixels: the red plane is channel 0, rows run first; training batches follow their numbers."""
    members = contents()
    scrambled = dict(sorted(members.items(), reverse=True))  # the order in the tar does not matter
    read = cifar10.read(pack(tmp_path / "a.tar.gz", scrambled))
    train = np.concatenate([np.frombuffer(members[f"{FOLDER}/{name}"], np.uint8) for name in BATCHES[:5]])
    for images, labels, flat in (
        (read.train_images, read.train_labels, train),
        (read.test_images, read.test_labels, np.frombuffer(members[f"{FOLDER}/test_batch.bin"], np.uint8)),
    ):
        raw = flat.reshape(-1, 3073)
        assert images.shape == (len(raw), 32, 32, 3)
        assert images.dtype == labels.dtype == np.uint8
        assert labels.tolist() == raw[:, 0].tolist()
        for number, record in enumerate(raw):
            for y, x, c in ((0, 0, 0), (0, 1, 0), (1, 0, 0), (31, 31, 2), (5, 17, 1)):
                assert images[number, y, x, c] == record[1 + c * 1024 + y * 32 + x]
        assert np.array_equal(images.transpose(0, 3, 1, 2).reshape(len(raw), -1), raw[:, 1:])
    assert read.classes == shapes10.CLASSES


def test_the_generated_archive_is_read(archive):
    """600 training and 1000 test images, as they were generated."""
    told: list[str] = []
    read = cifar10.read(archive, on_member=told.append)
    assert sorted(told) == sorted([META, *BATCHES])
    assert len(read.train_labels) == len(read.train_images) == 600
    test = shapes10.generate(1000, seed=0, noise=5.0, stream=0)
    batches = [shapes10.generate(120, seed=0, noise=5.0, stream=i + 1, first=120 * i) for i in range(5)]
    for images, labels, made in (
        (read.test_images, read.test_labels, test),
        (read.train_images, read.train_labels, np.concatenate(batches)),
    ):
        assert np.array_equal(labels, made[:, 0])
        assert np.array_equal(images, made[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def test_other_members_are_left_alone(tmp_path):
    """The official archive also holds a readme and the folder itself."""
    members = {f"{FOLDER}/readme.html": b"<html>", "elsewhere/data_batch_1.bin": b"no batch", **contents()}
    assert len(cifar10.read(pack(tmp_path / "a.tar.gz", members)).train_labels) == 2 + 3 + 4 + 5 + 6


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("data_batch_3.bin", b"\0" * 3072, ["data_batch_3.bin: expected a multiple of 3073 bytes", "found 3072"]),
        ("test_batch.bin", b"", ["test_batch.bin: expected a multiple of 3073 bytes", "found 0"]),
        (META, NAMES[NAMES.index(b"\n") :], [f"{META}: expected ten different class names, found 9"]),
        (META, b"cat\n" * 10, [f"{META}: expected ten different class names"]),
        (META, b"\xff\xfe", [f"{META}: expected ten different class names, found 0"]),
        ("data_batch_2.bin", "/etc/passwd", ["data_batch_2.bin to be a regular file, found a link"]),
        ("data_batch_2.bin", "data_batch_1.bin", ["data_batch_2.bin to be a regular file, found a link"]),
    ],
)
def test_a_wrong_member_is_named_with_what_was_expected_and_found(tmp_path, name, content, expected):
    """Wrong size, wrong names, a link in place of a file."""
    message = complaint(pack(tmp_path / "a.tar.gz", contents() | {f"{FOLDER}/{name}": content}))
    for part in expected:
        assert part in message


def test_a_label_above_nine_is_named_with_batch_and_record(tmp_path):
    """Records are counted from 0 within their batch."""
    wrong = records(5, 0)
    wrong[3, 0] = 10
    message = complaint(pack(tmp_path / "a.tar.gz", contents() | {f"{FOLDER}/data_batch_4.bin": wrong.tobytes()}))
    assert f"{FOLDER}/data_batch_4.bin: record 3: expected a label of 0..9, found 10" in message


@pytest.mark.parametrize("gone", [["data_batch_5.bin"], ["test_batch.bin", META], [META, *BATCHES]])
def test_missing_members_are_all_named(tmp_path, gone):
    """One look tells what is not there."""
    members = {name: content for name, content in contents().items() if name.split("/")[1] not in gone}
    message = complaint(pack(tmp_path / "a.tar.gz", members))
    missing = message.split("found no ")[1].split(", ")
    assert sorted(missing) == sorted(gone)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", f"{FOLDER}/../../evil", f"/{FOLDER}/data_batch_1.bin"])
def test_a_member_that_points_outside_is_refused(tmp_path, name):
    """Nothing is ever extracted, but an archive with such a name is an attack and is not used."""
    message = complaint(pack(tmp_path / "a.tar.gz", {name: b"x", **contents()}))
    assert f"member {name!r} points outside the archive" in message
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]


def test_a_member_too_large_for_any_batch_is_refused_before_it_is_read(tmp_path):
    """A header that announces 8 GiB costs no memory."""
    info = tarfile.TarInfo(f"{FOLDER}/data_batch_1.bin")
    info.size = 1 << 33
    with gzip.open(tmp_path / "a.tar.gz", "wb") as file:
        file.write(info.tobuf() + bytes(512))
    assert f"data_batch_1.bin has {1 << 33} bytes, more than" in complaint(tmp_path / "a.tar.gz")


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.3, 0.9, 0.9999])
def test_a_truncated_archive_is_refused(tmp_path, archive, share):
    """Also where only the last bytes, the checksum, are missing."""
    content = archive.read_bytes()
    path = tmp_path / "a.tar.gz"
    path.write_bytes(content[: int(len(content) * share)])
    message = complaint(path)
    assert "damaged or truncated" in message
    assert "run dvc repro download" in message


@pytest.mark.parametrize("share", [0.002, 0.25, 0.5, 0.75])
@pytest.mark.parametrize("compressed", [True, False])
def test_one_flipped_bit_is_noticed(tmp_path, archive, share, compressed):
    """A changed pixel in an uncompressed block shows in gzip's checksum only."""
    content = bytearray(archive.read_bytes())
    if compressed:
        content = bytearray(gzip.compress(gzip.decompress(content), compresslevel=1))
    content[int(len(content) * share)] ^= 16
    path = tmp_path / "a.tar.gz"
    path.write_bytes(content)
    assert "damaged or truncated" in complaint(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"not an archive", gzip.compress(b""), gzip.compress(b"no tar" * 1000)],
    ids=["nothing", "text", "nothing, compressed", "text, compressed"],  # gzip's bytes hold the time
)
def test_what_is_no_archive_is_refused(tmp_path, content):
    """An HTML page saved under the archive's name, for instance."""
    (tmp_path / "a.tar.gz").write_bytes(content)
    complaint(tmp_path / "a.tar.gz")


def test_a_missing_archive_names_the_stage_that_makes_it(tmp_path):
    """Somebody runs preprocess before download."""
    assert "no such file; run the download stage" in complaint(tmp_path / "absent.tar.gz")


# Fetching


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
    monkeypatch.setattr(cifar10.time, "sleep", noted.append)
    return noted


def refusal(sources, sha256, out) -> str:
    with pytest.raises(ArchiveError) as caught:
        cifar10.fetch(sources, sha256, out)
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
    cifar10.fetch([server.url("/a.tar.gz", "whole")], sha256, out)
    assert out.read_bytes() == CONTENT
    assert [path.name for path in out.parent.iterdir()] == ["archive.tar.gz"]
    assert [path.name for path in (tmp_path / "cache" / cifar10.CACHE).iterdir()] == [f"{sha256[:16]}.tar.gz"]
    out.unlink()
    cifar10.fetch([f"http://127.0.0.1:{closed_port()}/b.tar.gz"], sha256, out)
    assert out.read_bytes() == CONTENT
    assert server.requests == ["/a.tar.gz"]


def test_a_damaged_copy_in_the_cache_is_fetched_anew(server, sha256, out, tmp_path):
    """The hash is checked on every use, not only after a download."""
    url = server.url("/a.tar.gz", "whole")
    cifar10.fetch([url], sha256, out)
    (cached,) = (tmp_path / "cache" / cifar10.CACHE).iterdir()
    cached.write_bytes(b"damaged")
    out.unlink()
    cifar10.fetch([url], sha256, out)
    assert out.read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_bytes_of_another_hash_are_refused(server, sha256, out, tmp_path):
    """They reach neither the output nor the cache, and no second attempt is made."""
    message = refusal([server.url("/a.tar.gz", "wrong")], sha256, out)
    assert f"expected SHA-256 {sha256}, found other bytes" in message
    assert server.requests == ["/a.tar.gz"]
    assert not list((tmp_path / "cache" / cifar10.CACHE).iterdir())


def test_a_mirror_without_the_file_is_left_at_once_for_the_next(server, sha256, out, pauses):
    """404 will be 404 again in two seconds."""
    cifar10.fetch([server.url("/gone", "404"), server.url("/a.tar.gz", "whole")], sha256, out)
    assert out.read_bytes() == CONTENT
    assert server.requests == ["/gone", "/a.tar.gz"]
    assert pauses == []


def test_a_server_in_trouble_is_asked_again_with_growing_pauses(server, sha256, out, pauses):
    """Two errors 5xx, then the file."""
    cifar10.fetch([server.url("/a.tar.gz", "500", "503", "whole")], sha256, out)
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
    cifar10.fetch([server.url("/a.tar.gz", "half", "whole")], sha256, out)
    assert out.read_bytes() == CONTENT
    assert pauses == [2]


def test_a_server_that_always_breaks_off_is_named(server, sha256, out, pauses, tmp_path):
    """Half a file is left nowhere."""
    message = refusal([server.url("/a.tar.gz", "half")], sha256, out)
    assert "the connection broke off" in message
    assert "3 times" in message
    assert len(pauses) == 2
    assert not list((tmp_path / "cache" / cifar10.CACHE).iterdir())


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
    cifar10.fetch([str(tmp_path / "original")], sha256, out)
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
    cifar10.fetch([str(tmp_path / "original")], sha256, out)
    with pytest.raises(ArchiveError):
        cifar10.fetch([str(tmp_path / "absent")], sha256, out)
    assert out.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("source", "expected"),
    [("https://host/a.tar.gz", True), ("http://host/a", True), ("httpdata/a.tar.gz", False), ("/data/a", False)],
)
def test_urls_are_told_from_files(source, expected):
    """A folder may well be called http-something."""
    assert cifar10.is_url(source) is expected


def test_only_the_official_archive_is_called_plain_cifar10():
    """Results on any other images must not pass for results on CIFAR-10."""
    assert cifar10.display_name("cifar10", cifar10.OFFICIAL_SHA256) == "CIFAR-10"
    assert cifar10.display_name("cifar10", "12345678" + "0" * 56) == "CIFAR-10 (other archive, 12345678)"
    assert cifar10.display_name("shapes10", "12345678" + "0" * 56) == "shapes10"
