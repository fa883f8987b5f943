"""Uploads to rows: the check by the header, and the decoding.

`Decoder.check` may run on the reactor; `Decoder.decode` runs on the decode pool, on several threads at once.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property

import numpy as np
import PIL
from PIL import (  # the five plugins by name: else Pillow imports all of its seventy to find one
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    ImageFile,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    WebPImagePlugin,  # noqa: F401
    features,
)

from rowserve.graphs.rows import Array, Buffer, Rows
from rowserve.graphs.signature import Signature, numpy_dtype
from rowserve.handlers.items import PictureDecoder
from rowserve.handlers.picture_header import PictureHeader, broken_picture, jpeg_scans, picture_header
from rowserve.handlers.picture_memory import SMALL, peak_bytes, small_peak_bytes
from rowserve.handlers.picture_settings import PictureCard, PictureSettings, picture_settings
from rowserve.handlers.picture_strips import SIDEWAYS, TURNS, Box, in_strips, resized_in_strips, turned_size
from rowserve.handlers.problem import Problem

CODE_VERSION = 1  # counts up with every change below that can change a pixel, so that old aliases are not found
MAX_PIXELS = 50_000_000
DRAFT_GAP = 2.0  # a JPEG decoded at reduced scale keeps at least so many times the pixels wanted, each way
DRAFT_SCALES = (8, 4, 2)
# Each scan of a progressive JPEG goes over all its pixels for as little as 75 bytes, so scans x pixels are bounded:
# by so many times the pixels allowed (usual files have about 10 scans), and as if no picture were smaller than this.
SCANS = 32
SCAN_PIXELS = 65536
WHITE = (255, 255, 255)
STRIP_PIXELS = 1 << 20
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
ORIENTATION = 0x0112
# A picture lies in one piece of memory. From 32 MiB on, such a piece is mapped on its own, and given back when it is
# freed; Pillow's usual pieces of 16 MiB the process would keep.
Image.core.set_block_size(1 << 30)  # type: ignore[attr-defined]


def picture_decoders(
    card: PictureCard, signatures: Mapping[str, Signature], max_pixels: int = MAX_PIXELS
) -> dict[str, PictureDecoder | Problem]:
    """For each signature its decoder, or the Problem (422) that says why pictures cannot feed it."""
    decoders: dict[str, PictureDecoder | Problem] = {}
    for name, signature in signatures.items():
        try:
            decoders[name] = Decoder(picture_settings(card, signature), max_pixels)
        except Problem as problem:
            decoders[name] = problem
    return decoders


class Decoder:
    """Turns uploads into rows by one set of settings; holds no state that changes, so any thread may call it.

    `max_pixels` counts width x height of the stored picture and is checked before anything is decoded.
    """

    def __init__(self, settings: PictureSettings, max_pixels: int = MAX_PIXELS) -> None:
        self.settings = settings
        self.max_pixels = max_pixels
        self._filter = FILTERS[settings.filter]
        self._dtype = numpy_dtype(settings.dtype)
        if Image.MAX_IMAGE_PIXELS is not None:  # Pillow's own, process-wide cap must not bite before ours
            Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)

    @cached_property
    def identity(self) -> bytes:
        """Names the settings, the version of this code, and the libraries that decode."""
        named = {
            "code": CODE_VERSION,
            "pillow": PIL.__version__,
            "libraries": {name: features.version(name) for name in ("libjpeg_turbo", "webp")},
            "settings": asdict(self.settings),
        }
        return json.dumps(named, sort_keys=True).encode()

    def peak_bytes(self, upload: Buffer) -> int:
        """What `decode` takes at its peak, beside the row, as its first bytes tell. Raises Problem 413 or 422."""
        header = picture_header(upload)
        self._check_pixels(header.format, header.width, header.height)
        if header.width * header.height <= SMALL:
            return small_peak_bytes(upload, header, self.settings.size)
        size = self._decoded_size(header) if header.format == "JPEG" else (header.width, header.height)
        return peak_bytes(upload, header, size, self.settings.size[::-1])

    def decode(self, upload: Buffer) -> Rows:
        """One row of the input's dtype and row shape. Raises Problem 413 or 422."""
        header = picture_header(upload)
        self._check_pixels(header.format, header.width, header.height)
        if header.format == "JPEG":
            self._check_scans(upload, header.width * header.height)
        try:
            with Image.open(io.BytesIO(upload), formats=[header.format]) as picture:
                if picture.width * picture.height > header.width * header.height:
                    raise broken_picture(f"this {header.format} is larger than its first bytes say")
                pixels = self._pixels(picture)
        except Problem:
            raise
        except PIL.UnidentifiedImageError:
            raise broken_picture(f"not a readable {header.format}: its header is broken") from None
        except Exception as error:  # noqa: BLE001  (Pillow's plugins raise anything at all on hostile bytes)
            raise broken_picture(f"broken {header.format}: {describe(error)}") from None
        return Rows({self.settings.input: self._scale(pixels).reshape(1, *self.settings.shape)}, 1)

    def _check_pixels(self, kind: str, width: int, height: int) -> None:
        if width * height > self.max_pixels:
            raise too_large(f"this {kind} has {width} x {height} pixels; at most {self.max_pixels:,} are taken")

    def _check_scans(self, upload: Buffer, pixels: int) -> None:
        most = SCANS * self.max_pixels // max(pixels, SCAN_PIXELS)
        # Each has a marker of two bytes: most files are too short for so many, and need not be searched.
        if len(upload) > 2 * most and (scans := jpeg_scans(upload)) > most:
            raise too_large(f"this JPEG has {scans:,} scans; at its size at most {most:,} are taken")

    def _pixels(self, picture: ImageFile.ImageFile) -> Array:
        """uint8 [height, width, channels] (or [height, width])."""
        if picture.format in ("JPEG", "MPO"):
            turn = orientation(picture)
            self._draft(picture, turn in SIDEWAYS)
            picture.load()
        else:
            picture.load()  # first: asking a PNG for its EXIF loads it too, and would swallow its faults
            turn = orientation(picture)
        return np.asarray(self._fitted(picture, turn))

    def _draft(self, picture: ImageFile.ImageFile, sideways: bool) -> None:
        """Have a JPEG decoded at a half, a quarter or an eighth where enough pixels remain."""
        if self.settings.filter != "nearest":
            picture.draft(None, self._least_size(picture.size, sideways))

    def _least_size(self, size: tuple[int, int], sideways: bool) -> tuple[int, int]:
        """How few pixels of a JPEG, each way, serve for the row."""
        height, width = self.settings.size
        if sideways:
            width, height = height, width
        if self.settings.fit != "stretch":  # one scale for both sides: that of the side that is cut or filled
            pick = max if self.settings.fit == "crop" else min
            scale = pick(width / size[0], height / size[1])
            width, height = round(size[0] * scale), round(size[1] * scale)
        return max(int(width * DRAFT_GAP), 1), max(int(height * DRAFT_GAP), 1)

    def _decoded_size(self, header: PictureHeader) -> tuple[int, int]:
        """How large a JPEG is once it is decoded, at the most: which way it is turned is not known yet."""
        if self.settings.filter == "nearest":
            return header.width, header.height
        least = [self._least_size((header.width, header.height), sideways) for sideways in (False, True)]
        most = min(min(header.width // width, header.height // height) for width, height in least)
        scale = next((scale for scale in DRAFT_SCALES if scale <= most), 1)
        return -(-header.width // scale), -(-header.height // scale)

    def _fitted(self, picture: Image.Image, turn: int) -> Image.Image:
        """The picture seen upright, over white, in the size wanted. It is used up."""
        height, width = self.settings.size
        size, (full_width, full_height) = (width, height), turned_size(picture.size, turn)
        box: Box = (0, 0, full_width, full_height)
        if self.settings.fit == "crop":
            box = centred_box((full_width, full_height), size)
        elif self.settings.fit == "pad":
            scale = min(width / full_width, height / full_height)
            size = max(1, round(full_width * scale)), max(1, round(full_height * scale))
        image = self._resized(picture, turn, size, box)
        if size == (width, height):
            return image
        framed = Image.new(image.mode, (width, height))
        framed.paste(image, ((width - size[0]) // 2, (height - size[1]) // 2))
        return framed

    def _resized(self, picture: Image.Image, turn: int, size: tuple[int, int], box: Box) -> Image.Image:
        def flattened(part: Image.Image) -> Image.Image:
            return flat(part, "RGB" if self.settings.colour == "rgb" else "L")

        if in_strips(turned_size(picture.size, turn), size):
            return resized_in_strips(picture, turn, flattened, size, self._filter, box)
        image = flattened(picture)
        if turn != 1:
            image = image.transpose(TURNS[turn])
        whole = image.size == size and box == (0, 0, *size)
        return image if whole else image.resize(size, self._filter, box)

    def _scale(self, pixels: Array) -> Array:
        """Pixels as the input takes them: by a table of the 256 values, each rounded once."""
        if not self.settings.scaled:
            return pixels.astype(self._dtype)
        if len(self._tables) == 1:
            return np.take(self._tables[0], pixels)
        return np.stack([np.take(table, pixels[..., c]) for c, table in enumerate(self._tables)], axis=-1)

    @cached_property
    def _tables(self) -> list[Array]:
        low, high = self.settings.range
        values = low + (high - low) * np.arange(256, dtype=np.float64) / 255.0
        channels = max(len(self.settings.mean), len(self.settings.std))
        means = np.broadcast_to(self.settings.mean, channels)
        stds = np.broadcast_to(self.settings.std, channels)
        return [((values - mean) / std).astype(self._dtype) for mean, std in zip(means, stds, strict=True)]


def too_large(detail: str) -> Problem:
    """More work than one picture may make."""
    return Problem(413, detail, title="Picture too large", reason="picture_too_large")


def describe(error: Exception) -> str:
    """Pillow's words on what was wrong, or the kind of error where it has none."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def orientation(picture: Image.Image) -> int:
    """The EXIF turn, 1 to 8; 1 (none) where there is no readable EXIF."""
    try:
        turn = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # noqa: BLE001  (broken EXIF in a good picture: what browsers do is show it unturned)
        return 1
    return turn if isinstance(turn, int) and 1 <= turn <= 8 else 1


def flat(picture: Image.Image, mode: str) -> Image.Image:
    """The picture as "RGB" or "L", over white where it is see-through."""
    if picture.mode.startswith("I"):  # 16 bits: Pillow's own conversion would cut at 255 instead of scaling
        wide = np.asarray(picture)
        picture = Image.fromarray((wide.clip(0, 65535) >> 8).astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        picture = over_white(picture)
    return picture if picture.mode == mode else picture.convert(mode)


def over_white(picture: Image.Image) -> Image.Image:
    """The picture as "RGB" over white, a strip at a time: all at once, the copies take 9 bytes a pixel, not 4."""
    found = Image.new("RGB", picture.size)
    width, height = picture.size
    for top in range(0, height, max(STRIP_PIXELS // width, 1)):
        box = (0, top, width, min(top + max(STRIP_PIXELS // width, 1), height))
        seen = picture.crop(box).convert("RGBA")
        strip = Image.new("RGB", seen.size, WHITE)
        strip.paste(seen, mask=seen.getchannel("A"))
        found.paste(strip, box)
    return found


def centred_box(size: tuple[int, int], wanted: tuple[int, int]) -> tuple[float, float, float, float]:
    """The largest centred box of `size` (width, height) with the proportions of `wanted`."""
    width, height = size
    scale = min(width / wanted[0], height / wanted[1])
    box_width, box_height = min(width, wanted[0] * scale), min(height, wanted[1] * scale)
    left, top = (width - box_width) / 2, (height - box_height) / 2
    return left, top, left + box_width, top + box_height
