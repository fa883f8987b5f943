"""A large picture resized a strip at a time, so that beside it no second one is ever in memory. Any thread.

Pillow resizes in two passes: each row to the width wanted, and each column of what came of that to the height; or
columns first. So strips may go through the first pass, and strips that lie across them through the second, and every
pixel is what it would have been.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import PIL
from PIL import Image

Box = tuple[float, float, float, float]
Flat = Callable[[Image.Image], Image.Image]
LARGE = 1 << 22  # pixels of a picture; a smaller one takes little whatever is done to it
PIXELS = 1 << 17  # of a strip, about: it and its copies stay in the cache of a core
SUPPORT = 3  # the widest of Pillow's filters sees so many pixels each way, of the smaller picture
# Modes in which the resized rows fit into the place of those that they came from; grey ones only come from grey ones.
ROOMY = frozenset(("L", "LA", "RGB", "RGBA"))
SIDEWAYS = frozenset((5, 6, 7, 8))  # EXIF orientations that swap width and height
MIRRORED = frozenset((2, 3, 6, 7))  # those in which x runs backwards, as seen upright
UPSIDE_DOWN = frozenset((3, 4, 7, 8))  # and y
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Turned, and then mirrored in the diagonal: one more of the eight.
ACROSS = {1: 5, 5: 1, 2: 8, 8: 2, 3: 7, 7: 3, 4: 6, 6: 4}
COLUMNS_FIRST = int(PIL.__version__.partition(".")[0]) >= 13  # where the height shrinks by most; before, never
BACK = {**TURNS, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


class TurnedPicture:
    """A picture as it is seen upright, by its EXIF orientation `turn`; only what is read of it is turned."""

    def __init__(self, picture: Image.Image, turn: int) -> None:
        self.size = turned_size(picture.size, turn)
        self._picture = picture
        self._turn = turn

    def read(self, left: int, top: int, right: int, bottom: int) -> Image.Image:
        """A copy of a part, in the picture's own mode."""
        part = self._picture.crop(self._stored(left, top, right, bottom))
        return part if self._turn == 1 else part.transpose(TURNS[self._turn])

    def write(self, part: Image.Image, left: int, top: int) -> None:
        """Puts `part` over what is there, in the picture's own mode."""
        box = self._stored(left, top, left + part.width, top + part.height)
        self._picture.paste(part if self._turn == 1 else part.transpose(BACK[self._turn]), box)

    def _stored(self, left: int, top: int, right: int, bottom: int) -> tuple[int, int, int, int]:
        """The same box in the picture as it is stored."""
        width, height = self.size
        if self._turn in MIRRORED:
            left, right = width - right, width - left
        if self._turn in UPSIDE_DOWN:
            top, bottom = height - bottom, height - top
        return (top, left, bottom, right) if self._turn in SIDEWAYS else (left, top, right, bottom)


def turned_size(size: tuple[int, int], turn: int) -> tuple[int, int]:
    """Width and height of a picture seen upright."""
    return (size[1], size[0]) if turn in SIDEWAYS else size


def columns_first(size: tuple[int, int], wanted: tuple[int, int]) -> bool:
    """Which of its passes Pillow makes first."""
    shorter, narrower = size[1] - wanted[1], size[0] - wanted[0]
    return COLUMNS_FIRST and shorter > max(0, 2 * narrower)


def in_strips(size: tuple[int, int], wanted: tuple[int, int]) -> bool:
    """Whether it is worth it, and the first pass does not make the picture larger than it is."""
    return size[0] * size[1] > LARGE and (columns_first(size, wanted) or wanted[0] <= size[0])


def resized_in_strips(
    picture: Image.Image, turn: int, flat: Flat, size: tuple[int, int], how: Image.Resampling, box: Box
) -> Image.Image:
    """`flat` of the picture, turned, then resized to `size` from `box`. The picture is used up.

    `flat` gives each pixel its colour, whatever stands beside it: "RGB" or "L". See `in_strips`.
    """
    if not columns_first(turned_size(picture.size, turn), size):
        return rows_first(picture, turn, flat, size, how, box)
    left, top, right, bottom = box
    mirrored = rows_first(picture, ACROSS[turn], flat, (size[1], size[0]), how, (top, left, bottom, right))
    return mirrored.transpose(Image.Transpose.TRANSPOSE)


def rows_first(
    picture: Image.Image, turn: int, flat: Flat, size: tuple[int, int], how: Image.Resampling, box: Box
) -> Image.Image:
    """Both passes, in this order."""
    turned = TurnedPicture(picture, turn)
    (width, height), (left, top, right, bottom) = turned.size, box
    reach = SUPPORT * max((bottom - top) / size[1], 1) + 1
    first, last = max(int(top - reach), 0), min(int(bottom + reach) + 1, height)
    mode = flat(picture.crop((0, 0, 1, 1))).mode
    narrow = turned if picture.mode in ROOMY else TurnedPicture(Image.new(mode, (size[0], height)), 1)
    for start, end in spans(first, last, PIXELS // width):
        rows = flat(turned.read(0, start, width, end))
        narrow.write(rows.resize((size[0], end - start), how, (left, 0, right, end - start)), 0, start)
    found = Image.new(mode, size)
    for start, end in spans(0, size[0], PIXELS // height):
        columns = narrow.read(start, 0, end, height).convert(mode)
        found.paste(columns.resize((end - start, size[1]), how, (0, top, end - start, bottom)), (start, 0))
    return found


def spans(first: int, last: int, step: int) -> Iterator[tuple[int, int]]:
    """From `first` to `last` in steps."""
    step = max(step, 1)
    for start in range(first, last, step):
        yield start, min(start + step, last)
