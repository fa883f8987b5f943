"""One row, whatever door it comes by: the first to send some pixels has them computed, all others find them.

Each door is another server's real client, or what its users send, against one running server.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from rowserve.graphs.rows import Array
from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.handlers.picture_settings import PictureCard
from rowserve.handlers.pictures import picture_decoders
from tests.tools.clients import client
from tests.tools.digits_server import digits_models, digits_server, picture, scan

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:numElems is deprecated")]

SIGNATURE = Signature("serving_default", (TensorSpec("images", "float32", (8, 8)),), ())
CARD = PictureCard(colour="grey", range=(0, 16))
ROWS = re.compile(r'rowserve_rows_total\{model="digits",outcome="(\w+)",protocol="(\w+)",version="1"\} (\d+)')


@dataclass(frozen=True)
class Sample:
    """The same pixels in every form: as a JPEG, as a PNG, and as the row [8, 8] that either decodes to."""

    jpeg: bytes
    png: bytes
    row: Array


@dataclass(frozen=True)
class Addresses:
    """Where the server listens: with the native profile, with KServe's, and for gRPC."""

    native: str
    kserve: str
    grpc: str


def sample(which: int) -> Sample:
    """The pixels of a JPEG, which are those of no other sample."""
    jpeg = picture(scan(which % 10, 20 + which // 10), "JPEG")
    decoder: Any = picture_decoders(CARD, {SIGNATURE.name: SIGNATURE})[SIGNATURE.name]
    row = decoder.decode(jpeg).arrays["images"][0]
    png = picture(row)
    assert decoder.decode(png).arrays["images"].tobytes() == row.tobytes()
    return Sample(jpeg, png, row)


# The doors: each sends the sample once and gives the ten probabilities, or the best label, that come back.


def images_jpeg(at: Addresses, it: Sample) -> Any:
    answer = requests.post(f"{at.native}/images/digits?outputs=probabilities", files={"a": it.jpeg})
    return answer.json()["rows"][0]["outputs"]["probabilities"]


def images_png(at: Addresses, it: Sample) -> Any:
    kind = {"Content-Type": "image/png"}
    answer = requests.post(f"{at.native}/images/digits?outputs=probabilities", data=it.png, headers=kind)
    return answer.json()["rows"][0]["outputs"]["probabilities"]


def tutorial_upload(at: Addresses, it: Sample) -> Any:
    return requests.post(f"{at.native}/", files={"data": ("a.jpg", it.jpeg)}).json()[0][0]


def lines(at: Addresses, it: Sample) -> Any:
    answer = requests.post(f"{at.native}/rows/digits?outputs=probabilities", data=json.dumps(it.row.tolist()))
    return answer.json()["outputs"]["probabilities"]


def graphpipe(at: Addresses, it: Sample) -> Any:
    return client("graphpipe.remote").execute(f"{at.native}/graphpipe/digits", it.row[None])[0]


def tensorflow_serving(at: Addresses, it: Sample) -> Any:
    answer = requests.post(f"{at.native}/v1/models/digits:predict", json={"instances": [it.row.tolist()]})
    return answer.json()["predictions"][0]


def open_inference(at: Addresses, it: Sample) -> Any:
    triton = client("tritonclient.http")
    tensor = triton.InferInput("images", [1, 8, 8], "FP32")
    tensor.set_data_from_numpy(it.row[None], binary_data=True)
    with triton.InferenceServerClient(at.native.removeprefix("http://")) as server:
        return server.infer("digits", [tensor]).as_numpy("probabilities")[0]


def tensorflow_serving_grpc(at: Addresses, it: Sample) -> Any:
    tensorflow, grpc = client("tensorflow"), client("grpc")
    messages = client("tensorflow_serving.apis.predict_pb2")
    stubs = client("tensorflow_serving.apis.prediction_service_pb2_grpc")
    request = messages.PredictRequest()
    request.model_spec.name = "digits"
    request.inputs["images"].CopyFrom(tensorflow.make_tensor_proto(it.row[None]))
    with grpc.insecure_channel(at.grpc) as channel:
        answer = stubs.PredictionServiceStub(channel).Predict(request, timeout=60)
    return tensorflow.make_ndarray(answer.outputs["probabilities"])[0]


def open_inference_grpc(at: Addresses, it: Sample) -> Any:
    triton = client("tritonclient.grpc")
    tensor = triton.InferInput("images", [1, 8, 8], "FP32")
    tensor.set_data_from_numpy(it.row[None])
    with triton.InferenceServerClient(at.grpc) as server:
        return server.infer("digits", [tensor]).as_numpy("probabilities")[0]


def kserve(at: Addresses, it: Sample) -> Any:
    answer = requests.post(f"{at.kserve}/v1/models/digits:predict", json={"instances": [it.row.tolist()]})
    return answer.json()["predictions"][0]


def kserve_picture(at: Addresses, it: Sample) -> Any:
    body = {"instances": [{"data": b64encode(it.jpeg).decode()}]}
    return requests.post(f"{at.kserve}/v1/models/digits:predict", json=body).json()["predictions"][0]


def torchserve_picture(at: Addresses, it: Sample) -> Any:
    return next(iter(requests.put(f"{at.native}/predictions/digits", data=it.jpeg).json()))


def torchserve_bytes(at: Addresses, it: Sample) -> Any:
    return next(iter(requests.post(f"{at.native}/predictions/digits", data=it.row.tobytes()).json()))


def torchserve_json(at: Addresses, it: Sample) -> Any:
    return next(iter(requests.post(f"{at.native}/predictions/digits", json=it.row.tolist()).json()))


DOORS: dict[Callable[[Addresses, Sample], Any], str] = {
    images_jpeg: "images",
    images_png: "images",
    tutorial_upload: "tutorial",
    lines: "rows",
    graphpipe: "graphpipe",
    tensorflow_serving: "tensorflow_serving",
    tensorflow_serving_grpc: "tensorflow_serving_grpc",
    open_inference: "open_inference",
    open_inference_grpc: "open_inference_grpc",
    kserve: "kserve",
    kserve_picture: "kserve",
    torchserve_picture: "torchserve",
    torchserve_bytes: "torchserve",
    torchserve_json: "torchserve",
}


@pytest.fixture(scope="module")
def addresses(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    models = digits_models(digits, tmp_path_factory.mktemp("one-row"))
    with digits_server(models, "native", "kserve", grpc=True) as urls:
        yield Addresses(*urls)


def counted(at: Addresses) -> dict[tuple[str, str], int]:
    """Rows by protocol and outcome, those that are not 0."""
    figures = requests.get(f"{at.native}/metrics").text
    return {(found[2], found[1]): int(found[3]) for found in ROWS.finditer(figures) if found[3] != "0"}


def sent(at: Addresses, door: Callable[[Addresses, Sample], Any], it: Sample) -> tuple[Any, dict[tuple[str, str], int]]:
    """What a door answers, and the rows that were counted for it."""
    before = counted(at)
    answer = door(at, it)
    return answer, {key: n - before.get(key, 0) for key, n in counted(at).items() if n != before.get(key, 0)}


@pytest.mark.parametrize("first", DOORS, ids=lambda door: door.__name__)
def test_the_first_is_computed_and_all_others_are_hits(addresses, first):
    it = sample(list(DOORS).index(first))
    answers = []
    answer, rows = sent(addresses, first, it)
    assert rows == {(DOORS[first], "computed"): 1}
    answers.append(answer)
    for door in DOORS:
        answer, rows = sent(addresses, door, it)
        assert rows == {(DOORS[door], "hit"): 1}, door.__name__
        answers.append(answer)
    scores = [np.asarray(each, np.float32).tobytes() for each in answers if not isinstance(each, str)]
    labels = {each for each in answers if isinstance(each, str)}
    assert len(scores) > 3
    assert len(set(scores)) == 1  # to the bit, in every form
    assert labels == {str(np.frombuffer(scores[0], np.float32).argmax())}


def test_the_headers_say_so_too(addresses):
    it = sample(len(DOORS))
    body = {"instances": [it.row.tolist()]}
    urls = [f"{addresses.kserve}/v1/models/digits:predict", f"{addresses.native}/v1/models/digits:predict"]
    told = [requests.post(url, json=body).headers["Cache-Status"] for url in urls]
    told += [requests.post(f"{addresses.native}/predictions/digits", data=it.jpeg).headers["Cache-Status"]]
    told += [requests.post(f"{addresses.native}/", files={"data": it.jpeg}).headers["Cache-Status"]]
    assert told == ['rowserve; fwd=miss; detail="computed=1"', *["rowserve; hit"] * 3]
