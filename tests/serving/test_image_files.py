"""Real image files of every kind: found, read and brought to the network's size, or refused with a reason."""

import io
import os
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from pipeline.serving import image_files
from pipeline.serving.image_files import DRAFT_FILTERS, STDIN, Picture, Unreadable

FILTERS = ("lanczos", "bicubic", "bilinear", "box", "nearest")
WHITE, RED, GREEN, BLUE = (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255)


def pixels(path, side=32, channels=3, *, resample="lanczos", stretch=False) -> np.ndarray:
    picture = image_files.read(str(path), side, channels, resample=resample, stretch=stretch)
    assert isinstance(picture, Picture), picture
    assert picture.name == str(path)
    assert (picture.pixels.shape, picture.pixels.dtype) == ((side, side, channels), np.uint8)
    return picture.pixels


def refusal(path) -> str:
    found = image_files.read(str(path), 32, 3, resample="lanczos", stretch=False)
    assert isinstance(found, Unreadable), found
    assert found.name == str(path)
    assert found.reason == " ".join(found.reason.split())
    return found.reason


def saved(image: Image.Image, path, **options):
    image.save(path, **options)
    return path


def noise(width: int, height: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def photo(width: int, height: int) -> Image.Image:
    """An image with the spectrum of photographs: amplitudes fall with the frequency."""
    rng = np.random.default_rng(1)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width) * width)
    frequency[0, 0] = 1
    waves = (rng.normal(size=(3, *frequency.shape)) + 1j * rng.normal(size=(3, *frequency.shape))) / frequency
    levels = np.moveaxis(np.fft.irfft2(waves, (height, width)), 0, -1)
    return Image.fromarray((128 + 45 * levels / levels.std()).clip(0, 255).astype(np.uint8))


# Size


