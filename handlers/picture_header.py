"""What a picture's first bytes tell: its format and its size, without decoding anything.

Pure, microseconds: may run on the reactor. Formats are told by their magic numbers, never by a name or a
Content-Type.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from rowserve.graphs.rows import Buffer
from rowserve.handlers.problem import Problem

TAKEN = "JPEG, PNG, WebP, GIF or BMP"
JPEG_SEGMENTS = 4096  # the largest colour profile takes 255; walking more would hold the reactor up
NO_LENGTH = frozenset((0x01, *range(0xD0, 0xD8)))  # JPEG markers that stand alone
FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG markers that start a frame and tell its size
SCAN, END = 0xDA, 0xD9


@dataclass(frozen=True, slots=True)
class PictureHeader:
    """`format` is Pillow's name; `width` and `height` in pixels, as stored (before any EXIF turn)."""

    format: str
    width: int
    height: int


def not_a_picture(detail: str) -> Problem:
    """The upload is something else."""
    return Problem(422, detail, title="Not a picture", reason="not_a_picture")


def broken_picture(detail: str) -> Problem:
    """The upload is a picture that cannot be read to its end."""
    return Problem(422, detail, title="Broken picture", reason="broken_picture")


def picture_header(upload: Buffer) -> PictureHeader:
    """Format and size of an upload. Raises Problem 422."""
    view = memoryview(upload)
    start = bytes(view[:16])
    if not start:
        raise not_a_picture("the upload is empty")
    for name, known, size in FORMATS:
        if known(start):
            try:
                width, height = size(view)
            except (struct.error, IndexError):
                told = f"truncated {name}: its {len(view)} bytes end before its size is told"
                raise broken_picture(told) from None
            if width <= 0 or height <= 0:
                raise broken_picture(f"a {name} of {width} x {height} pixels")
            return PictureHeader(name, width, height)
    found = foreign(start)
    told = f"{found} is not taken" if found else "this is no picture that is known here"
    raise not_a_picture(f"{told}; send {TAKEN}")


def png_size(view: memoryview) -> tuple[int, int]:
    """IHDR is the first chunk of every PNG."""
    if bytes(view[12:16]) != b"IHDR":
        raise broken_picture("a PNG whose first chunk is not IHDR")
    width, height = struct.unpack_from(">II", view, 16)
    return width, height


def gif_size(view: memoryview) -> tuple[int, int]:
    """The logical screen."""
    width, height = struct.unpack_from("<HH", view, 6)
    return width, height


def bmp_size(view: memoryview) -> tuple[int, int]:
    """A negative height only turns the order of the lines."""
    (header,) = struct.unpack_from("<I", view, 14)
    if header == 12:
        width, height = struct.unpack_from("<HH", view, 18)
    else:
        width, height = struct.unpack_from("<ii", view, 18)
    return width, abs(height)


def webp_size(view: memoryview) -> tuple[int, int]:
    """Lossy, lossless and extended files tell it in three ways."""
    kind = bytes(view[12:16])
    if kind == b"VP8X":
        if len(view) < 30:
            raise IndexError
        return 1 + int.from_bytes(view[24:27], "little"), 1 + int.from_bytes(view[27:30], "little")
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", view, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", view, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise broken_picture("a WebP file that starts with no picture")


def jpeg_size(view: memoryview) -> tuple[int, int]:
    """The first frame header, behind any number of other segments (within reason)."""
    at = 2
    for _ in range(JPEG_SEGMENTS):
        while view[at] == 0xFF:
            at += 1
        marker = view[at]
        at += 1
        if marker in FRAME:
            height, width = struct.unpack_from(">HH", view, at + 3)
            return width, height
        if marker in (SCAN, END):
            break
        if marker not in NO_LENGTH:
            (length,) = struct.unpack_from(">H", view, at)
            at += max(length, 2)
        if view[at] != 0xFF:
            break
    raise broken_picture("a JPEG without a frame header")


def jpeg_scans(upload: Buffer) -> int:
    """How many scans a JPEG has at most: the marker also counts where metadata happen to hold its two bytes."""
    return bytes(upload).count(bytes((0xFF, SCAN)))


def foreign(start: bytes) -> str:
    """The name of a format that is known but not taken, or ""."""
    for magic, name in FOREIGN:
        if start.startswith(magic):
            return name
    if start[4:8] == b"ftyp":
        return "HEIC or AVIF"
    return ""


FORMATS: tuple[tuple[str, Callable[[bytes], bool], Callable[[memoryview], tuple[int, int]]], ...] = (
    ("JPEG", lambda start: start.startswith(b"\xff\xd8\xff"), jpeg_size),
    ("PNG", lambda start: start.startswith(b"\x89PNG\r\n\x1a\n"), png_size),
    ("WEBP", lambda start: start.startswith(b"RIFF") and start[8:12] == b"WEBP", webp_size),
    ("GIF", lambda start: start.startswith((b"GIF87a", b"GIF89a")), gif_size),
    ("BMP", lambda start: start.startswith(b"BM"), bmp_size),
)
FOREIGN = (
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"%PDF", "PDF"),
    (b"<svg", "SVG"),
    (b"<?xml", "XML"),
    (b"\0\0\1\0", "ICO"),
    (b"8BPS", "PSD"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"SIMPLE", "FITS"),
    (b"PK\3\4", "a zip file"),
    (b"\x1f\x8b", "a gzip file"),
)
