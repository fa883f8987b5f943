"""POST / with a form, as the upload servers of many tutorials take it: pictures in, pairs of label and score out.

Pure values; reading and encoding run on the reactor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import orjson

from rowserve.graphs.signature import Signature
from rowserve.handlers.http_headers import answer_headers, request_options
from rowserve.handlers.images import picture, picture_decoder
from rowserve.handlers.items import Answer, Encoded, Labels, ModelFace, PictureDecoder, Question
from rowserve.handlers.multipart import Part, malformed
from rowserve.handlers.native_json import PLAIN, jsonable
from rowserve.handlers.native_rows import DEFAULT_TOP
from rowserve.handlers.problem import Problem
from rowserve.handlers.problem_json import retry_after
from rowserve.handlers.tensors import tensors_of
from rowserve.handlers.top_classes import top_classes

PROTOCOL = "tutorial"
CONTENT_TYPE = "application/json"
FIELD = "data"


def upload_terms(face: ModelFace) -> tuple[Signature, PictureDecoder, Labels]:
    """How the model takes pictures and names its classes; can be told before the body comes. Raises Problem 422."""
    signature = face.signature()
    decoder, labels = picture_decoder(face, signature), face.labels
    if labels is None or signature.output(labels.output) is None:
        told = f"model {face.name} has no labels to answer with; POST /images/{face.name} answers with its outputs"
        raise Problem(422, told)
    return signature, decoder, labels


def read_upload(face: ModelFace, headers: Mapping[str, str], parts: Sequence[Part]) -> Question[Encoded]:
    """Every file is a picture, whatever its field is called; `data` is one without a file name too.

    Raises Problem 400, or 422 where the model takes no pictures or has no labels.
    """
    signature, decoder, labels = upload_terms(face)
    uploads = [part.data for part in parts if part.is_file or part.name == FIELD]
    if not uploads:
        fields = ", ".join(repr(part.name[:40]) for part in parts[:5])
        raise malformed(f"the body has form fields ({fields}) but no picture; send one as {FIELD}")
    items = [picture(upload, decoder) for upload in uploads]
    return Question(signature, items, request_options(headers, PROTOCOL), partial(encode_pairs, labels))


def encode_pairs(labels: Labels, answer: Answer) -> Encoded:
    """[[label, score], ...] for one picture, best first; a list of those for several. Raises the first bad one's
    Problem."""
    scores = tensors_of(answer, [labels.output])[labels.output].reshape(len(answer), -1)
    best = top_classes(scores, DEFAULT_TOP)
    values = jsonable(np.take_along_axis(scores, best, axis=1))
    told = [
        [[labels.names[index] if index < len(labels.names) else None, score] for index, score in zip(*row, strict=True)]
        for row in zip(best.tolist(), values, strict=True)
    ]
    body = orjson.dumps(told[0] if len(told) == 1 else told, option=PLAIN)
    return Encoded(200, answer_headers(answer, CONTENT_TYPE), body)


def encode_fault(problem: Problem) -> Encoded:
    """`{"error": ...}`."""
    body = orjson.dumps({"error": problem.detail})
    return Encoded(problem.status, [("Content-Type", CONTENT_TYPE), *retry_after(problem)], body)
