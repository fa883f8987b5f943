from __future__ import annotations

import json

from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.handlers.example_row import row_of_ones, shown_row
from rowserve.handlers.items import ModelFace
from rowserve.handlers.ndjson import LineReader, TellingReader
from rowserve.handlers.problem import Problem


def signature(*specs: TensorSpec) -> Signature:
    return Signature("s", specs, ())


def test_the_example_row_is_one_that_the_model_takes() -> None:
    pair = (TensorSpec("a", "float32", (2, 2)), TensorSpec("b", "string", ()))
    assert json.loads(row_of_ones(signature(*pair))) == {"a": [[1, 1], [1, 1]], "b": "text"}
    assert row_of_ones(signature(TensorSpec("x", "bool", (None,)))) == "[true]"


def test_a_long_row_is_shown_by_its_first_elements_and_its_sizes() -> None:
    scan = TensorSpec("images", "float32", (8, 8, 1))
    assert shown_row(signature(scan)) == "[[[1], ...], ...] (8 x 8 x 1 elements)"
    both = signature(scan, TensorSpec("t", "float32", ()))
    assert shown_row(both) == '{"images": [[[1], ...], ...] (8 x 8 x 1 elements), "t": 1}'


def test_the_first_bad_line_tells_what_a_line_is_and_the_others_do_not_repeat_it() -> None:
    taken = signature(TensorSpec("x", "float32", (2,)))
    reader = TellingReader(LineReader(ModelFace("m", 1, {"s": taken}), taken))
    items = reader.read([b"[1, 2]", b"[[1, 2], [3, 4]]", b'{"instances": [[1, 2]]}', b"["])
    problems = [item for item in items if isinstance(item, Problem)]
    told = ["each line is one row, such as [1,1]" in problem.detail for problem in problems]
    assert told == [True, False, False]
