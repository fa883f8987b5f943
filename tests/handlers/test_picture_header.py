"""Format and size by the first bytes."""

from __future__ import annotations

import io
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rowserve.handlers.picture_header import PictureHeader, picture_header
from rowserve.handlers.problem import Problem


def encoded(kind: str, size: tuple[int, int] = (37, 23), mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, 77).save(file, kind, **options)
    return file.getvalue()


SAMPLES = {
    "JPEG": encoded("JPEG"),
    "JPEG progressive": encoded("JPEG", progressive=True),
    "JPEG with a large profile": encoded("JPEG", icc_profile=bytes(200_000)),
    "JPEG with EXIF": encoded("JPEG", exif=Image.Exif().tobytes()),
    "PNG": encoded("PNG"),
    "GIF": encoded("GIF"),
    "BMP": encoded("BMP"),
    "WEBP lossy": encoded("WEBP"),
    "WEBP lossless": encoded("WEBP", lossless=True),
    "WEBP extended": encoded("WEBP", mode="RGBA", exif=Image.Exif().tobytes()),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_the_size_that_pillow_finds(name: str):
    assert picture_header(SAMPLES[name]) == PictureHeader(name.split()[0], 37, 23)
    assert picture_header(memoryview(SAMPLES[name])).width == 37


def test_an_upside_down_bmp_and_an_old_one():
    old = b"BM" + bytes(12) + struct.pack("<IHH", 12, 37, 23)
    turned = b"BM" + bytes(12) + struct.pack("<Iii", 40, 37, -23)
    assert picture_header(old) == picture_header(turned) == PictureHeader("BMP", 37, 23)


Pair = tuple[int, int]


def gif(screen: Pair, before: bytes, corner: Pair, frame: Pair, flags: int = 0) -> bytes:
    """The beginning of a GIF: a screen, a table of colours, what comes before the first frame, and that frame."""
    table = bytes(3 << (flags & 7) + 1 if flags & 0x80 else 0)
    start = b"GIF89a" + struct.pack("<HHBBB", *screen, flags, 0, 0)
    return start + table + before + b"," + struct.pack("<HHHHB", *corner, *frame, 0)


COMMENT = b"!\xfe\3abc\2de\0"


@pytest.mark.parametrize("flags", [0, 0x80, 0x87])
@pytest.mark.parametrize("before", [b"", COMMENT, 7 * COMMENT, b"\0\0"])
def test_a_gif_is_as_large_as_its_first_frame_makes_it(before: bytes, flags: int):
    assert picture_header(gif((9, 9), before, (0, 0), (9, 9), flags)) == PictureHeader("GIF", 9, 9)
    assert picture_header(gif((9, 9), before, (2, 3), (4, 4), flags)) == PictureHeader("GIF", 9, 9)
    assert picture_header(gif((9, 9), before, (5, 700), (8, 400), flags)) == PictureHeader("GIF", 13, 1100)


@pytest.mark.parametrize("many", [50_000 * b"!\xfe\0", b"!\xfe" + 50_000 * b"\1a" + b"\0"])
def test_behind_very_many_comments_only_the_screen_is_told(many: bytes):
    assert picture_header(gif((9, 9), many, (0, 0), (700, 700))) == PictureHeader("GIF", 9, 9)


@pytest.mark.parametrize(
    ("upload", "words"),
    [
        (b"", "empty"),
        (b"hello world, this is text", "no picture that is known"),
        (b"II*\0" + bytes(40), "TIFF is not taken; send JPEG, PNG, WebP, GIF or BMP"),
        (b"%PDF-1.7" + bytes(40), "PDF is not taken"),
        (b"\0\0\0\x20ftypavif" + bytes(40), "HEIC or AVIF is not taken"),
        (SAMPLES["PNG"][:20], "truncated PNG"),
        (SAMPLES["JPEG"][:100], "truncated JPEG"),
        (SAMPLES["GIF"][:8], "truncated GIF"),
        (SAMPLES["BMP"][:20], "truncated BMP"),
        (SAMPLES["WEBP lossy"][:26], "truncated WEBP"),
        (b"\xff\xd8\xff\xda" + bytes(40), "without a frame header"),
        (b"\xff\xd8" + b"\xff\xe0\0\2" * 10_000, "without a frame header"),
        (encoded("PNG").replace(struct.pack(">I", 37), bytes(4), 1), "0 x 23 pixels"),
    ],
)
def test_what_is_wrong_is_said(upload: bytes, words: str):
    with pytest.raises(Problem) as caught:
        picture_header(upload)
    assert caught.value.status == 422
    assert words in caught.value.detail


@given(st.sampled_from(sorted(SAMPLES)), st.data())
def test_mutated_headers_raise_nothing_but_problems(name: str, data: st.DataObject):
    upload = bytearray(SAMPLES[name])
    for _ in range(data.draw(st.integers(1, 6))):
        upload[data.draw(st.integers(0, min(len(upload), 200) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(upload[: data.draw(st.integers(0, len(upload)))])
    status, size = 422, 1
    try:
        header = picture_header(cut)
        size = header.width * header.height
    except Problem as problem:
        status = problem.status
    assert status == 422
    assert size > 0