@pytest.mark.parametrize("resample", FILTERS)
@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "ppm", "webp", "gif"])
def test_an_image_of_the_wanted_size_keeps_its_bytes(suffix, resample, tmp_path):
    """Whatever the filter, and in every format that keeps them itself."""
    image = noise(32, 32)
    if suffix == "gif":  # 256 colours
        image = np.repeat(image[..., :1] // 16 * 16, 3, axis=-1)
    path = saved(Image.fromarray(image), tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    for stretch in (False, True):
        assert pixels(path, resample=resample, stretch=stretch).tobytes() == image.tobytes()


@pytest.mark.parametrize("upright", [False, True], ids=["wide", "high"])
def test_the_central_square_is_taken_or_the_whole_image_stretched(upright, tmp_path):
    """Three stripes: the square has the middle one only, the stretched image has all."""
    image = np.zeros((20, 60, 3), np.uint8)
    image[:, :20], image[:, 20:40], image[:, 40:] = RED, GREEN, BLUE
    image = image.transpose(1, 0, 2) if upright else image
    path = saved(Image.fromarray(image), tmp_path / "a.png")
    assert (pixels(path, 10) == GREEN).all()
    whole = pixels(path, 12, stretch=True, resample="nearest")
    whole = whole.transpose(1, 0, 2) if upright else whole
    assert (whole[:, :4] == RED).all()
    assert (whole[:, 4:8] == GREEN).all()
    assert (whole[:, 8:] == BLUE).all()


def test_the_square_is_in_the_middle_to_half_a_pixel(tmp_path):
    """Of an odd rest, as much is cut off on the left as on the right: an image and its mirror image stay mirrored."""
    image = photo(75, 48)
    there = pixels(saved(image, tmp_path / "a.png"))
    back = pixels(saved(ImageOps.mirror(image), tmp_path / "b.png"))
    assert np.abs(there.astype(int) - back[:, ::-1]).max() <= 1


@pytest.mark.parametrize("resample", FILTERS)
def test_the_filter_is_the_one_named(resample, tmp_path):
    """As Pillow's own resize has it, smaller and larger."""
    for side, wanted in ((100, 32), (8, 32)):
        image = photo(side, side)
        expected = image.resize((wanted, wanted), Image.Resampling[resample.upper()])
        assert np.array_equal(pixels(saved(image, tmp_path / "a.png"), resample=resample), np.asarray(expected))


@pytest.mark.parametrize(("width", "height"), [(1601, 1200), (500, 375), (375, 501), (300, 300)])
@pytest.mark.parametrize("resample", FILTERS)
def test_large_jpegs_come_out_as_if_decoded_in_full(resample, width, height, tmp_path):
    """Half a level of 255 away where they are decoded at a fraction of their size, exactly where not."""
    path = saved(photo(width, height), tmp_path / "a.jpg", quality=92)
    with Image.open(path) as opened:
        whole = saved(opened, tmp_path / "whole.png")
    for stretch in (False, True):
        difference = np.abs(
            pixels(path, resample=resample, stretch=stretch).astype(int)
            - pixels(whole, resample=resample, stretch=stretch)
        )
        drafted = resample in DRAFT_FILTERS
        assert difference.mean() <= (0.5 if drafted else 0)
        assert difference.max() <= (6 if drafted else 0)


def test_a_large_jpeg_is_not_decoded_in_full(tmp_path):
    """Which takes several times as long; the filter that counts single pixels has to."""
    path = saved(photo(400, 300).resize((4000, 3000)), tmp_path / "a.jpg")
    pixels(path)

    def seconds(resample) -> float:
        started = time.process_time()
        pixels(path, resample=resample)
        return time.process_time() - started

    assert min(seconds("bilinear") for _ in range(3)) < min(seconds("box") for _ in range(3)) * 0.75


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "webp"])
def test_exif_orientation_is_applied_once(suffix, orientation, tmp_path):
    """As Pillow's exif_transpose has it on the whole image."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    for width, height in ((32, 32), (90, 61)):
        path = saved(photo(width, height), tmp_path / f"a.{suffix}", exif=exif)
        with Image.open(path) as opened:
            expected = ImageOps.exif_transpose(opened).convert("RGB")
        expected = saved(expected, tmp_path / "expected.png", exif=b"")
        for stretch in (False, True):
            difference = np.abs(pixels(path, stretch=stretch).astype(int) - pixels(expected, stretch=stretch))
            # Pillow resizes rows, rounds, and resizes columns, so turned images are rounded otherwise.
            assert difference.mean() <= (0 if width == 32 else 0.5)
            assert difference.max() <= 4


# Modes


def test_palettes_bilevel_and_grey_become_rgb(tmp_path):
    """The colours they stand for."""
    palette = Image.fromarray(np.arange(4, dtype=np.uint8).reshape(2, 2)).convert("P")
    palette.putpalette([*RED, *GREEN, *BLUE, *WHITE])
    assert pixels(saved(palette, tmp_path / "p.png"), 2).tolist() == [[[*RED], [*GREEN]], [[*BLUE], [*WHITE]]]
    bilevel = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).convert("1")
    assert pixels(saved(bilevel, tmp_path / "1.png"), 2)[..., 1].tolist() == [[0, 255], [255, 0]]
    grey = noise(8, 8, 1)
    assert np.array_equal(pixels(saved(Image.fromarray(grey[..., 0]), tmp_path / "l.png"), 8), grey.repeat(3, -1))


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_16_bit_grey_is_scaled_and_not_clipped(suffix, tmp_path):
    """0..65535 to 0..255, to the nearest level; a level of 300 is nearly black and not white."""
    levels = np.array([[0, 300], [25700, 65535]], np.uint16)
    path = saved(Image.fromarray(levels), tmp_path / f"a.{suffix}")
    assert pixels(path, 2)[..., 0].tolist() == [[0, 1], [100, 255]]
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    found = pixels(saved(Image.fromarray(every), path), 256)[..., 2]
    assert np.array_equal(found, np.round(every / 257).astype(np.uint8))


@pytest.mark.parametrize("suffix", ["jpg", "tiff"])
def test_cmyk_is_no_negative(suffix, tmp_path):
    """No ink is white, full key is black, and cyan keeps red away."""
    for ink, expected in (((0, 0, 0, 0), WHITE), ((0, 0, 0, 255), (0, 0, 0)), ((255, 0, 0, 0), (0, 255, 255))):
        path = saved(Image.new("CMYK", (32, 32), ink), tmp_path / f"a.{suffix}")
        assert np.abs(pixels(path).astype(int) - expected).max() <= 3


def test_transparency_shows_white(tmp_path):
    """An alpha channel in colour or grey, a palette's, or one transparent colour, of 8 or 16 bits."""
    colour = Image.new("RGBA", (2, 1))
    colour.putdata([(255, 0, 0, 0), (0, 0, 0, 128)])
    half = 127
    assert pixels(saved(colour, tmp_path / "a.png"), 2, stretch=True)[0].tolist() == [[255] * 3, [half] * 3]
    assert pixels(saved(colour.convert("LA"), tmp_path / "b.png"), 2, stretch=True)[0].tolist() == [
        [255] * 3,
        [half] * 3,
    ]
    palette = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    palette.putpalette([*RED, *BLUE])
    for name, transparency in (("c.png", 0), ("d.gif", 0), ("e.png", bytes([0, 255]))):
        path = saved(palette, tmp_path / name, transparency=transparency)
        assert pixels(path, 2, stretch=True)[0].tolist() == [[*WHITE], [*BLUE]], name
    key = saved(Image.fromarray(np.array([[RED, BLUE]], np.uint8)), tmp_path / "f.png", transparency=RED)
    assert pixels(key, 2, stretch=True)[0].tolist() == [[*WHITE], [*BLUE]]
    deep = saved(Image.fromarray(np.array([[7, 25700]], np.uint16)), tmp_path / "g.png", transparency=7)
    assert pixels(deep, 2, stretch=True)[0].tolist() == [[255] * 3, [100] * 3]


