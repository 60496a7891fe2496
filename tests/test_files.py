"""Files are whole or absent, JSON has no NaN, and one hash stands for several files."""

import csv
import errno
import os
import shutil
import stat
from pathlib import Path

import pytest

from pipeline import files
from tests.conftest import start_python


def test_a_block_that_succeeds_replaces_the_file(tmp_path):
    """The folder is made on the way and holds nothing else afterwards."""
    path = tmp_path / "a" / "b" / "out.bin"
    for content in (b"first", b"second"):
        with files.atomic(path) as temporary:
            temporary.write_bytes(content)
            assert temporary.parent == path.parent  # a rename across file systems would not be atomic
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("before", [None, b"old"])
def test_a_block_that_fails_leaves_the_old_file_and_no_litter(tmp_path, before, failure):
    """Half a file never gets the final name, whether there was a file before or not."""
    path = tmp_path / "out.bin"
    if before is not None:
        path.write_bytes(before)

    def write_half():
        with files.atomic(path) as temporary:
            temporary.write_bytes(b"half")
            raise failure

    with pytest.raises(failure):
        write_half()
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == ([] if before is None else [before])


@pytest.mark.parametrize(
    "failure",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("344 requested and 100 written"),  # as numpy says it
    ],
    ids=["without a name", "without a number"],
)
def test_a_file_that_cannot_be_written_is_named(tmp_path, failure):
    """By its final name, whatever the writer says, and writers name temporary files or none."""

    def write():
        with files.atomic(tmp_path / "out.bin"):
            raise failure

    with pytest.raises(OSError, match=r"No space|344 requested") as caught:
        write()
    assert caught.value.filename == str(tmp_path / "out.bin")
    assert caught.value.errno in (errno.ENOSPC, errno.EIO)


def test_a_missing_source_keeps_its_own_name(tmp_path):
    """It is not the file that is written."""

    def write():
        with files.atomic(tmp_path / "out.bin") as temporary:
            shutil.copyfile(tmp_path / "source", temporary)

    with pytest.raises(FileNotFoundError) as caught:
        write()
    assert caught.value.filename == str(tmp_path / "source")


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    """Not what another process is writing at the moment, and no file with a similar name."""
    code = """
import os, sys
from pathlib import Path
from pipeline import files
with files.atomic(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    print(temporary, flush=True)
    sys.stdin.read()
"""
    path = tmp_path / "out[1].bin"
    environment = dict(os.environ)
    killed, writing = (start_python(code, str(path), environment=environment) for _ in range(2))
    left, live = (Path(process.stdout.readline().strip()) for process in (killed, writing))
    killed.kill()
    killed.communicate()
    other = tmp_path / ".out1.bin.x"
    other.touch()
    files.write_bytes(path, b"whole")
    assert set(tmp_path.iterdir()) == {path, live, other}
    writing.communicate()
    assert path.read_bytes() == b"half"
    assert left not in set(tmp_path.iterdir())
    assert set(tmp_path.iterdir()) == {path, other}


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_file_mode_honours_the_umask(tmp_path, umask, mode):
    """A file is as readable as one that open() makes, and the process's umask is as it was."""
    previous = os.umask(umask)
    try:
        files.write_text(tmp_path / "out.txt", "x")
        assert os.umask(umask) == umask
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "out.txt").stat().st_mode) == mode


def test_text_is_utf8_with_unix_line_ends(tmp_path):
    """The bytes, and so DVC's hash, do not depend on platform and locale."""
    files.write_text(tmp_path / "out.txt", "Größe\n1\n")
    assert (tmp_path / "out.txt").read_bytes() == b"Gr\xc3\xb6\xc3\x9fe\n1\n"


def test_json_comes_back_as_it_was_written(tmp_path):
    """Order of keys, floats to the last bit, and letters of any language stay."""
    content = {"b": 0.1 + 0.2, "a": [1, None, True], "name": "café"}
    files.write_json(tmp_path / "out.json", content)
    assert files.read_json(tmp_path / "out.json") == content
    assert list(files.read_json(tmp_path / "out.json")) == list(content)
    assert "café" in (tmp_path / "out.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_refuses_what_json_does_not_have(tmp_path, value):
    """NaN would make a file that no strict reader takes; the old file stays."""
    files.write_json(tmp_path / "out.json", {"loss": 1.0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "out.json", {"loss": value})
    assert files.read_json(tmp_path / "out.json") == {"loss": 1.0}
    assert len(list(tmp_path.iterdir())) == 1


def test_sha256_is_that_of_the_bytes(tmp_path):
    """The digest of "abc" is the example of FIPS 180."""
    (tmp_path / "abc").write_bytes(b"abc")
    assert files.sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_hash_of_several_files_knows_names_and_bytes_but_neither_order_nor_place(tmp_path):
    """Moving the whole folder changes nothing; renaming, swapping or editing a file does."""

    def tree(folder, contents):
        for name, content in contents.items():
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / name).write_text(content)
        return [tmp_path / folder / name for name in contents]

    one = tree("one", {"a": "1", "b/c": "2"})
    digest = files.sha256_all(one, root=tmp_path / "one")
    assert files.sha256_all(reversed(one), root=tmp_path / "one") == digest
    assert files.sha256_all(tree("two", {"a": "1", "b/c": "2"}), root=tmp_path / "two") == digest
    others = {
        "renamed": {"a": "1", "b/d": "2"},
        "swapped": {"a": "2", "b/c": "1"},
        "edited": {"a": "1", "b/c": "3"},
        "fewer": {"a": "1"},
    }
    digests = {files.sha256_all(tree(name, contents), root=tmp_path / name) for name, contents in others.items()}
    assert len(digests | {digest}) == 5


def test_csv_has_a_line_for_each_row_and_gives_the_same_numbers_back(tmp_path):
    """To the last digit."""
    rows = [{"epoch": 1, "train/loss": 0.1 + 0.2}, {"epoch": 2, "train/loss": 1e-17}]
    files.write_csv(tmp_path / "history.csv", rows)
    assert (tmp_path / "history.csv").read_bytes() == b"epoch,train/loss\n1,0.30000000000000004\n2,1e-17\n"
    with (tmp_path / "history.csv").open() as file:
        assert [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)] == rows
