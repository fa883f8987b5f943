"""Uploads to rows: settings, every mode, turns, alpha, bombs and broken files."""

from __future__ import annotations

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import msgspec
import numpy as np
import PIL
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile

from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.handlers import pictures
from rowserve.handlers.items import PictureDecoder
from rowserve.handlers.picture_settings import PictureCard, picture_settings
from rowserve.handlers.pictures import Decoder, picture_decoders
from rowserve.handlers.problem import Problem

AS_IS = PictureCard(fit="stretch", filter="nearest")


def signature(shape: Any = (4, 6, 3), dtype: str = "uint8", **more: Any) -> Signature:
    spec = TensorSpec("pixels", dtype, shape, **more)
    return Signature("serving_default", (spec,), (TensorSpec("y", "float32", (2,)),))


def decoder(card: PictureCard = AS_IS, max_pixels: int = 1_000_000, **spec: Any) -> Decoder:
    return Decoder(picture_settings(card, signature(**spec)), max_pixels)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(upload: bytes, card: PictureCard = AS_IS, **spec: Any) -> np.ndarray:
    rows = decoder(card, **spec).decode(upload)
    assert rows.count == 1
    assert list(rows.arrays) == ["pixels"]
    array: np.ndarray = rows.arrays["pixels"]
    assert array.flags.c_contiguous
    return np.asarray(array[0])


def refused(upload: bytes, status: int, **options: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        decoder(**options).decode(upload)
    assert caught.value.status == status
    return caught.value


rng = np.random.default_rng(7)
PHOTO = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
SMOOTH = Image.fromarray(PHOTO).resize((640, 480), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True})])
def test_pixels_of_the_right_size_come_as_they_are(kind: str, options: dict[str, Any]):
    row = pixels(encoded(Image.fromarray(PHOTO), kind, **options))
    assert row.dtype == np.uint8
    assert np.array_equal(row, PHOTO)


