"""A model's card, DIR/NAME/rowserve.toml: what the graph alone does not tell. Any thread."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from rowserve.handlers.picture_settings import PictureCard
from rowserve.server.field_names import explained
from rowserve.server.units import Seconds

PAGE = "docs/models.md"
Trust = Literal["self-test", "rows"]
Engine = Literal["tensorflow", "openvino"]
Precision = Literal["f32", "bf16"]


class LabelsCard(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """[labels]: a file with one label a line, in the order of the elements of `output`."""

    file: str = ""
    output: str = ""


class BatchCard(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """[batch]: the largest batch in rows, and how long an idle graph waits for a fuller one, in milliseconds.

    `trust = "rows"` overrules a self-test that found answers changing with a row's company.
    """

    max_rows: int = 32
    max_wait_ms: float = 0.0
    trust: Trust = "self-test"

    def __post_init__(self) -> None:
        if not 1 <= self.max_rows <= 65536:
            raise ValueError("max_rows must be from 1 to 65536")
        if not 0 <= self.max_wait_ms <= 60_000:
            raise ValueError("max_wait_ms must be from 0 to 60000")


class CacheCard(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """[cache]: whether rows are kept, for how long ("30d"; for ever when unset), and whether a row's bytes may depend
    on its company (`exact = false`)."""

    enabled: bool = True
    ttl: str | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        if self.ttl is not None:
            Seconds.parse(self.ttl)

    @property
    def max_age(self) -> float | None:
        """`ttl` in seconds."""
        return None if self.ttl is None else Seconds.parse(self.ttl)


class Card(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The whole card. `engine` runs the model, OpenVINO in that `precision`; `signature` is that of clients that name
    none; `static_inputs` names inputs without the batch dimension; `outputs` narrows what is computed and kept;
    `allow_ops` lets a graph in that holds these otherwise forbidden ops."""

    engine: Engine = "tensorflow"
    precision: Precision = "f32"
    signature: str = ""
    picture: PictureCard = PictureCard()
    labels: LabelsCard = LabelsCard()
    batch: BatchCard = BatchCard()
    cache: CacheCard = CacheCard()
    static_inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    allow_ops: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.precision != "f32" and self.engine == "tensorflow":
            raise ValueError(f'precision = "{self.precision}" is for engine = "openvino" only')


class BadSettings(ValueError):
    """A settings file that cannot be used; the message names the file and the field."""


def read_card(folder: Path) -> Card:
    """The card in a model's folder, defaults where there is none. Raises BadSettings."""
    file = folder / "rowserve.toml"
    try:
        return msgspec.toml.decode(file.read_bytes(), type=Card)
    except FileNotFoundError:
        return Card()
    except (msgspec.MsgspecError, ValueError, OSError) as error:
        raise BadSettings(f"{file}: {explained(error, Card, PAGE)}") from None
