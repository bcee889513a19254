"""Whatever Pillow can write is read as the values that it holds, or refused in one line; whatever its name."""

import io
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from sbbridge.data import DataError
from sbbridge.data.decoding import read_image
from sbbridge.data.folders import image_names, split_by_name

SIZE = 4
LOSSLESS = {
    "1": ("PNG", "BMP", "TIFF", "GIF", "PPM"),
    "L": ("PNG", "BMP", "TIFF", "GIF", "PPM", "WEBP"),
    "LA": ("PNG", "TIFF"),
    "P": ("PNG", "TIFF", "GIF"),
    "PA": ("TIFF",),
    "RGB": ("PNG", "BMP", "TIFF", "PPM", "WEBP"),
    "RGBA": ("PNG", "TIFF", "BMP"),
    "RGBX": ("TIFF",),
    "CMYK": ("TIFF",),
    "I;16": ("PNG", "TIFF", "PPM"),
    "I;16B": ("PNG", "TIFF"),
    "I": ("PNG", "TIFF", "PPM"),
    "F": ("TIFF", "PPM"),
    "LAB": ("TIFF",),
}
CASES = [(mode, kind) for mode, kinds in LOSSLESS.items() for kind in kinds]
BANDS = {"LA": 2, "PA": 2, "RGB": 3, "LAB": 3, "RGBA": 4, "RGBX": 4, "CMYK": 4}
PALETTE = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)


def picture(mode, data):
    """An image whose numbers these are, and the red, green and blue that they mean (None where nobody can know)."""
    grey = np.repeat(data[..., :1], 3, axis=2)
    if mode == "1":
        return Image.fromarray(data[..., 0] > 127), np.where(grey > 127, 255, 0)
    if mode in ("I;16", "I;16B", "I", "F"):
        values = data[..., 0].astype(np.uint16) * 256 + data[..., 1]
        wide = {"I;16": "<u2", "I;16B": ">u2", "I": np.int32, "F": np.float32}[mode]
        return Image.frombytes(mode, (SIZE, SIZE), values.astype(wide).tobytes()), grey
    pixels = data[..., : BANDS.get(mode, 1)]
    image = Image.frombytes(mode, (SIZE, SIZE), np.ascontiguousarray(pixels).tobytes())
    if mode in ("P", "PA"):
        image.putpalette(PALETTE.tobytes())
        return image, PALETTE[data[..., 0]]
    if mode == "CMYK":
        ink = 255.0 - data.astype(float)
        return image, np.round(ink[..., :3] * ink[..., 3:] / 255)
    return image, grey if mode in ("L", "LA") else None if mode == "LAB" else data[..., :3]


def written(mode, kind, image):
    buffer = io.BytesIO()
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    try:
        image.save(buffer, kind, **options)
    except (OSError, ValueError, KeyError):
        return None  # Pillow itself cannot
    return buffer.getvalue()


def read(content, name="a.png"):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        return read_image(path, SIZE)


def check_one_image(case, data):
    mode, kind = case
    image, expected = picture(mode, data)
    content = written(mode, kind, image)
    if content is None:
        return
    try:
        found = read(content).transpose(1, 2, 0)
    except DataError as problem:
        assert "\n" not in str(problem)
        assert mode in ("I", "F", "LAB"), problem
        return
    assert expected is not None, "numbers of no known range were read"
    tolerance = 1 if mode == "CMYK" else 0
    assert abs(found.astype(int) - expected.astype(int)).max() <= tolerance, (mode, kind)


PIXELS = hnp.arrays(np.uint8, (SIZE, SIZE, 4))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(CASES), PIXELS)
def test_every_mode_is_read_as_what_it_means(case, data):
    check_one_image(case, data)


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_each_mode_once(case):
    check_one_image(case, np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 4), dtype=np.uint8))


@pytest.mark.fuzz
@settings(max_examples=5000, deadline=None)
@given(st.sampled_from(CASES), PIXELS)
def test_every_mode_at_length(case, data):
    check_one_image(case, data)


