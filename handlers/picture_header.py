"""What a picture's first bytes tell: its format and its size, without decoding anything.

Pure, microseconds: may run on the reactor. Formats are told by their magic numbers, never by a name or a
Content-Type.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rowserve.graphs.rows import Buffer
from rowserve.handlers.problem import Problem

TAKEN = "JPEG, PNG, WebP, GIF or BMP"
JPEG_SEGMENTS = 4096  # the largest colour profile takes 255; walking more would hold the reactor up
NO_LENGTH = frozenset((0x01, *range(0xD0, 0xD8)))  # JPEG markers that stand alone
FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG markers that start a frame and tell its size
SEQUENTIAL = frozenset((0xC0, 0xC1, 0xC9))
COEFFICIENT = 2  # bytes
SCAN, END = 0xDA, 0xD9
GIF_BLOCKS = 4096  # of comments and the like before the first frame; walking more would hold the reactor up
EXTENSION, IMAGE = 0x21, 0x2C  # what a GIF's blocks begin with


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
    """The logical screen, or what the first frame makes of it where that is larger."""
    width, height, flags = struct.unpack_from("<HHB", view, 6)
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    left_to_walk = GIF_BLOCKS
    while left_to_walk:
        left_to_walk -= 1
        kind, at = view[at], at + 1
        if kind == IMAGE:
            left, top, frame_width, frame_height = struct.unpack_from("<HHHH", view, at)
            return max(width, left + frame_width), max(height, top + frame_height)
        if kind == EXTENSION:
            at += 1
            while view[at] and left_to_walk:
                at += 1 + view[at]
                left_to_walk -= 1
            at += 1
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
    for marker, at in jpeg_segments(view):
        if marker in FRAME:
            height, width = struct.unpack_from(">HH", view, at + 3)
            return width, height
        if marker in (SCAN, END):
            break
    raise broken_picture("a JPEG without a frame header")


def jpeg_segments(view: memoryview) -> Iterator[tuple[int, int]]:
    """Each marker of a JPEG, and where what follows it begins."""
    at = 2
    for _ in range(JPEG_SEGMENTS):
        while view[at] == 0xFF:
            at += 1
        marker = view[at]
        at += 1
        yield marker, at
        if marker not in NO_LENGTH:
            (length,) = struct.unpack_from(">H", view, at)
            at += max(length, 2)
        if view[at] != 0xFF:
            break


def jpeg_coefficients(upload: Buffer) -> int:
    """The bytes of a JPEG's coefficients where its decoder keeps all of them, as it does where there are several scans;
    0 where it need not."""
    view = memoryview(upload)
    kept = 0
    try:
        for marker, at in jpeg_segments(view):
            if marker in FRAME:
                height, width, components = struct.unpack_from(">HHB", view, at + 3)
                factors = [divmod(view[at + 9 + 3 * each], 16) for each in range(components)]
                across, down = (max([1, *(factor[way] for factor in factors)]) * 8 for way in (0, 1))
                blocks = -(-width // across) * -(-height // down) * sum(wide * high for wide, high in factors)
                kept = blocks * 64 * COEFFICIENT
                at_once = marker in SEQUENTIAL and components
            elif marker == SCAN:
                return 0 if kept and view[at + 2] == at_once else kept
    except (struct.error, IndexError):
        pass  # it ends here: its decoder will say so
    return kept


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
