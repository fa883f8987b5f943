from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import helper

from rowserve.graphs.errors import CannotLoad, ForbiddenOp
from rowserve.graphs.fingerprint import fingerprint
from rowserve.graphs.onnx_model import read_onnx
from tests import onnx_recipes


def test_inputs_are_those_that_are_no_weights(tmp_path: Path):
    folder = onnx_recipes.linear(tmp_path)
    model = onnx.load(folder / "model.onnx")
    # Old files list the weights among the inputs too.
    model.graph.input.append(helper.make_tensor_value_info("w", onnx_recipes.FLOAT, [4, 3]))
    onnx.save(model, folder / "model.onnx")
    there = read_onnx(folder)
    assert (there.inputs, there.outputs, there.beside) == (("x",), ("y",), ())


def test_weights_may_lie_in_a_file_beside_the_model(tmp_path: Path):
    folder = onnx_recipes.outside(tmp_path, "weights.bin")
    assert read_onnx(folder).beside == ("weights.bin",)


def test_the_fingerprint_is_over_the_model_and_its_weights_and_nothing_else(tmp_path: Path):
    folder = onnx_recipes.outside(tmp_path, "weights.bin")
    before = fingerprint(folder)
    (folder / "labels.txt").write_text("a\n")
    assert fingerprint(folder) == before
    weights = bytearray((folder / "weights.bin").read_bytes())
    weights[0] ^= 1
    (folder / "weights.bin").write_bytes(weights)
    assert fingerprint(folder) != before


@pytest.mark.parametrize("place", ["../weights.bin", "/etc/hostname", "link", "", "."])
def test_weights_outside_the_folder_are_refused(tmp_path: Path, place: str):
    folder = onnx_recipes.outside(tmp_path / "model", place)
    (tmp_path / "weights.bin").write_bytes(bytes(100))
    (folder / "link").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(CannotLoad, match=r"lie outside|are not there"):
        read_onnx(folder)


def test_weights_that_only_a_subgraph_holds_are_looked_at_too(tmp_path: Path):
    weight = helper.make_tensor("w", onnx_recipes.FLOAT, [1], [0.0])
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../../elsewhere")
    inner = helper.make_graph([helper.make_node("Constant", [], ["v"], value=weight)], "inner", [], [])
    branch = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    outer = helper.make_graph(
        [branch],
        "outer",
        [helper.make_tensor_value_info("x", onnx.TensorProto.BOOL, [1])],
        [helper.make_tensor_value_info("y", onnx_recipes.FLOAT, [1])],
    )
    (tmp_path / "model.onnx").write_bytes(helper.make_model(outer).SerializeToString())
    with pytest.raises(CannotLoad, match="elsewhere"):
        read_onnx(tmp_path)


def test_ops_that_are_in_somebody_s_library_are_refused_by_name(tmp_path: Path):
    folder = onnx_recipes.strange_op(tmp_path, "my.lib")
    with pytest.raises(ForbiddenOp, match=r"my\.lib\.NoSuchOp") as caught:
        read_onnx(folder)
    assert caught.value.ops == ("my.lib.NoSuchOp",)


def test_functions_of_the_model_s_own_are_no_library(tmp_path: Path):
    folder = onnx_recipes.strange_op(tmp_path, "my.lib")
    model = onnx.load(folder / "model.onnx")
    opset = [helper.make_opsetid("", 17)]
    body = [helper.make_node("Relu", ["a"], ["b"])]
    model.functions.append(helper.make_function("my.lib", "NoSuchOp", ["a"], ["b"], body, opset))
    onnx.save(model, folder / "model.onnx")
    assert read_onnx(folder).outputs == ("y",)


@pytest.mark.parametrize("content", [b"", b"garbage\xff\xff", None], ids=["empty", "random", "truncated"])
def test_a_bad_file_is_one_readable_line(tmp_path: Path, content: bytes | None):
    folder = onnx_recipes.linear(tmp_path)
    file = folder / "model.onnx"
    file.write_bytes(file.read_bytes()[:-30] if content is None else content)
    with pytest.raises(CannotLoad, match="corrupt") as caught:
        read_onnx(folder)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