def test_a_jpeg_comes_close():
    row = pixels(encoded(SMOOTH, "JPEG", quality=98), PictureCard(), shape=(48, 64, 3))
    wanted = np.asarray(SMOOTH.resize((64, 48), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(row.astype(int) - wanted).mean() < 2


def test_a_large_jpeg_is_decoded_at_reduced_scale(monkeypatch: pytest.MonkeyPatch):
    sizes = []
    load = ImageFile.ImageFile.load

    def noted(self: ImageFile.ImageFile) -> Any:
        sizes.append(self.size)
        return load(self)

    monkeypatch.setattr(ImageFile.ImageFile, "load", noted)
    upload = encoded(SMOOTH, "JPEG")
    pixels(upload, PictureCard(), shape=(48, 64, 3))
    assert sizes[0] == (160, 120)  # still at least twice the pixels wanted
    sizes.clear()
    pixels(upload, AS_IS, shape=(48, 64, 3))
    assert sizes[0] == (640, 480)  # to pick the nearest pixel, all must be there


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_the_exif_turn_is_applied(turn: int, kind: str):
    """What a camera held sideways stores, shown upright."""
    upright = Image.new("RGB", (64, 32), "black")
    upright.paste("white", (0, 0, 32, 16))
    undo = {5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_270, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
            4: Image.Transpose.FLIP_TOP_BOTTOM}  # fmt: skip
    stored = upright.transpose(undo[turn]) if turn > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = turn
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "JPEG" else {}
    upload = encoded(stored, kind, exif=exif, **options)
    row = pixels(upload, PictureCard(), shape=(32, 64, 3)).astype(int)
    assert np.abs(row - np.asarray(upright)).max() < (60 if kind == "JPEG" else 1)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_leaves_the_picture_unturned():
    upload = encoded(Image.fromarray(PHOTO), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert np.array_equal(pixels(upload), PHOTO)


def test_transparency_is_over_white():
    see_through = np.dstack([np.zeros((4, 6, 3), np.uint8), np.full((4, 6), 0, np.uint8)])
    half = np.dstack([np.zeros((4, 6, 3), np.uint8), np.full((4, 6), 128, np.uint8)])
    assert (pixels(encoded(Image.fromarray(see_through))) == 255).all()
    assert (pixels(encoded(Image.fromarray(half))) == 127).all()
    grey_alpha = Image.merge("LA", (Image.new("L", (6, 4), 0), Image.new("L", (6, 4), 0)))
    assert (pixels(encoded(grey_alpha)) == 255).all()
    assert (pixels(encoded(grey_alpha), shape=(4, 6, 1)) == 255).all()
    keyed = encoded(Image.new("RGB", (6, 4), (10, 20, 30)), transparency=(10, 20, 30))
    assert (pixels(keyed) == 255).all()


def test_palettes_with_and_without_a_hole():
    palette = Image.fromarray(PHOTO).quantize(colors=16)
    assert np.array_equal(pixels(encoded(palette)), np.asarray(palette.convert("RGB")))
    hole = Image.new("P", (6, 4), 3)
    hole.putpalette([0, 0, 0] * 256)
    assert (pixels(encoded(hole, transparency=3)) == 255).all()
    assert (pixels(encoded(hole, "GIF", transparency=3)) == 255).all()


def test_cmyk_is_converted():
    ink = Image.new("CMYK", (64, 48), (0, 255, 255, 0))  # red
    row = pixels(encoded(ink, "JPEG"), PictureCard(), shape=(48, 64, 3)).astype(int)
    assert row[..., 0].min() > 230
    assert row[..., 1:].max() < 60


def test_sixteen_bits_are_scaled_not_cut():
    deep = Image.fromarray(np.full((4, 6), 0x8040, np.uint16))
    assert (pixels(encoded(deep)) == 0x80).all()
    assert (pixels(encoded(deep), shape=(4, 6, 1)) == 0x80).all()


def test_one_bit_and_grey():
    checks = np.indices((4, 6)).sum(axis=0) % 2
    one_bit = Image.fromarray((checks * 255).astype(np.uint8)).convert("1")
    assert np.array_equal(pixels(encoded(one_bit))[..., 0], checks * 255)
    assert np.array_equal(pixels(encoded(one_bit), shape=(4, 6, 1))[..., 0], checks * 255)
    grey = pixels(encoded(Image.fromarray(PHOTO)), shape=(4, 6, 1))
    assert np.array_equal(grey[..., 0], np.asarray(Image.fromarray(PHOTO).convert("L")))


def test_a_grey_plane_without_channels():
    card = PictureCard(colour="grey", fit="stretch", filter="nearest")
    assert pixels(encoded(Image.fromarray(PHOTO)), card, shape=(4, 6)).shape == (4, 6)


def test_the_first_frame_of_an_animation():
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "blue", "green")]
    for kind, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})):
        upload = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert (pixels(upload) == [255, 0, 0]).all(), kind


def test_crop_takes_the_largest_centred_box():
    wide = Image.new("RGB", (300, 100), "red")
    wide.paste("blue", (100, 0, 200, 100))
    row = pixels(encoded(wide), PictureCard(fit="crop"), shape=(10, 10, 3))
    assert (row[:, 1:-1] == [0, 0, 255]).all()  # at its edge the filter sees what lies beyond
    tall = wide.transpose(Image.Transpose.ROTATE_90)
    row = pixels(encoded(tall), PictureCard(fit="crop"), shape=(10, 10, 3))
    assert (row[1:-1] == [0, 0, 255]).all()


def test_pad_shows_everything_in_a_black_frame():
    row = pixels(encoded(Image.new("RGB", (300, 100), "white")), PictureCard(fit="pad"), shape=(9, 9, 3))
    assert (row[3:6] == 255).all()
    assert (row[:3] == 0).all()
    assert (row[6:] == 0).all()


def test_stretch_fills_the_size():
    halves = Image.new("RGB", (300, 100), "red")
    halves.paste("blue", (150, 0, 300, 100))
    row = pixels(encoded(halves), PictureCard(fit="stretch", filter="box"), shape=(10, 10, 3))
    assert (row[:, :5] == [255, 0, 0]).all()
    assert (row[:, 5:] == [0, 0, 255]).all()


