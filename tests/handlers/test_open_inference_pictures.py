"""Pictures as a tensor of BYTES, in every form of an inference request."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from rowserve.graphs.signature import TensorSpec
from rowserve.handlers.items import ModelFace, Options, Picture, Question
from rowserve.handlers.kserve import read_predict
from rowserve.handlers.open_inference import read_infer
from rowserve.handlers.open_inference_datatypes import tensor_bytes
from rowserve.handlers.open_inference_grpc import infer_question
from rowserve.handlers.open_inference_grpc import read_infer as read_grpc
from rowserve.handlers.open_inference_pictures import MOST
from rowserve.handlers.problem import Problem
from rowserve.handlers.torchserve import read_prediction
from tests.http_doubles import SIGNATURE, LengthDecoder

triton: Any = service_pb2
FACE = ModelFace("m", 1, {"serving_default": SIGNATURE}, decoders={"serving_default": LengthDecoder()})
FILES = [b"\x89PNG one", b"\xff\xd8 two\0"]
TEXTS = [b64encode(file).decode() for file in FILES]
BLOB = bytes(tensor_bytes(np.array(FILES, object)))


def uploads(question: Question[Any]) -> list[bytes]:
    return [bytes(item.upload) for item in question.items if isinstance(item, Picture)]


def rest(face: ModelFace = FACE, blob: bytes = b"", **tensor: Any) -> Question[Any]:
    told = {"name": "312a4eb0", "shape": [-1], "datatype": "BYTES", **tensor}
    text = json.dumps({"inputs": [told]}).encode()
    return read_infer(face, {"inference-header-content-length": str(len(text))} if blob else {}, text + blob)


def grpc(shape: list[int], *, typed: bool, blob: bytes = BLOB) -> Question[Any]:
    tensor: dict[str, Any] = {"name": "any", "datatype": "BYTES", "shape": shape}
    if typed:
        tensor["contents"] = {"bytes_contents": FILES}
    raw = [] if typed else [blob]
    message = triton.ModelInferRequest(model_name="m", inputs=[tensor], raw_input_contents=raw).SerializeToString()
    return infer_question(FACE, read_grpc(message), Options())


@pytest.mark.parametrize("shape", [[-1], [2], [2, 1]])
def test_every_form(shape: list[int]) -> None:
    assert uploads(rest(shape=shape, data=TEXTS)) == FILES
    assert uploads(rest(shape=shape, blob=BLOB, parameters={"binary_data_size": len(BLOB)})) == FILES
    for typed in (False, True):
        assert uploads(grpc(shape, typed=typed)) == FILES


def test_base64_in_lines() -> None:
    assert uploads(rest(data=[TEXTS[0][:4] + "\n" + TEXTS[0][4:] + "\n"])) == FILES[:1]


@pytest.mark.parametrize(
    "tensor",
    [
        {"data": [5]},
        {"data": "text"},
        {"data": ["no base64!"]},
        {"data": TEXTS, "shape": [3]},
        {"data": TEXTS, "shape": [-1, 8, 8]},
        {"data": [""] * (MOST + 1)},
        {},
    ],
)
def test_what_is_no_list_of_pictures_is_refused(tensor: dict[str, Any]) -> None:
    with pytest.raises(Problem) as caught:
        rest(**tensor)
    assert caught.value.status == 400


@pytest.mark.parametrize("blob", [BLOB[:-1], BLOB + b"\1", b"\xff\xff\xff\xff"])
def test_bytes_that_end_too_soon_are_refused(blob: bytes) -> None:
    for ask in (
        lambda: rest(blob=blob, parameters={"binary_data_size": len(blob)}),
        lambda: grpc([-1], typed=False, blob=blob),
    ):
        with pytest.raises(Problem) as caught:
            ask()
        assert caught.value.status == 400


def test_a_model_that_takes_no_pictures_or_takes_strings_has_its_own_rules() -> None:
    words = replace(SIGNATURE, inputs=(TensorSpec("x", "string", ()),))
    for face in (replace(FACE, decoders={}), replace(FACE, signatures={"serving_default": words})):
        with pytest.raises(Problem, match="312a4eb0|shape"):
            rest(face, data=TEXTS)


def test_torchserves_sample_for_kserve() -> None:
    body = json.dumps({"instances": [{"data": text, "target": 0} for text in TEXTS]}).encode()
    assert uploads(read_predict(FACE, {}, body)) == FILES
    with pytest.raises(Problem):
        read_predict(replace(FACE, decoders={}), {}, body)
    with pytest.raises(Problem):  # where TorchServe itself is asked, what is not known is refused
        read_prediction(FACE, {"content-type": "application/json"}, body)
