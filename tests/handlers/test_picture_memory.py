"""Decoding takes the memory that it says it takes, and for most formats no more than 4 bytes a pixel."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.handlers.picture_header import PictureHeader, jpeg_coefficients
from rowserve.handlers.picture_memory import SMALL, peak_bytes, small_peak_bytes
from rowserve.handlers.picture_settings import PictureCard, picture_settings
from rowserve.handlers.pictures import ORIENTATION, Decoder
from rowserve.handlers.problem import Problem

SIDE = 3000
MIB = 1 << 20
KEPT = 32 * MIB  # smaller pieces of memory the process keeps for the next picture
# Mode, format, options, and the bytes a pixel that are promised, where they are.
FILES: dict[str, tuple[str, str, dict[str, Any], float | None]] = {
    "PNG": ("RGB", "PNG", {}, 4),
    "PNG on its side": ("RGB", "PNG", {"turn": 6}, 4),
    "PNG upside down": ("RGB", "PNG", {"turn": 4}, 4),
    "PNG see-through": ("RGBA", "PNG", {}, 4),
    "PNG see-through on its side": ("RGBA", "PNG", {"turn": 7}, 4),
    "PNG grey": ("L", "PNG", {}, 4),
    "PNG grey see-through": ("LA", "PNG", {}, 4),
    "PNG of 16 bits": ("I;16", "PNG", {}, 4),
    "PNG palette": ("P", "PNG", {}, 4),
    "PNG palette see-through": ("P", "PNG", {"transparency": 1}, 4),
    "PNG one colour see-through": ("RGB", "PNG", {"transparency": (90, 120, 30)}, 4),
    "PNG one bit": ("1", "PNG", {}, 4),
    "BMP": ("RGB", "BMP", {}, 4),
    "BMP palette": ("P", "BMP", {}, 4),
    "GIF": ("P", "GIF", {}, 4),
    "JPEG": ("RGB", "JPEG", {}, 4),
    "JPEG CMYK": ("CMYK", "JPEG", {}, 4),
    "JPEG progressive 4:2:0": ("RGB", "JPEG", {"progressive": True, "subsampling": 2}, 4),
    "JPEG progressive 4:4:4": ("RGB", "JPEG", {"progressive": True, "subsampling": 0}, None),
    "JPEG progressive CMYK": ("CMYK", "JPEG", {"progressive": True}, None),
    "WebP": ("RGB", "WEBP", {"method": 0}, None),
    "WebP see-through": ("RGBA", "WEBP", {"method": 0}, None),
    "WebP lossless": ("RGBA", "WEBP", {"method": 0, "lossless": True, "quality": 0}, None),
}
CHILD = """
import json, os, sys, threading
from pathlib import Path
from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.handlers import picture_strips
from rowserve.handlers.picture_settings import PictureCard, picture_settings
from rowserve.handlers.pictures import Decoder
from rowserve.tools.allocator import keep_freed_memory

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))

def decode(upload):
    decoding = threading.Thread(target=decoder.decode, args=(upload,))
    decoding.start()
    decoding.join()

spec = TensorSpec("images", "uint8", (224, 224, 3))
decoder = Decoder(picture_settings(PictureCard(), Signature("", (spec,), ())))
keep_freed_memory()  # as the server does, which decodes on threads, too
small, large = (sorted(Path(folder).iterdir()) for folder in sys.argv[1:])

def warm_up():
    for usual in (picture_strips.LARGE, 0):
        kept, picture_strips.LARGE = picture_strips.LARGE, usual
        for file in small:
            decode(file.read_bytes())
        picture_strips.LARGE = kept

warm_up()  # now all is imported
for file in large:
    if os.fork():
        os.wait()
        continue
    warm_up()  # a forked process has none of the pages of the code
    upload = file.read_bytes()
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    decode(upload)
    told = [status("VmHWM") - before, status("VmRSS") - before, decoder.peak_bytes(upload)]
    print(json.dumps([file.name, *told]), flush=True)
    os._exit(0)
"""


def upload(mode: str, kind: str, options: dict[str, Any], side: int = SIDE) -> bytes:
    """A flat picture's file."""
    how = dict(options)
    if turn := how.pop("turn", 0):
        how["exif"] = Image.Exif()
        how["exif"][ORIENTATION] = turn
    if kind == "PNG":
        how["compress_level"] = 1
    colour: Any = (90, 120, 30, 128)[: len(mode)] if mode in ("LA", "RGB", "RGBA", "CMYK") else 1
    file = io.BytesIO()
    Image.new(mode, (side, side), colour).save(file, kind, **how)
    return file.getvalue()


