"""A row as `cache explain` needs it: out of what the cache remembers of the model, without its graph. Main thread."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from rowserve.cache.books import read_document
from rowserve.cache.keys import Generation, generation
from rowserve.cache.opening import Opened
from rowserve.graphs.description import ModelDescription, description_name
from rowserve.graphs.errors import GraphError
from rowserve.graphs.fingerprint import fingerprint
from rowserve.graphs.rows import Buffer, RowLayout, Rows
from rowserve.handlers.items import ModelFace, Picture
from rowserve.handlers.ndjson import LineReader, Mode, PathLine
from rowserve.handlers.pictures import picture_decoders
from rowserve.handlers.problem import Problem
from rowserve.server.assembly import load_settings
from rowserve.server.card import BadSettings
from rowserve.server.config import Config
from rowserve.server.discovery import ModelSource, find
from rowserve.server.units import Bytes
from rowserve.tools.options import Refused
from rowserve.tools.picture_files import read_file


@dataclass(frozen=True)
class ExplainedRow:
    """A row's generation and its packed inputs; `alias` is the key of the upload it came from, if it came from one."""

    generation: Generation
    packed: Buffer
    alias: bytes | None


def explained_row(
    cache: Opened, config: Config, model: str, models: Path | None, given: str, signature: str
) -> ExplainedRow:
    """The row of that input. Raises Refused."""
    try:
        source = find(model, models or (Path(config.models) if config.models else None))
        about = remembered(cache, source, config)
        decoders = picture_decoders(source.card.picture, about.signatures, config.limits.pixels)
        face = ModelFace(source.name, source.version, about.signatures, None, decoders)
        asked = face.signature(signature)
        if asked.alone:
            raise Refused(f"rows of this signature are not cached: {asked.alone}")
        item = read_item(LineReader(face, asked, Mode.AUTO), given, Bytes.parse(config.limits.body))
        rows = item.decoder.decode(item.upload) if isinstance(item, Picture) else item
    except Problem as problem:
        raise Refused(problem.detail) from None
    except (BadSettings, GraphError, OSError) as error:
        raise Refused(str(error)) from None
    made = generation(
        cache.secret,
        fingerprint=about.fingerprint,
        signature=asked,
        static=rows.static,
        execution=about.execution_of(asked.name),
    )
    (packed,) = RowLayout(asked.row_inputs).pack(rows.arrays, 1)
    alias = made.alias_key(item.upload, item.decoder.identity) if isinstance(item, Picture) else None
    return ExplainedRow(made, packed, alias)


def remembered(cache: Opened, source: ModelSource, config: Config) -> ModelDescription:
    """What the cache knows of the model. Raises Refused."""
    name = description_name(fingerprint(source.path), load_settings(source.card, config))
    with cache.store.view() as view:
        document = read_document(view, name)
    if document is None:
        raise Refused("this model was never loaded with this cache, so no row of it is there")
    return ModelDescription.from_json(document)


def read_item(reader: LineReader, given: str, largest: int) -> Rows | Picture:
    """The picture or the row of an argument. Raises Problem."""
    line = sys.stdin.buffer.readline().rstrip(b"\r\n") if given == "-" else given.encode("utf-8", "surrogateescape")
    (item,) = reader.read([line])
    if isinstance(item, PathLine):
        content = read_file(item.path, largest)
        item = content if isinstance(content, Problem) else reader.picture(content)
    if isinstance(item, Problem):
        raise item
    return item
