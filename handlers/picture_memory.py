"""What decoding a picture takes at its peak, as its first bytes tell. Pure, microseconds.

The factors were measured (`python -m benchmarks picture_memory`), and hold for what Pillow and its libraries take.
"""

from __future__ import annotations

from rowserve.graphs.rows import Buffer
from rowserve.handlers import picture_strips
from rowserve.handlers.picture_header import PictureHeader, jpeg_coefficients
from rowserve.handlers.picture_strips import columns_first, in_strips

# Of a decoded pixel. A GIF has one, and a second where its frame is no more than a part of its screen; WebP's library
# keeps two pictures to draw animations on and a plane of alpha, hands out a copy, and Pillow makes its own of that.
PIXEL_BYTES = {"PNG": 4, "BMP": 4, "JPEG": 4, "GIF": 2, "WEBP": 17}
COPIED_BYTES = 12  # of a pixel of a small picture: flat, turned, and a strip on the way there
STRIP_BYTES = 16  # of a pixel of a strip
FIXED_BYTES = 4 << 20  # what the allocator keeps of strips that have gone, and the like
SMALL = 1 << 20  # pixels of pictures of which it does not pay to know more than the most that any takes
MOST_BYTES = 32  # of their pixels, copies included
BLOCK = 32  # pixels to which a JPEG is filled up, at the most


def peak_bytes(upload: Buffer, header: PictureHeader, decoded: tuple[int, int], row: tuple[int, int]) -> int:
    """Bytes beside the row. `decoded` is (width, height) as it leaves the decoder, `row` that of the row.

    Whether the picture will be turned is not known yet: it counts as what takes more.
    """
    pixels = decoded[0] * decoded[1]
    held = len(upload) + pixels * PIXEL_BYTES[header.format]
    if header.format == "JPEG":
        held += jpeg_coefficients(upload)
    return held + FIXED_BYTES + max(resizing_bytes(size, row) for size in (decoded, decoded[::-1]))


def resizing_bytes(size: tuple[int, int], row: tuple[int, int]) -> int:
    """Of a picture that is so large when it is seen upright: what comes out of the first pass, and copies."""
    passed = size[0] * row[1] if columns_first(size, row) else row[0] * size[1]
    if in_strips(size, row):
        return 4 * passed + STRIP_BYTES * max(picture_strips.PIXELS, *size)
    return 4 * passed + COPIED_BYTES * size[0] * size[1]


def small_peak_bytes(upload: Buffer, header: PictureHeader, row: tuple[int, int]) -> int:
    """The same of a picture of at most SMALL pixels, in a microsecond: never less than it takes."""
    width, height = header.width + BLOCK, header.height + BLOCK
    return len(upload) + FIXED_BYTES + MOST_BYTES * width * height + 4 * max(width, height) * max(row)
