"""POST /images: pictures in, the best classes or raw outputs out.

Pure values; reading and encoding run on the reactor, large answers may be encoded on the pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

import orjson

from rowserve.graphs.rows import Buffer
from rowserve.graphs.signature import Signature
from rowserve.handlers.http_headers import answer_headers
from rowserve.handlers.items import Answer, Encoded, Item, ModelFace, Picture, PictureDecoder
from rowserve.handlers.multipart import FORM, Part, malformed
from rowserve.handlers.native_json import PLAIN
from rowserve.handlers.native_rows import Query, Wants, check_names, plain_rows, read_wants, single
from rowserve.handlers.picture_header import not_a_picture
from rowserve.handlers.picture_settings import TITLE
from rowserve.handlers.problem import Problem

PROTOCOL = "images"
QUERY = ("top", "outputs", "signature")
BODY_NAME = "body"


@dataclass(frozen=True, slots=True)
class ImagesRequest:
    """What a request asks: one item a picture, in the order of the parts, with a name for each."""

    signature: Signature
    items: list[Item]
    names: list[str]
    wants: Wants


def is_form(content_type: str) -> bool:
    """Whether the body is multipart/form-data (else it is one picture). Raises Problem 415 for neither."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == FORM:
        return True
    if kind.startswith("image/"):
        return False
    raise Problem(
        415, f"send {FORM}, or one picture with Content-Type: image/..., not {kind[:80] or 'nothing'!r}"
    )


def read_query(face: ModelFace, query: Query) -> tuple[Signature, Wants, PictureDecoder]:
    """What the query asks for; can be read before the body comes. Raises Problem 400 or 422."""
    check_names(query, QUERY)
    signature = face.signature(single(query, "signature"))
    wants = read_wants(face, signature, single(query, "top"), single(query, "outputs"))
    return signature, wants, picture_decoder(face, signature)


def picture_decoder(face: ModelFace, signature: Signature) -> PictureDecoder:
    """How pictures become rows of this signature. Raises Problem 422 where they do not."""
    decoder = face.decoders.get(signature.name)
    if decoder is None:
        told = f"signature {signature.name} of model {face.name} takes no pictures"
        raise Problem(422, told, title=TITLE, reason="takes_no_pictures")
    if isinstance(decoder, Problem):
        raise decoder
    return decoder


def read_form(face: ModelFace, query: Query, parts: Sequence[Part]) -> ImagesRequest:
    """Every file part is a picture, whatever its field is called. Raises Problem 400 or 422."""
    signature, wants, decoder = read_query(face, query)
    files = [part for part in parts if part.is_file]
    if not files:
        fields = ", ".join(repr(part.name) for part in parts[:5])
        raise malformed(f"the body has form fields ({fields}) but no file part")
    items = [picture(part.data, decoder) for part in files]
    return ImagesRequest(signature, items, [part.filename or part.name for part in files], wants)


def read_body(face: ModelFace, query: Query, body: Buffer) -> ImagesRequest:
    """The whole body is one picture. Raises Problem 400 or 422."""
    signature, wants, decoder = read_query(face, query)
    return ImagesRequest(signature, [picture(body, decoder)], [BODY_NAME], wants)


def picture(upload: Buffer, decoder: PictureDecoder) -> Item:
    """An item for these bytes, which are a picture as far as their presence tells."""
    return Picture(upload, decoder) if len(upload) else not_a_picture("the part is empty")


def encode(face: ModelFace, names: Sequence[str], answer: Answer, wants: Wants) -> Encoded:
    """The answer as JSON: 200 when any row was answered, else the status of the first row's error."""
    rows = [{"name": name, **row} for name, row in zip(names, plain_rows(face, answer, wants), strict=True)]
    body = orjson.dumps({"model": face.name, "version": str(face.version), "rows": rows}, option=PLAIN)
    return Encoded(status_of(answer), answer_headers(answer, "application/json"), body)


def status_of(answer: Answer) -> int:
    """200 when any row was answered, else that of the first row's error."""
    if len(answer.errors) < len(answer.packed) or not answer.errors:
        return HTTPStatus.OK.value
    return answer.errors[min(answer.errors)].status
