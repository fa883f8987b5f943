"""Strips give the very pixels that the whole picture gives, for every filter, turn, mode, box and order of passes."""

from __future__ import annotations

import io
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.handlers import picture_strips, pictures
from rowserve.handlers.picture_settings import PictureCard, picture_settings
from rowserve.handlers.picture_strips import TURNS, columns_first, in_strips, resized_in_strips, turned_size
from rowserve.handlers.pictures import FILTERS, Decoder, centred_box, flat

SIDES = st.integers(1, 60)
KINDS = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "L keyed", "P keyed", "P clear", "RGB keyed"),
    "GIF": ("L", "P", "P keyed"),
    "BMP": ("1", "L", "P", "RGB"),
    "WEBP": ("RGB", "RGBA"),
    "JPEG": ("L", "RGB", "CMYK"),
}


def noise(mode: str, width: int, height: int, seed: int) -> Image.Image:
    """A picture of that mode without two pixels alike."""
    random = np.random.default_rng(seed)
    if mode == "I;16":
        return Image.fromarray(random.integers(0, 65536, (height, width), np.uint16))
    if mode in ("P", "1"):
        return Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).convert(mode)
    shape = (height, width, len(mode)) if len(mode) > 1 else (height, width)
    made = Image.fromarray(random.integers(0, 256, shape, np.uint8).view())
    return made if mode == made.mode else Image.frombytes(mode, (width, height), made.tobytes())


def upload(kind: str, name: str, width: int, height: int, turn: int, seed: int) -> bytes:
    """A file."""
    mode, _, clear = name.partition(" ")
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    if clear:
        options["transparency"] = bytes(range(256)) if clear == "clear" else (9, 9, 9) if mode == "RGB" else 7
    if kind in ("PNG", "WEBP", "JPEG"):
        exif = Image.Exif()
        exif[pictures.ORIENTATION] = turn
        options["exif"] = exif
    file = io.BytesIO()
    noise(mode, width, height, seed).save(file, kind, **options)
    return file.getvalue()


def as_a_whole(file: bytes, card: PictureCard, size: tuple[int, int], turn: int) -> Image.Image:
    """The plain way: each step on all of the picture."""
    with Image.open(io.BytesIO(file)) as picture:
        picture.load()
        image = flat(picture, "L" if card.colour == "grey" else "RGB")
    image = image if turn == 1 else image.transpose(TURNS[turn])
    if card.fit == "stretch":
        return image.resize(size, FILTERS[card.filter])
    if card.fit == "crop":
        return image.resize(size, FILTERS[card.filter], centred_box(image.size, size))
    scale = min(size[0] / image.width, size[1] / image.height)
    inner = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    framed = Image.new(image.mode, size)
    framed.paste(image.resize(inner, FILTERS[card.filter]), ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
    return framed


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in KINDS.items() for name in names])
@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@given(
    SIDES, SIDES, SIDES, SIDES, st.integers(1, 8), st.sampled_from(("crop", "pad", "stretch")),
    st.sampled_from(sorted(FILTERS)), st.sampled_from(("rgb", "grey")), st.sampled_from((1, 50, 400)),
    st.integers(0, 99),
)  # fmt: skip
def test_a_row_is_that_of_the_whole_picture(
    kind, name, width, height, row_width, row_height, turn, fit, how, colour, strip, seed
):
    file = upload(kind, name, width, height, turn, seed)
    card = PictureCard(fit=fit, filter=how, colour=colour)
    spec = TensorSpec("x", "uint8", (row_height, row_width, 3 if colour == "rgb" else 1))
    decoder = Decoder(picture_settings(card, Signature("s", (spec,), ())))
    turn = turn if kind in ("PNG", "WEBP", "JPEG") else 1
    unreduced = mock.patch.object(Decoder, "_draft")
    with unreduced, mock.patch.multiple(picture_strips, LARGE=0, PIXELS=strip):
        row = decoder.decode(file).arrays["x"]
    whole = np.asarray(as_a_whole(file, card, (row_width, row_height), turn))
    assert np.array_equal(row.reshape(whole.shape), whole)


@pytest.mark.parametrize("how", FILTERS)
@pytest.mark.parametrize("size", [(40, 30), (30, 30), (30, 31), (20, 20), (20, 30), (20, 29), (20, 9), (40, 51)])
def test_the_order_of_passes_is_pillows(how, size, monkeypatch):
    """At, and beside, the place where Pillow turns to columns first."""
    picture = noise("RGB", 40, 50, 3)
    monkeypatch.setattr(picture_strips, "LARGE", 0)
    assert in_strips(picture.size, size)
    whole = picture.resize(size, FILTERS[how])
    strips = resized_in_strips(picture, 1, lambda part: part, size, FILTERS[how], (0, 0, 40, 50))
    assert strips.tobytes() == whole.tobytes()


def test_both_orders_are_tried():
    assert {columns_first((40, 50), size) for size in ((30, 31), (30, 29))} == {False, picture_strips.COLUMNS_FIRST}


@given(SIDES, SIDES, st.integers(1, 8), st.data())
def test_parts_are_read_and_written_where_they_are_seen(width, height, turn, data):
    stored = noise("RGB", width, height, 5)
    upright = stored if turn == 1 else stored.transpose(TURNS[turn])
    turned = picture_strips.TurnedPicture(stored.copy(), turn)
    assert turned.size == upright.size == turned_size(stored.size, turn)
    left, top = data.draw(st.integers(0, upright.width - 1)), data.draw(st.integers(0, upright.height - 1))
    right, bottom = data.draw(st.integers(left + 1, upright.width)), data.draw(st.integers(top + 1, upright.height))
    assert turned.read(left, top, right, bottom).tobytes() == upright.crop((left, top, right, bottom)).tobytes()
    part = noise("RGB", right - left, bottom - top, 6)
    turned.write(part, left, top)
    upright.paste(part, (left, top))
    assert turned.read(0, 0, *upright.size).tobytes() == upright.tobytes()


def test_a_strip_is_read_before_it_is_written_over(monkeypatch):
    """With strips of a row each, what was written would be read again if they ever overlapped."""
    monkeypatch.setattr(picture_strips, "PIXELS", 1)
    how = FILTERS["lanczos"]
    for turn in range(1, 9):
        picture = noise("RGB", 31, 29, turn)
        width, height = turned_size(picture.size, turn)
        whole = flat(picture, "L") if turn == 1 else flat(picture, "L").transpose(TURNS[turn])
        box = (0, 0, width, height)
        strips = resized_in_strips(picture.copy(), turn, lambda part: flat(part, "L"), (width, 5), how, box)
        assert strips.tobytes() == whole.resize((width, 5), how).tobytes()
