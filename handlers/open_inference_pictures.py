"""Pictures in an inference request: the only tensor, of BYTES, where the model takes pictures and no strings.

Pure values, safe on any thread. The tensor's name counts for nothing, and its shape may be [-1]: so do
TorchServe's clients of KServe send them. An element is a picture's file, as it is in bytes, in base64 in JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rowserve.graphs.rows import Buffer
from rowserve.graphs.signature import STRING, Signature
from rowserve.handlers.instances import picture, takes_pictures
from rowserve.handlers.items import Item, ModelFace
from rowserve.handlers.json_pieces import LongList, pieces_of
from rowserve.handlers.json_values import kind_of, unb64
from rowserve.handlers.open_inference_contents import BYTES_FIELD
from rowserve.handlers.open_inference_datatypes import LENGTH as SIZE
from rowserve.handlers.open_inference_inputs import BINARY_SIZE, Blobs
from rowserve.handlers.open_inference_request import field, unsigned
from rowserve.handlers.open_inference_texts import invalid
from rowserve.handlers.proto_wire import LENGTH, WireFault, fields

BYTES = "BYTES"
MOST = 1000  # pictures of a request, as many as a form may have parts


def sends_pictures(face: ModelFace, signature: Signature, datatypes: Sequence[Any]) -> bool:
    """Whether tensors of these datatypes are pictures."""
    if list(datatypes) != [BYTES] or not takes_pictures(face, signature):
        return False
    return all(spec.dtype != STRING for spec in signature.inputs)


def pictures_of(face: ModelFace, signature: Signature, entry: Mapping[str, Any], blobs: Blobs | None) -> list[Item]:
    """The pictures of a tensor in REST form. Raises Problem 400."""
    parameters: dict[str, Any] = field(entry, "parameters", dict, {})
    if blobs is not None and BINARY_SIZE in parameters:
        files: Iterable[Buffer] = elements_of(blobs.take("picture", unsigned(parameters, BINARY_SIZE)))
    else:
        files = decoded(entry.get("data"))
    items = items_of(face, signature, entry.get("shape"), files)
    if blobs is not None:
        blobs.finish()
    return items


def items_of(face: ModelFace, signature: Signature, shape: Any, files: Iterable[Buffer]) -> list[Item]:
    """An item for each file. Raises Problem 400 where the shape tells another number of them."""
    items: list[Item] = []
    for file in files:
        if len(items) == MOST:
            raise invalid(f"a request holds at most {MOST:,} pictures")
        items.append(picture(face, signature, file))
    if shape not in ([-1], [len(items)], [len(items), 1]):
        raise invalid(f"a tensor of {len(items)} pictures has the shape [-1] or [{len(items)}], not {str(shape)[:80]}")
    return items


def decoded(data: Any) -> Iterable[Buffer]:
    """The files of a list of base64 texts. Raises Problem 400."""
    if not isinstance(data, list | LongList):
        raise invalid(f"Unable to parse 'data': expected a list of pictures in base64, found {kind_of(data)}")
    for first, texts in pieces_of(data):
        for index, text in enumerate(texts, first):
            if not isinstance(text, str):
                raise invalid(f"Unable to parse 'data': expected a picture in base64, found {kind_of(text)}")
            yield unb64({"b64": "".join(text.split()) if "\n" in text else text}, f"data[{index}]")


def elements_of(blob: memoryview) -> Iterable[Buffer]:
    """The elements of a BYTES tensor, whose number nobody tells. Raises Problem 400."""
    at = 0
    while at < len(blob):
        start = at + SIZE.size
        at = start + (SIZE.unpack_from(blob, at)[0] if start <= len(blob) else 0)
        if at > len(blob) or start > len(blob):
            raise invalid("incomplete string data for inference input: a picture ends behind its bytes")
        yield blob[start:at]


def contents_of(contents: memoryview) -> Iterable[Buffer]:
    """The elements of an InferTensorContents of bytes. Raises Problem 400."""
    try:
        for at, kind, _, data in fields(contents):
            if at == BYTES_FIELD and kind == LENGTH:
                yield data
    except WireFault as fault:
        raise invalid(f"the pictures cannot be read: {fault}") from None
