"""Instances in JSON, and a value for each."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import orjson
import pytest

from rowserve.graphs.rows import Buffer, RowLayout, Rows
from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.handlers.instances import predictions, read_document, read_instances
from rowserve.handlers.items import Answer, ModelFace, Outcome, Picture
from rowserve.handlers.json_pieces import LongList
from rowserve.handlers.native_json import PLAIN
from rowserve.handlers.problem import Problem

X = TensorSpec("x", "float32", (2,))
Y = TensorSpec("y", "float32", (2,))
SUM = TensorSpec("sum", "float64", ())
FREE = TensorSpec("free", "int32", (None,))


class Decoder:
    identity = b"d"

    def peak_bytes(self, upload: Buffer) -> int:
        return len(upload)

    def decode(self, upload: Buffer) -> Rows:
        raise AssertionError("handlers never decode")


def face(*inputs: TensorSpec, outputs: Any = (Y,), pictures: Any = None, alone: str = "") -> ModelFace:
    name = "serving_default"
    signature = Signature(name, inputs or (X,), outputs, alone=alone)
    return ModelFace("m", 1, {name: signature}, None, {} if pictures is None else {name: pictures})


def read(values: list[Any], model: ModelFace) -> list[Any]:
    return list(read_instances(model, model.signature(), values, "instances"))


def arrays(values: list[Any], model: ModelFace) -> list[dict[str, Any]]:
    return [{name: array.tolist() for name, array in rows.arrays.items()} for rows in read(values, model)]


def refused(values: list[Any], model: ModelFace) -> Problem:
    with pytest.raises(Problem) as caught:
        read(values, model)
    return caught.value


def test_an_instance_is_a_value_an_object_or_wrapped():
    for form in ([1, 2], {"x": [1, 2]}, {"data": [1, 2]}, {"body": [1, 2]}, {"data": {"x": [1, 2]}}):
        assert arrays([form, form], face()) == [{"x": [[1, 2], [1, 2]]}]
    two = face(X, TensorSpec("word", "string", ()))
    assert arrays([{"x": [1, 2], "word": "a"}], two) == [{"x": [[1, 2]], "word": [b"a"]}]
    assert arrays([{"data": {"x": [1, 2], "word": {"b64": "AP8="}}}], two) == [{"x": [[1, 2]], "word": [b"\0\xff"]}]


def test_an_input_may_be_called_as_a_wrapper_is():
    both = face(TensorSpec("body", "int64", ()), TensorSpec("data", "int64", ()))
    assert arrays([{"data": 1, "body": 2}], both) == [{"body": [2], "data": [1]}]
    assert "'body' is missing" in refused([{"data": 1}], both).detail
    assert arrays([{"data": 3}], face(TensorSpec("data", "int64", ()))) == [{"data": [3]}]


def test_a_fault_has_its_path():
    assert refused([[1, 2], [1, "a"]], face()).detail.startswith("instances[1][1]:")
    assert refused([[1, 2], {"z": 1}], face()).detail == "instances[1].z: no such input; there are: x"


def test_pictures_come_in_base64_beside_tensors():
    model = face(pictures=Decoder())
    text = base64.b64encode(b"png").decode()
    for form in (text, {"b64": text}, {"data": text}, {"x": {"b64": text}}, {"data": {"b64": text}}):
        first, second = read([form, [1, 2]], model)
        assert isinstance(first, Picture)
        assert (bytes(first.upload), second.count) == (b"png", 1)
    assert arrays([[1, 2], [3, 4]], model) == [{"x": [[1, 2], [3, 4]]}]
    assert refused(["A"], model).detail.startswith("instances[0]: not base64: ")
    (empty,) = read([""], model)
    assert isinstance(empty, Problem)


def test_base64_may_have_line_breaks():
    text = base64.encodebytes(b"png" * 100).decode()
    (found,) = read([text], face(pictures=Decoder()))
    assert isinstance(found, Picture)
    assert bytes(found.upload) == b"png" * 100


def test_a_long_list_is_read_a_piece_at_a_time():
    values: list[Any] = [[i, 0] for i in range(20_000)]
    values[15_000] = {"data": {"b64": base64.b64encode(b"png").decode()}}
    model = face(pictures=Decoder())
    document = read_document(json.dumps({"instances": values}).encode())
    assert isinstance(document["instances"], LongList)
    found = read_instances(model, model.signature(), document["instances"], "instances")
    kinds = [kind for item in found for kind in [type(item)] * (item.count if isinstance(item, Rows) else 1)]
    assert (len(kinds), kinds.index(Picture)) == (20_000, 15_000)
    values[15_000] = {"x": [1]}
    document = read_document(json.dumps({"instances": values}).encode())
    with pytest.raises(Problem, match=r"instances\[15000\].x: expected a list of 2"):
        read_instances(model, model.signature(), document["instances"], "instances")


def test_what_keeps_a_model_from_pictures_is_not_asked_for_tensors():
    model = face(pictures=Problem(422, "write range = [0, 1]"))
    assert arrays([[1, 2]], model) == [{"x": [[1, 2]]}]


def told(model: ModelFace, items: list[Rows], answer: Answer) -> Any:
    return orjson.loads(orjson.dumps(predictions(model, model.signature(), items, answer), option=PLAIN))


def answered(model: ModelFace, **outputs: Any) -> Answer:
    layout = RowLayout(model.signature().outputs)
    made = {spec.name: np.asarray(outputs[spec.name], spec.numpy_dtype) for spec in layout.specs}
    count = len(next(iter(made.values())))
    return Answer(layout, list(layout.pack(made, count)), [Outcome.HIT] * count)


def rows(count: int) -> list[Rows]:
    return [Rows({"x": np.zeros((count, 2), np.float32)}, count)]


def test_one_output_is_a_value_and_several_are_an_object():
    assert told(face(), rows(2), answered(face(), y=[[1, 2], [3, 4]])) == [[1, 2], [3, 4]]
    two = face(outputs=(SUM, Y))
    assert told(two, rows(1), answered(two, y=[[1, np.nan]], sum=[3])) == [{"sum": 3, "y": [1, None]}]
    assert told(face(), [], answered(face(), y=np.zeros((0, 2)))) == []


def test_rows_of_different_shapes_have_values_of_their_own():
    model = face(outputs=(FREE,))
    layout = RowLayout(model.signature().outputs)
    packed: list[Any] = [layout.pack({"free": np.arange(n, dtype=np.int32)[None]}, 1)[0] for n in (1, 3)]
    assert told(model, rows(2), Answer(layout, packed, [Outcome.HIT] * 2)) == [[0], [0, 1, 2]]


def test_rows_that_ran_as_a_whole_come_apart_again():
    model = face(outputs=(FREE, Y), alone="its answers change with their company")
    layout = RowLayout(TensorSpec(spec.name, spec.dtype, None) for spec in (FREE, Y))

    def whole(free: Any) -> Answer:
        made = {"free": np.asarray([free], np.int32), "y": np.asarray([[[1, 2], [3, 4]]], np.float32)}
        return Answer(layout, list(layout.pack(made, 1)), [Outcome.BYPASSED], alone=True)

    apart = [{"free": [1, 1], "y": [1, 2]}, {"free": [2, 2], "y": [3, 4]}]
    assert told(model, rows(2), whole([[1, 1], [2, 2]])) == apart
    with pytest.raises(Problem, match=r"output free has the shape \[3\]: not a row for each of 2 instances"):
        told(model, rows(2), whole([1, 2, 3]))


def test_the_first_bad_row_is_the_answer():
    answer = answered(face(), y=[[1, 2], [3, 4]])
    answer.packed[1], answer.errors[1] = None, Problem(504, "too late")
    with pytest.raises(Problem, match="too late"):
        told(face(), rows(2), answer)
