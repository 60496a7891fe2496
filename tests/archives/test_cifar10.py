"""The archive: read byte for byte, and every way it can be wrong said in one line."""

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

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


def test_members_too_large_together_are_refused_before_they_are_read(tmp_path):
    """A header that announces 8 GiB costs no memory, nor does one of a file that is not needed."""
    for name in ("data_batch_1.bin", "readme.html"):
        info = tarfile.TarInfo(f"{FOLDER}/{name}")
        info.size = 1 << 33
        with gzip.open(tmp_path / "a.tar.gz", "wb") as file:
            file.write(info.tobuf() + bytes(512))
        assert "expected at most 6,147,048,576 bytes, found 8,589,934,592 or more" in complaint(tmp_path / "a.tar.gz")


def test_a_member_that_is_there_twice_is_refused(tmp_path):
    """Another reader could take the other one."""
    path = pack(tmp_path / "a.tar.gz", contents())
    plain = tmp_path / "a.tar"
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    with tarfile.open(plain, "a") as tar:
        info = tarfile.TarInfo(f"{FOLDER}/test_batch.bin")
        info.size = 3073
        tar.addfile(info, io.BytesIO(bytes(3073)))
    path.write_bytes(gzip.compress(plain.read_bytes()))
    assert "test_batch.bin: found twice, expected once" in complaint(path)


@pytest.mark.parametrize("name", ["a,b", "<b>", "a|b", "-x", "a/b", "x" * 41, '"q"', "a=b"])
def test_class_names_that_later_formats_cannot_hold_are_refused(tmp_path, name):
    """A comma would train and export, and then not predict."""
    members = contents() | {f"{FOLDER}/{META}": NAMES.replace(shapes10.CLASSES[0].encode(), name.encode())}
    message = complaint(pack(tmp_path / "a.tar.gz", members))
    assert f"expected names of at most 40 letters, digits and _ . + -, found {name!r}" in message


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


def test_only_the_official_archive_is_called_plain_cifar10():
    """Results on any other images must not pass for results on CIFAR-10."""
    assert cifar10.display_name("cifar10", cifar10.OFFICIAL_SHA256) == "CIFAR-10"
    assert cifar10.display_name("cifar10", "12345678" + "0" * 56) == "CIFAR-10 (other archive, 12345678)"
    assert cifar10.display_name("shapes10", "12345678" + "0" * 56) == "shapes10"
