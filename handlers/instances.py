"""Instances as KServe's and TorchServe's JSON has them, and the answer that has a value for each.

Pure values, safe on any thread; what is long belongs on the pool, and is read and written a piece at a time. An
instance is the value of the only input, an object of inputs, or, where the model takes pictures, a picture's file in
base64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from rowserve.graphs.rows import Array, Buffer, Rows
from rowserve.graphs.signature import Signature
from rowserve.handlers.items import Answer, Item, ModelFace, Picture
from rowserve.handlers.json_pieces import (
    PIECE,
    LongList,
    NotJson,
    Turns,
    loads,
    pieces_of,
    read_pieces,
    skip_blank,
)
from rowserve.handlers.json_rows import merged, number_rows_of, row_of, same_shape_rows
from rowserve.handlers.json_values import is_b64, unb64, without_bom
from rowserve.handlers.native_json import PLAIN
from rowserve.handlers.native_rows import Wants, good_rows, spread
from rowserve.handlers.picture_header import not_a_picture
from rowserve.handlers.problem import Problem
from rowserve.handlers.tensors import tensors_of

WRAPPERS = ("data", "body")


def read_document(text: Buffer) -> Any:
    """A body's JSON value, its long lists LongLists. Raises NotJson."""
    text = without_bom(text)
    if len(text) <= PIECE:
        return loads(bytes(text), 0)
    value, end = read_pieces(text)
    end = skip_blank(text, end)
    if end < len(text):
        raise NotJson("more than one value", end)
    return value


def read_instances(
    face: ModelFace, signature: Signature, instances: list[Any] | LongList, path: str, *, beside: bool = False
) -> list[Item]:
    """A row for each instance. `beside`: where they are pictures, members beside `data` are passed over. Raises Problem
    400 or 422."""
    numbers = number_rows_of(signature, instances, nan=False)
    if numbers is not None:
        return [numbers]
    rows: list[Rows] = []
    items: list[Item] = []
    for first, piece in pieces_of(instances):
        pictures = takes_pictures(face, signature)
        values = [unwrapped(signature, only_data(value) if beside and pictures else value) for value in piece]
        some_pictures = pictures and any(isinstance(value, str | dict) for value in values)
        together = None if some_pictures else same_shape_rows(signature, values, nan=False)
        each = enumerate(values, first)
        found = [read_instance(face, signature, v, f"{path}[{i}]") for i, v in each] if together is None else [together]
        items += found
        rows += [item for item in found if isinstance(item, Rows)]
    return [*merged(rows)] if len(rows) == len(items) else items


def read_instance(face: ModelFace, signature: Signature, value: Any, path: str) -> Item:
    """The row of one instance. Raises Problem 400 or 422."""
    value = unwrapped(signature, value)
    found = picture_in(face, signature, value, path) if takes_pictures(face, signature) else None
    return found or row_of(signature, value, path)


def unwrapped(signature: Signature, value: Any) -> Any:
    """An instance out of {"data": ...} or {"body": ...}, unless that is an input's name."""
    if isinstance(value, dict) and len(value) == 1:
        ((name, inner),) = value.items()
        if name in WRAPPERS and signature.input(name) is None:
            return inner
    return value


def only_data(value: Any) -> Any:
    """An instance without what stands beside its `data`, such as the class that somebody expects."""
    return {"data": value["data"]} if isinstance(value, dict) and isinstance(value.get("data"), str) else value


def takes_pictures(face: ModelFace, signature: Signature) -> bool:
    """Whether uploads can become rows of the signature."""
    decoder = face.decoders.get(signature.name)
    return decoder is not None and not isinstance(decoder, Problem)


def picture_in(face: ModelFace, signature: Signature, value: Any, path: str) -> Item | None:
    """A picture in JSON, its file in base64: a string, or {"b64": ...}; None for any other value."""
    if isinstance(value, dict) and list(value) == [signature.inputs[0].name] and not is_b64(value):
        value = value[signature.inputs[0].name]
    if isinstance(value, str):
        value = {"b64": "".join(value.split()) if "\n" in value else value}
    return picture(face, signature, unb64(value, path)) if is_b64(value) else None


def picture(face: ModelFace, signature: Signature, upload: Buffer) -> Item:
    """A picture's file. Raises Problem 422 where the model takes none."""
    decoder = face.decoders.get(signature.name)
    if decoder is None:
        told = f"model {face.name} takes no pictures; send a tensor's bytes or JSON"
        raise Problem(422, told, title="Takes no pictures", reason="takes_no_pictures")
    if isinstance(decoder, Problem):
        raise decoder
    return Picture(upload, decoder) if len(upload) else not_a_picture("the picture is empty")


def predictions(face: ModelFace, signature: Signature, items: Sequence[Item], answer: Answer) -> list[Any]:
    """A value for each row, for orjson with numpy: its only output, or an object of its outputs.

    Raises the first bad row's Problem, and Problem 400 where rows that ran as a whole have an output in common.
    """
    if answer.errors:
        raise answer.errors[min(answer.errors)].anew()
    names = tuple(spec.name for spec in signature.outputs)
    whole = ran_whole(signature, items, answer)
    if whole is None:
        _, rows = good_rows(face, answer, range(len(answer)), Wants(None, names))
    else:
        rows = spread(whole, len(next(iter(whole.values()))))
    return [row[names[0]] for row in rows] if len(names) == 1 else rows


def write_list(values: Sequence[Any]) -> bytes:
    """A JSON list."""
    texts, turns = [], Turns()
    for value in values:
        turns()
        texts.append(orjson.dumps(value, option=PLAIN))
    return b"[%b]" % b",".join(texts)


def ran_whole(signature: Signature, items: Sequence[Item], answer: Answer) -> dict[str, Array] | None:
    """The outputs [rows, ...] of rows that ran as one request; None where each row has an answer of its own.

    Raises Problem 400 where an output has not a row for each.
    """
    if not (answer.alone and signature.row_inputs and len(answer) == 1 and isinstance(items[0], Rows)):
        return None
    outputs, count = tensors_of(answer), items[0].count
    for name, array in outputs.items():
        if array.shape[:1] != (count,):
            told = f"output {name} has the shape {list(array.shape)}: not a row for each of {count} instances"
            raise Problem(400, told)
    return outputs