@pytest.mark.parametrize("name", ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"])
def test_every_filter_is_pillows(name: Any):
    row = pixels(encoded(SMOOTH), PictureCard(fit="stretch", filter=name), shape=(30, 40, 3))
    assert np.array_equal(row, np.asarray(SMOOTH.resize((40, 30), pictures.FILTERS[name])))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_a_range_maps_pixels(dtype: str):
    card = PictureCard(fit="stretch", filter="nearest", range=(0, 1))
    row = pixels(encoded(Image.fromarray(PHOTO)), card, dtype=dtype)
    assert row.dtype.name == dtype
    assert np.array_equal(row, (PHOTO / 255.0).astype(row.dtype))
    card = PictureCard(fit="stretch", filter="nearest", range=(-1, 3))
    row = pixels(encoded(Image.fromarray(PHOTO)), card, dtype=dtype)
    assert np.array_equal(row, (-1 + 4 * PHOTO.astype(np.float64) / 255).astype(row.dtype))


def test_mean_and_std_count_in_pixels_or_in_the_range():
    upload = encoded(Image.fromarray(PHOTO))
    card = PictureCard(fit="stretch", filter="nearest", mean=(127.0,), std=(128.0,))
    assert np.array_equal(pixels(upload, card, dtype="float32"), ((PHOTO - 127.0) / 128.0).astype(np.float32))
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    card = PictureCard(fit="stretch", filter="nearest", range=(0, 1), mean=mean, std=std)
    wanted = ((PHOTO / 255.0 - mean) / std).astype(np.float32)
    assert np.array_equal(pixels(upload, card, dtype="float32"), wanted)


@pytest.mark.parametrize(
    ("card", "spec", "words"),
    [
        (PictureCard(), {"dtype": "float32"}, "range = [0, 1]"),
        (PictureCard(mean=(0.5,), std=(0.5,)), {"dtype": "float32"}, "add range = [0, 1]"),
        (PictureCard(range=(0, 1)), {}, "pixels go in as they are"),
        (PictureCard(range=(0, 1), mean=(1.0, 2.0)), {"dtype": "float32"}, "mean has 2 numbers for 3 channel"),
        (PictureCard(range=(0, 1), std=(0.0,)), {"dtype": "float32"}, "std has a 0"),
        (PictureCard(), {"dtype": "string"}, "pixels do not fit"),
        (PictureCard(), {"dtype": "int8"}, "pixels do not fit"),
        (PictureCard(), {"shape": (4, 6, 4)}, "4 channels"),
        (PictureCard(), {"shape": (64,)}, "not [height, width, channels]"),
        (PictureCard(), {"shape": (8, 8)}, "not [height, width, channels]; if they are grey pictures, write colour ="),
        (PictureCard(), {"shape": (None, None, 3)}, "write size = [height, width]"),
        (PictureCard(size=(5, 5)), {}, "size = [5, 5]"),
        (PictureCard(colour="grey"), {}, "colour = 'grey'"),
        (PictureCard(input="images"), {}, "signature serving_default has pixels"),
        (PictureCard(), {"batched": False}, "no batch dimension"),
    ],
)
def test_a_card_that_cannot_be_followed_says_why(card: PictureCard, spec: dict[str, Any], words: str):
    with pytest.raises(Problem) as caught:
        picture_settings(card, signature(**spec))
    assert caught.value.status == 422
    assert words in caught.value.detail


def test_a_signature_of_two_inputs_takes_no_pictures():
    two = Signature("s", (TensorSpec("a", "uint8", (2, 2, 3)), TensorSpec("b", "uint8", (1,))), ())
    decoders = picture_decoders(PictureCard(), {"s": two, "serving_default": signature()})
    assert isinstance(decoders["s"], Problem)
    assert isinstance(decoders["serving_default"], Decoder)


def test_free_sizes_come_from_the_card():
    settings = picture_settings(PictureCard(size=(5, 7)), signature((None, None, None)))
    assert settings.shape == (5, 7, 3)
    assert picture_settings(PictureCard(size=(5, 7), colour="grey"), signature(None)).shape == (5, 7, 1)


def test_a_card_is_typed():
    assert msgspec.convert({"size": [2, 3], "mean": [1]}, PictureCard) == PictureCard(size=(2, 3), mean=(1.0,))
    for wrong in ({"sizes": [2, 3]}, {"fit": "squeeze"}, {"size": [2]}, {"range": ["0", "1"]}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(wrong, PictureCard)


def png(width: int, height: int, depth: int, colour: int, raw_line: int) -> bytes:
    """A PNG of zeros, written by hand, so that making it takes no memory either."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packer, packed = zlib.compressobj(9), b""
    for _ in range(height):
        packed += packer.compress(bytes(1 + raw_line))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", packed + packer.flush()) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_a_bomb_is_refused_by_its_header(monkeypatch: pytest.MonkeyPatch):
    bomb = png(9400, 9400, 1, 0, 1175)
    assert len(bomb) < 11 * 1024

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("it must not even be opened")

    monkeypatch.setattr(Image, "open", never)
    with pytest.raises(Problem) as caught:
        decoder(max_pixels=pictures.MAX_PIXELS).peak_bytes(bomb)
    assert caught.value.status == 413
    assert "9400 x 9400" in caught.value.detail
    assert refused(bomb, 413, max_pixels=pictures.MAX_PIXELS).reason == "picture_too_large"


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch):
    usual = encoded(Image.new("L", (600, 400)), "JPEG", progressive=True)
    last = usual[usual.rfind(b"\xff\xda") : -2]
    bomb = usual[:-2] + 1000 * last + usual[-2:]
    assert decoder().decode(usual).count == 1
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("decoded"))
    problem = refused(bomb, 413)
    assert problem.reason == "picture_too_large"
    assert "1,006 scans; at its size at most 133" in problem.detail


def test_the_default_cap_is_fifty_megapixels():
    plain = Decoder(picture_settings(AS_IS, signature()))
    plain.peak_bytes(png(10_000, 5_000, 8, 0, 0))
    with pytest.raises(Problem, match="10001 x 5000"):
        plain.peak_bytes(png(10_001, 5_000, 8, 0, 0))


def test_a_gif_frame_larger_than_its_screen_is_counted():
    upload = bytearray(encoded(Image.new("P", (600, 600)), "GIF"))
    upload[6:10] = struct.pack("<HH", 6, 6)
    assert refused(bytes(upload), 413, max_pixels=1000).status == 413


def test_a_gif_that_hides_how_large_it_is_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch):
    upload = bytearray(encoded(Image.new("P", (600, 600)), "GIF"))
    upload[6:10] = struct.pack("<HH", 6, 6)
    frame = upload.index(b",", 13 + 3 * (2 << (upload[10] & 7)))
    upload[frame:frame] = 5000 * b"!\xfe\1a\0"
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("decoded"))
    assert "this GIF is larger than its first bytes say" in refused(bytes(upload), 422).detail


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(1, 2000), (2000, 1)])
def test_a_jpeg_as_thin_as_a_line_is_a_row(fit: Any, size: tuple[int, int]):
    row = pixels(encoded(Image.new("RGB", size, "white"), "JPEG"), PictureCard(fit=fit), shape=(48, 64, 3))
    assert row.max() == 255


SAMPLES = [
    encoded(Image.fromarray(PHOTO).resize((40, 30)), kind, **options)
    for kind, options in (
        ("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("WEBP", {"lossless": True}),
        ("GIF", {}), ("BMP", {}),
    )
]  # fmt: skip


@pytest.mark.parametrize("upload", SAMPLES)
def test_a_truncated_picture_is_422_and_says_so(upload: bytes):
    whole = pixels(upload, PictureCard())
    problem = refused(upload[: len(upload) * 3 // 4], 422)
    assert "truncated" in problem.detail or "broken" in problem.detail
    for cut in range(0, len(upload), 7):
        status, row = 422, whole
        try:
            row = pixels(upload[:cut], PictureCard())
        except Problem as found:
            status = found.status
        assert status == 422
        assert np.array_equal(row, whole)  # where it was taken, only bytes behind the last pixel were missing


@given(st.sampled_from(SAMPLES), st.data())
def test_mutated_pictures_are_rows_or_problems(upload: bytes, data: st.DataObject):
    broken = bytearray(upload)
    for _ in range(data.draw(st.integers(1, 8))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    status = 422
    try:
        pixels(bytes(broken), PictureCard())
    except Problem as problem:
        status = problem.status
    assert status in (413, 422)


def test_what_is_no_picture_is_422():
    assert "no picture" in refused(b"just some text", 422).detail
    assert "TIFF" in refused(encoded(Image.fromarray(PHOTO), "TIFF"), 422).detail


def test_the_identity_names_settings_code_and_pillow(monkeypatch: pytest.MonkeyPatch):
    known = {decoder().identity}
    for changed in (
        decoder(PictureCard(fit="pad", filter="nearest")),
        decoder(PictureCard(fit="stretch", filter="box")),
        decoder(PictureCard(range=(0, 1)), dtype="float32"),
        decoder(PictureCard(range=(0, 1)), dtype="float64"),
        decoder(PictureCard(range=(-1, 1)), dtype="float32"),
        decoder(PictureCard(range=(0, 1), mean=(0.5,)), dtype="float32"),
        decoder(PictureCard(range=(0, 1), std=(0.5,)), dtype="float32"),
        decoder(shape=(4, 7, 3)),
        decoder(shape=(4, 6, 1)),
        decoder(dtype="int32"),
    ):
        assert changed.identity not in known
        known.add(changed.identity)
    assert decoder().identity in known
    assert decoder(max_pixels=5).identity in known  # what is refused is no row, so this is no other alias
    monkeypatch.setattr(pictures, "CODE_VERSION", pictures.CODE_VERSION + 1)
    assert decoder().identity not in known
    monkeypatch.undo()
    monkeypatch.setattr(PIL, "__version__", "0.0.0")
    assert decoder().identity not in known


def test_it_is_a_picture_decoder_on_many_threads():
    shared: PictureDecoder = decoder(PictureCard(range=(0, 1)), dtype="float32", shape=(48, 64, 3))
    uploads = [encoded(SMOOTH.rotate(angle), "JPEG") for angle in range(8)]
    alone = [shared.decode(upload).arrays["pixels"] for upload in uploads]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for one, other in zip(alone, pool.map(shared.decode, uploads), strict=True):
                assert np.array_equal(one, other.arrays["pixels"])


def all_at_once(picture: Image.Image) -> Image.Image:
    """What `over_white` does strip by strip."""
    seen = picture.convert("RGBA")
    whole = Image.new("RGB", seen.size, (255, 255, 255))
    whole.paste(seen, mask=seen.getchannel("A"))
    return whole


@given(
    st.sampled_from(["RGBA", "LA", "PA", "P bytes", "P index", "RGB", "L", "1"]),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 2**32 - 1),
)
def test_over_white_in_strips_gives_the_same_pixels(kind, width, height, seed):
    random = np.random.default_rng(seed)
    mode = kind.split()[0]
    if mode == "PA":
        source = Image.fromarray(random.integers(0, 256, (height, width, 4), np.uint8)).convert("PA")
    elif mode in ("P", "1"):
        source = Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).convert(mode)
    else:
        count = len(mode)
        shape = (height, width, count) if count > 1 else (height, width)
        source = Image.fromarray(random.integers(0, 256, shape, np.uint8), mode)
    if kind in ("P index", "L", "1"):
        source.info["transparency"] = int(random.integers(0, 256))
    elif kind == "P bytes":
        source.info["transparency"] = random.integers(0, 256, 256, np.uint8).tobytes()
    elif kind == "RGB":
        source.info["transparency"] = tuple(int(x) for x in np.asarray(source)[0, 0])
    buffer = io.BytesIO()
    if mode in ("RGBA", "LA", "P", "RGB", "L", "1"):
        source.save(buffer, "PNG")
        source = Image.open(buffer)
        source.load()
    with mock.patch.object(pictures, "STRIP_PIXELS", 64):
        strips = pictures.over_white(source)
    assert strips.tobytes() == all_at_once(source).tobytes()