def test_a_network_for_grey_images_gets_one_channel(tmp_path):
    """From colour, from grey as it is, and from 16 bits."""
    grey = noise(32, 32, 1)
    assert np.array_equal(pixels(saved(Image.fromarray(grey[..., 0]), tmp_path / "l.png"), channels=1), grey)
    assert (pixels(saved(Image.new("RGB", (32, 32), GREEN), tmp_path / "g.png"), channels=1) == 150).all()
    deep = Image.fromarray(np.full((32, 32), 25700, np.uint16))
    assert (pixels(saved(deep, tmp_path / "d.png"), channels=1) == 100).all()


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tiff"])
def test_the_first_frame_of_an_animation_counts(suffix, tmp_path):
    """Red, then blue."""
    first, second = (Image.new("RGB", (32, 32), colour) for colour in (RED, BLUE))
    path = saved(first, tmp_path / f"a.{suffix}", save_all=True, append_images=[second])
    assert np.abs(pixels(path).astype(int) - RED).max() <= 2


# What can't be read


def test_what_is_no_image_is_refused_with_the_reason(tmp_path):
    """Text, nothing at all, nothing there, a folder."""
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.jpg").touch()
    assert refusal(tmp_path / "text.png").startswith("not an image in a supported format (AVIF, BMP,")
    assert refusal(tmp_path / "empty.jpg").startswith("not an image in a supported format")
    assert refusal(tmp_path / "missing.png") == "No such file or directory"
    assert refusal(tmp_path) == "Is a directory"


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "tiff", "webp", "ppm"])
def test_a_truncated_image_is_refused(suffix, tmp_path):
    """Half a file is not half an image."""
    path = saved(photo(200, 200), tmp_path / f"a.{suffix}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert refusal(path)


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path):
    """A file of 69 bytes that says it is 60000 pixels wide and high."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(content)
    assert "3600000000 pixels" in refusal(tmp_path / "bomb.png")


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_grey_levels_without_a_known_white_are_refused(dtype, tmp_path):
    """Whether 1 or 255 is white is for the user to say."""
    path = saved(Image.fromarray(np.ones((32, 32), dtype)), tmp_path / "a.tiff")
    assert "have no defined white level" in refusal(path)


@pytest.fixture
def barred(tmp_path):
    """A folder that may not be read; root, who may read everything, is another user for so long."""
    folder = tmp_path / "barred"
    folder.mkdir(mode=0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield folder
    os.seteuid(user)


def test_what_may_not_be_read_is_refused_with_the_reason(barred):
    """A file there, and the folder itself when it is searched."""
    assert refusal(barred / "a.png") == "Permission denied"
    assert list(image_files.find([str(barred / "a.png")])) == [str(barred / "a.png")]
    assert list(image_files._search(str(barred), {".png"})) == [Unreadable(str(barred), "Permission denied")]


def test_an_image_is_read_from_standard_input(monkeypatch):
    """Its bytes as they are, whatever the format."""
    image = noise(32, 32)
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    content.seek(0)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(content))
    assert np.array_equal(pixels(STDIN), image)


# Folders


def test_folders_are_searched_in_the_order_of_their_names(tmp_path, monkeypatch):
    """Recursively, by suffix in any case; hidden files, other files, pipes and links to folders are passed over."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "b.png",
        "a/2.JPG",
        "a/10.webp",
        "a/deep/x.tif",
        ".hidden.png",
        ".thumbs/t.png",
        "notes.txt",
        "z.eps",
    ):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).touch()
    os.mkfifo(tmp_path / "photos/pipe.png")
    (tmp_path / "photos/loop").symlink_to(tmp_path / "photos")
    (tmp_path / "photos/gone.png").symlink_to("nowhere.png")
    found = list(image_files.find(["photos", "-", "z", "photos/a"]))
    assert found == [
        "photos/a/10.webp",
        "photos/a/2.JPG",
        "photos/a/deep/x.tif",
        "photos/b.png",
        "photos/gone.png",
        "-",
        "z",
        "photos/a/10.webp",
        "photos/a/2.JPG",
        "photos/a/deep/x.tif",
    ]


def test_a_folder_without_images_is_named(tmp_path):
    """With the suffixes that were looked for, and the others go on."""
    (tmp_path / "notes.txt").touch()
    empty, other = image_files.find([str(tmp_path), "a.png"])
    assert isinstance(empty, Unreadable)
    assert empty.name == str(tmp_path)
    assert "without images" in empty.reason
    assert {".png", ".jpg", ".jpeg", ".webp"} <= set(empty.reason.replace("(", " ").replace(")", " ").split())
    assert other == "a.png"
