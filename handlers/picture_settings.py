"""How an upload becomes a row: the model card's [picture], completed by the signature.

Pure values, safe on any thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.handlers.items import plain_names
from rowserve.handlers.problem import Problem

Fit = Literal["crop", "pad", "stretch"]
Filter = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
Colour = Literal["rgb", "grey"]
FLOATS = frozenset(("float16", "bfloat16", "float32", "float64"))
WHOLE = frozenset(("uint8", "uint16", "uint32", "uint64", "int16", "int32", "int64"))  # int8 ends at 127
TITLE = "Takes no pictures"


class PictureCard(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The [picture] table as it is written; what is left out is taken from the signature.

    Pixels run from 0 to 255. `range` maps these to [low, high]; `mean` and `std` (one number, or one a
    channel) are then taken off and divided by: in pixel values, or in those of `range` where both are given.
    """

    input: str = ""
    size: tuple[int, int] | None = None
    fit: Fit = "crop"
    filter: Filter = "bilinear"
    colour: Colour | None = None
    range: tuple[float, float] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


@dataclass(frozen=True)
class PictureSettings:
    """A card that has been settled against a signature: what the decoder does.

    `size` is (height, width); the row has `shape`: [height, width, channels], or [height, width]. A pixel p
    of channel c becomes `(low + (high - low) * p / 255 - mean[c]) / std[c]`, or stays as it is where `scaled`
    is False.
    """

    input: str
    dtype: str
    shape: tuple[int, ...]
    size: tuple[int, int]
    fit: Fit = "crop"
    filter: Filter = "bilinear"
    colour: Colour = "rgb"
    scaled: bool = False
    range: tuple[float, float] = (0.0, 255.0)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)


def picture_settings(card: PictureCard, signature: Signature) -> PictureSettings:
    """What card and signature say together. Raises Problem 422: what is missing and how to write it."""
    spec = picture_input(card, signature)
    height_width, colour, shape = picture_shape(card, spec)
    channels = 3 if colour == "rgb" else 1
    low_high, mean, std = pixel_scale(card, spec, channels)
    return PictureSettings(
        input=spec.name,
        dtype=spec.dtype,
        shape=shape,
        size=height_width,
        fit=card.fit,
        filter=card.filter,
        colour=colour,
        scaled=spec.dtype in FLOATS,
        range=low_high,
        mean=mean,
        std=std,
    )


def cannot(detail: str) -> Problem:
    """Why uploads cannot become rows of this signature."""
    return Problem(422, detail, title=TITLE, reason="takes_no_pictures")


def picture_input(card: PictureCard, signature: Signature) -> TensorSpec:
    """The input that pictures feed: the signature's only one."""
    names = [spec.name for spec in signature.inputs]
    if card.input and card.input not in names:
        raise cannot(f"[picture] input = {card.input!r}: signature {signature.name} has {plain_names(names)}")
    if len(signature.inputs) != 1:
        raise cannot(
            f"signature {signature.name} has inputs {plain_names(names)}; a picture feeds exactly one"
        )
    spec = signature.inputs[0]
    if not spec.batched:
        raise cannot(f"input {spec.name} has no batch dimension")
    if spec.dtype not in FLOATS and spec.dtype not in WHOLE:
        raise cannot(f"input {spec.name} is {spec.dtype}: pixels do not fit it")
    return spec


def picture_shape(card: PictureCard, spec: TensorSpec) -> tuple[tuple[int, int], Colour, tuple[int, ...]]:
    """((height, width), colour, row shape) by the signature where it is fixed, else by the card."""
    shape: tuple[int | None, ...] = (None, None, None) if spec.shape is None else spec.shape
    grey_plane = len(shape) == 2 and card.colour == "grey"
    if len(shape) != 3 and not grey_plane:
        told = f"input {spec.name} has rows of shape {list(shape)}, not [height, width, channels]"
        grey = '; if they are grey pictures, write colour = "grey" under [picture] in the model\'s card'
        raise cannot(told + grey if len(shape) == 2 else told)
    channels = 1 if grey_plane else shape[2]
    if channels is None:
        channels = 1 if card.colour == "grey" else 3
    if channels not in (1, 3):
        raise cannot(f"input {spec.name} has {channels} channels; pictures have 3 (rgb) or 1 (grey)")
    colour: Colour = "rgb" if channels == 3 else "grey"
    if card.colour not in (None, colour):
        raise cannot(f"[picture] colour = {card.colour!r}, but input {spec.name} has {channels} channel(s)")
    size = card.size or (shape[0] or 0, shape[1] or 0)
    if min(size) < 1:
        raise cannot(
            f"input {spec.name} has rows of shape {list(shape)}:"
            " write size = [height, width] under [picture] in the model's card"
        )
    if any(want not in (None, have) for want, have in zip(shape, size, strict=False)):
        raise cannot(f"[picture] size = {list(size)}, but input {spec.name} takes {list(shape)}")
    return size, colour, size if grey_plane else (*size, channels)


def pixel_scale(
    card: PictureCard, spec: TensorSpec, channels: int
) -> tuple[tuple[float, float], tuple[float, ...], tuple[float, ...]]:
    """(range, mean, std), with a number for each channel or one for all."""
    said = card.range is not None or card.mean is not None or card.std is not None
    if spec.dtype not in FLOATS:
        if said:
            raise cannot(
                f"input {spec.name} is {spec.dtype}, pixels go in as they are: drop range, mean and std"
            )
        return (0.0, 255.0), (0.0,), (1.0,)
    if not said:
        raise cannot(
            f"input {spec.name} is {spec.dtype}, and nothing says how pixels are scaled: under [picture] in"
            " the model's card, write range = [0, 1] or the like, or mean = [...] and std = [...]"
        )
    mean, std = card.mean or (0.0,), card.std or (1.0,)
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels):
            raise cannot(f"[picture] {name} has {len(values)} numbers for {channels} channel(s)")
    if 0.0 in std:
        raise cannot("[picture] std has a 0 in it")
    if card.range is None and card.mean is not None and card.std is not None and max(*mean, *std) <= 1.0:
        raise cannot(
            "[picture] mean and std count in pixel values (0 to 255), and these look as if made for 0 to 1:"
            " add range = [0, 1], or range = [0, 255] if they are meant so"
        )
    return card.range or (0.0, 255.0), mean, std
