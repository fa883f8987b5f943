"""GraphPipe: tensors by name or by their place in, tensors out, as flatbuffers.

Pure values; a request with many strings and a large answer belong on the pool. The request's `config` is opaque, and
nothing here reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.handlers.empty_batches import question_of
from rowserve.handlers.graphpipe_metadata import BINARY, carried, metadata
from rowserve.handlers.graphpipe_slots import Slots
from rowserve.handlers.graphpipe_tensors import infer_response, tensor
from rowserve.handlers.http_headers import answer_headers, request_options
from rowserve.handlers.items import Answer, Encoded, ModelFace, Question, plain_names
from rowserve.handlers.problem import Problem
from rowserve.handlers.problem_json import retry_after
from rowserve.handlers.tensors import TensorFault, rows_of, tensors_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rowserve.graphs.rows import Array, Buffer

PROTOCOL = "graphpipe"
SHOWN = 200  # characters of an error that a reason phrase holds
INFER_REQUEST = 1  # of the union Req; whatever else there is asks for metadata
# Slots, as the schema numbers them.
REQUEST_KIND, REQUEST = 0, 1
INPUT_NAMES, INPUT_TENSORS, OUTPUT_NAMES = 1, 2, 3


def read_request(face: ModelFace, headers: Mapping[str, str], body: Buffer) -> Question[Encoded] | Encoded:
    """What a request asks of the model, or the metadata where it asks for that. Raises Problem 400."""
    request = Slots.root(body)
    if request.number(REQUEST_KIND) != INFER_REQUEST:
        return metadata(face)
    inference = request.table(REQUEST)
    signature = face.signature()
    names = output_names(signature, inference)
    rows = rows_of(signature, input_tensors(signature, inference))
    return question_of(signature, rows, request_options(headers, PROTOCOL), partial(encode_outputs, names))


def input_tensors(signature: Signature, inference: Slots) -> dict[str, Array]:
    """The tensors by the inputs' names; one without a name goes to the input at its place. Raises Problem 400."""
    inputs, count = signature.inputs, inference.count(INPUT_TENSORS)
    if count > len(inputs):
        there = plain_names(spec.name for spec in inputs)
        raise TensorFault("unknown", "", f"there are {count:,} tensors for the inputs: {there}")
    if inference.count(INPUT_NAMES) > count:
        raise Problem(400, f"there are {inference.count(INPUT_NAMES):,} input names for {count} tensors")
    names = [*inference.strings(INPUT_NAMES), *[b""] * count][:count]
    found: dict[str, Array] = {}
    for spec, given, slots in zip(inputs, names, inference.tables(INPUT_TENSORS), strict=False):
        name = own_name(inputs, given) if given else spec.name
        if name in found:
            raise TensorFault("unknown", name, f"input {name[:64]!r} is there twice")
        found[name] = tensor(slots, name)
    return found


def output_names(signature: Signature, inference: Slots) -> Sequence[str]:
    """The outputs asked for, in that order; all that GraphPipe can carry, where none is named. Raises Problem 400."""
    able = [spec.name for spec in carried(signature.outputs)]
    count = inference.count(OUTPUT_NAMES)
    if count > len(signature.outputs):
        raise unknown_output(signature, f"there are {count:,} output names")
    if not count:
        if not able:
            raise Problem(400, "GraphPipe has no type for any of the model's outputs")
        return able
    names: list[str] = []
    for given in inference.strings(OUTPUT_NAMES):
        name = own_name(signature.outputs, given)
        spec = signature.output(name)
        if spec is None:
            raise unknown_output(signature, f"there is no output {name[:64]!r}")
        if name in names:
            raise Problem(400, f"output {name!r} is asked for twice")
        if name not in able:
            raise Problem(400, f"output {name!r} is {spec.dtype}, for which GraphPipe has no type")
        names.append(name)
    return names


def unknown_output(signature: Signature, told: str) -> Problem:
    """The outputs asked for are not those there are."""
    return Problem(400, f"{told}; the outputs are: {plain_names(spec.name for spec in signature.outputs)}")


def own_name(specs: Sequence[TensorSpec], given: bytes) -> str:
    """The name of a spec as the signature has it: clients of graph files put `:0` behind. Else the name as it is."""
    name = given.decode("utf-8", "replace")
    known = {spec.name for spec in specs}
    return next((each for each in (name, name.removesuffix(":0"), f"{name}:0") if each in known), name)


def encode_outputs(names: Sequence[str], answer: Answer) -> Encoded:
    """The outputs as an InferResponse. Raises the first bad row's Problem."""
    return Encoded(200, answer_headers(answer, BINARY), infer_response(tensors_of(answer, names)))


def encode_fault(problem: Problem) -> Encoded:
    """The error as plain text, and in the reason phrase: Python's client shows that and never reads the body.

    It is not the schema's way (200, and an Error in the InferResponse): of that the Python client makes
    `Exception: b'...'` without a status, its `metadata` takes it for metadata, the Go client reports an answer without
    outputs, and a proxy counts a success. What it makes of this is `HTTPError: 400 Client Error: ...`.
    """
    headers = [("Content-Type", "text/plain; charset=utf-8"), *retry_after(problem)]
    return Encoded(problem.status, headers, f"{problem.detail}\n".encode(), one_line(problem.detail))


def one_line(text: str) -> str:
    """A reason phrase: printable Latin-1 on one line, cut."""
    words = " ".join("".join(each if each.isprintable() else " " for each in text[: 2 * SHOWN]).split())
    phrase = words if len(words) <= SHOWN else f"{words[: SHOWN - 3]}..."
    return phrase.encode("latin-1", "replace").decode("latin-1")