class TestKnownTrouble:
    def test_the_ramp_of_16_bits_is_the_ramp_of_8(self, tmp_path):
        ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
        Image.fromarray(ramp).save(tmp_path / "16.png")
        Image.fromarray((ramp >> 8).astype(np.uint8)).save(tmp_path / "8.png")
        assert np.array_equal(read_image(tmp_path / "16.png", 8), read_image(tmp_path / "8.png", 8))
        assert len(np.unique(read_image(tmp_path / "16.png", 8))) == 64

    @pytest.mark.parametrize("colour", [2, 4, 6])
    def test_16_bits_of_colour_and_of_transparency(self, colour):
        """Pillow does not write these: PNG by hand."""
        import struct
        import zlib

        channels = {2: 3, 4: 2, 6: 4}[colour]
        values = np.random.default_rng(2).integers(0, 65536, (SIZE, SIZE, channels)).astype(">u2")
        rows = b"".join(b"\0" + row.tobytes() for row in values)
        parts = ((b"IHDR", struct.pack(">IIBBBBB", SIZE, SIZE, 16, colour, 0, 0, 0)), (b"IDAT", zlib.compress(rows)),
                 (b"IEND", b""))  # fmt: skip
        content = b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body)) for tag, body in parts
        )
        expected = np.broadcast_to(values[..., :3] if channels > 2 else values[..., :1], (SIZE, SIZE, 3)) >> 8
        assert np.array_equal(read(content).transpose(1, 2, 0), expected)

    @pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP"])
    def test_of_several_frames_the_first(self, kind):
        frames = [Image.new("RGB", (SIZE, SIZE), colour) for colour in ((250, 0, 0), (0, 250, 0))]
        buffer = io.BytesIO()
        options = {"lossless": True} if kind == "WEBP" else {}
        frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], **options)
        assert Image.open(io.BytesIO(buffer.getvalue())).n_frames == 2
        assert (read(buffer.getvalue()).transpose(1, 2, 0) == (250, 0, 0)).all()

    @pytest.mark.parametrize("mode", ["I;16", "L", "RGB", "CMYK"])
    @pytest.mark.parametrize("turn", range(1, 9))
    def test_every_orientation_is_turned_upright(self, mode, turn, tmp_path):
        upright = np.random.default_rng(3).integers(0, 256, (SIZE, SIZE, 4), dtype=np.uint8)
        image, expected = picture(mode, upright)
        stored = {
            1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
            4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90,
            7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
        }[turn]  # fmt: skip
        kind = "TIFF" if mode == "CMYK" else "PNG"
        exif = Image.Exif()
        exif[0x0112] = turn
        (image if stored is None else image.transpose(stored)).save(tmp_path / "a.png", kind, exif=exif)
        found = read_image(tmp_path / "a.png", SIZE).transpose(1, 2, 0).astype(int)
        assert abs(found - expected).max() <= (mode == "CMYK")

    @pytest.mark.parametrize("key", [0, b"\0\x80\xff" + b"\xff" * 253])
    def test_a_transparent_palette_keeps_its_colours(self, key, tmp_path, recwarn):
        data = np.random.default_rng(4).integers(0, 256, (SIZE, SIZE, 4), dtype=np.uint8)
        image, expected = picture("P", data)
        image.save(tmp_path / "a.png", transparency=key)
        assert np.array_equal(read_image(tmp_path / "a.png", SIZE).transpose(1, 2, 0), expected)
        assert not recwarn

    @pytest.mark.parametrize(("tag", "value"), [(262, 0), (339, 2), (258, 12)])
    def test_inverted_signed_and_packed_numbers_are_refused(self, tag, value, tmp_path):
        """Pillow does not write these: the tag is changed in the file."""
        import struct

        image = Image.fromarray(np.arange(16, dtype=np.uint16).reshape(4, 4))
        image.save(tmp_path / "a.png", "TIFF", tiffinfo={339: 1})
        content = (tmp_path / "a.png").read_bytes()
        place = content.index(struct.pack("<HHI", tag, 3, 1)) + 8
        (tmp_path / "a.png").write_bytes(content[:place] + struct.pack("<H", value) + content[place + 2 :])
        with pytest.raises(DataError, match=r"a\.png: not a readable image \("):
            read_image(tmp_path / "a.png", 4)

    def test_an_image_smaller_than_the_crop_is_refused(self, tmp_path):
        Image.new("RGB", (8, 20), "white").save(tmp_path / "a.png")
        with pytest.raises(DataError, match="8 x 20 pixels, the crop has 10"):
            read_image(tmp_path / "a.png", 5, crop=10)

    def test_a_pipe_is_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "a.png")
        with pytest.raises(DataError, match="it is no file"):
            read_image(tmp_path / "a.png", 5)


NAMES = st.binary(min_size=1, max_size=200).filter(lambda name: not set(name) & {0, 47} and name not in (b".", b".."))


def check_any_name(name):
    buffer = io.BytesIO()
    Image.new("RGB", (SIZE, SIZE), (1, 2, 3)).save(buffer, "PNG")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "z.png").write_bytes(buffer.getvalue())
        path = folder / (os.fsdecode(name) + ".png")
        path.write_bytes(buffer.getvalue())
        names = image_names(folder, "test")
        assert (path.name in names) == (not name.startswith(b"."))
        assert sum(map(len, split_by_name(names).values())) == len(names)
        assert (read_image(path, SIZE)[:, 0, 0] == (1, 2, 3)).all()
        path.write_bytes(b"no image")
        with pytest.raises(DataError) as caught:
            read_image(path, SIZE)
        message = str(caught.value)
        assert message.isprintable()
        message.encode()


@settings(max_examples=50, deadline=None)
@given(NAMES)
@example(b"caf\xe9")
@example(b"what?.#%41*[:'\"\n")
@example(b"-rf")
@example(b"n" * 200)
@example("\u2028\u0085\U0001f600".encode())
def test_any_name_is_read_or_named(name):
    check_any_name(name)


@pytest.mark.fuzz
@settings(max_examples=3000, deadline=None)
@given(NAMES)
def test_any_name_at_length(name):
    check_any_name(name)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_damaged_file_is_read_or_named(data):
    buffer = io.BytesIO()
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"]))
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=3)):
        content[place] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    try:
        assert read(bytes(content)).shape == (3, SIZE, SIZE)
    except DataError as problem:
        assert str(problem).isprintable()