def test_decoding_takes_what_it_says_and_gives_it_back(tmp_path: Path):
    folders = {64: tmp_path / "small", SIDE: tmp_path / "large"}
    for side, folder in folders.items():
        folder.mkdir()
        for name, (mode, kind, options, _) in FILES.items():
            (folder / name).write_bytes(upload(mode, kind, options, side))
    command: list[str | Path] = [sys.executable, "-c", CHILD, *folders.values()]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    taken = {name: figures for name, *figures in map(json.loads, told.splitlines())}
    assert list(taken) == sorted(FILES)
    for name, (peak, after, said) in taken.items():
        most = FILES[name][3]
        assert peak <= said, name
        assert said <= 2 * peak + SIDE * SIDE * 4 + 8 * MIB, name
        assert after <= KEPT or "progressive" in name, name  # whose coefficients are several such pieces
        if most is not None:
            assert peak <= most * SIDE * SIDE + 6 * MIB, name  # the strips, and pages of code


def decoder(card: PictureCard, side: int = 64) -> Decoder:
    return Decoder(picture_settings(card, Signature("s", (TensorSpec("x", "uint8", (side, side, 3)),), ())))


def test_a_jpeg_counts_at_the_scale_at_which_it_is_decoded():
    file = upload("RGB", "JPEG", {}, 1600)
    coarse, fine, whole = (
        decoder(PictureCard(filter=how), side).peak_bytes(file)  # type: ignore[arg-type]
        for how, side in (("bilinear", 64), ("bilinear", 512), ("nearest", 64))
    )
    assert coarse < 6 * MIB
    assert coarse < fine
    assert whole > 4 * 1600 * 1600


@pytest.mark.parametrize(
    ("mode", "options", "a_pixel"),
    [
        ("L", {}, 0),
        ("RGB", {}, 0),
        ("L", {"progressive": True}, 2),
        ("RGB", {"progressive": True, "subsampling": 2}, 3),
        ("RGB", {"progressive": True, "subsampling": 1}, 4),
        ("RGB", {"progressive": True, "subsampling": 0}, 6),
        ("CMYK", {"progressive": True}, 8),
    ],
)
def test_the_coefficients_of_a_progressive_jpeg_count(mode: str, options: dict[str, Any], a_pixel: int):
    assert jpeg_coefficients(upload(mode, "JPEG", options, 160)) == a_pixel * 160 * 160


def test_so_do_those_of_components_that_come_one_after_the_other():
    """What is told of the first scan is made to name one of the three components."""
    file = upload("RGB", "JPEG", {"subsampling": 0}, 160)
    scan = file.index(b"\xff\xda")
    apart = file[:scan] + b"\xff\xda\0\x08\1\1\0\0\x3f\0" + file[scan + 14 :]
    assert jpeg_coefficients(apart) == 6 * 160 * 160
    assert jpeg_coefficients(file[:scan]) == 6 * 160 * 160  # who knows what would have come


@given(st.data())
def test_the_peak_of_a_mutated_picture_is_a_number_or_a_problem(data: st.DataObject):
    kind = data.draw(st.sampled_from(["JPEG", "GIF", "WEBP", "PNG"]))
    file = bytearray(upload("L", kind, {"progressive": True} if kind == "JPEG" else {}, 24))
    for _ in range(data.draw(st.integers(1, 6))):
        file[data.draw(st.integers(0, min(len(file), 300) - 1))] = data.draw(st.integers(0, 255))
    with suppress(Problem):
        assert decoder(PictureCard()).peak_bytes(bytes(file)) > 0


@given(
    st.sampled_from(["PNG", "GIF", "BMP", "WEBP", "JPEG"]),
    st.integers(1, 1 << 20),
    st.integers(1, 1 << 20),
    st.tuples(st.integers(1, 4096), st.integers(1, 4096)),
)
def test_a_small_picture_counts_at_least_as_what_it_takes(kind: str, width: int, height: int, row: tuple[int, int]):
    header = PictureHeader(kind, width, max(1, min(height, SMALL // width)))
    size = (header.width, header.height)
    coefficients = 8 * (header.width + 32) * (header.height + 32) if kind == "JPEG" else 0
    assert small_peak_bytes(b"", header, row) >= peak_bytes(b"", header, size, row) + coefficients
