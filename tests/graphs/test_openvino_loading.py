from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rowserve.graphs import openvino_engine
from rowserve.graphs.description import description_name
from rowserve.graphs.errors import CannotLoad, ForbiddenOp, RowBroken, UnknownOutput
from rowserve.graphs.isolation import answer_batch
from rowserve.graphs.load_settings import LoadSettings
from rowserve.graphs.loading import load
from rowserve.graphs.rows import Rows
from rowserve.graphs.session import GraphSession
from tests import onnx_recipes
from tests.model_recipes import edit, numbers

Load = Callable[..., GraphSession]
NAME = "serving_default"


@pytest.fixture
def open_model(model) -> Iterator[Load]:
    """Load a folder, or a recipe's SavedModel, with OpenVINO; closed at the end of the test."""
    opened = []

    def find(what: str | Path, **settings: Any) -> GraphSession:
        opened.append(load(model(what) if isinstance(what, str) else what, openvino(**settings)))
        return opened[-1]

    yield find
    for session in opened:
        session.close()


def openvino(**settings: Any) -> LoadSettings:
    return LoadSettings(**{"engine": "openvino", "precision": "f32", **settings})


def x(count: int, width: int = 4):
    return np.random.default_rng(1).normal(size=(count, width)).astype(np.float32)


def test_a_saved_model(open_model: Load):
    session = open_model("linear")
    found = session.run(NAME, Rows({"x": x(5)}, 5))
    np.testing.assert_allclose(found["y"], x(5) @ numbers(4, 3) + numbers(3, seed=8), rtol=1e-5)


def test_an_onnx_file_of_the_same_function_answers_the_same(open_model: Load, tmp_path: Path):
    session = open_model(onnx_recipes.linear(tmp_path))
    signature = session.description.signatures[NAME]
    assert [(spec.name, spec.dtype, spec.shape) for spec in signature.inputs] == [("x", "float32", (4,))]
    assert [(spec.name, spec.dtype, spec.shape) for spec in signature.outputs] == [("y", "float32", (3,))]
    found = session.run(NAME, Rows({"x": x(5)}, 5))
    np.testing.assert_allclose(found["y"], x(5) @ numbers(4, 3) + numbers(3, seed=8), rtol=1e-5)


def test_weights_beside_an_onnx_file(open_model: Load, tmp_path: Path):
    session = open_model(onnx_recipes.outside(tmp_path, "weights.bin"))
    found = session.run(NAME, Rows({"x": x(2)}, 2))
    np.testing.assert_allclose(found["y"], x(2) @ numbers(4, 3) + numbers(3, seed=8), rtol=1e-5)


def test_an_answer_stays_as_it_is_when_the_next_one_is_computed(open_model: Load):
    session = open_model("linear")
    first = session.run(NAME, Rows({"x": x(3)}, 3))["y"]
    kept = first.copy()
    session.run(NAME, Rows({"x": x(3) + 1}, 3))
    assert np.array_equal(first, kept)


def test_rows_that_may_not_be_written_to_or_have_gaps_are_read_as_they_are(open_model: Load):
    session = open_model("linear")
    whole = session.run(NAME, Rows({"x": x(4)}, 4))["y"]
    sealed = np.frombuffer(x(4).tobytes(), np.float32).reshape(4, 4)
    gaps = np.repeat(x(4), 2, axis=1)[:, ::2]
    for rows in (sealed, gaps):
        assert np.array_equal(session.run(NAME, Rows({"x": rows}, 4))["y"], whole)


def test_several_inputs_and_outputs_and_a_static_one(open_model: Load, tmp_path: Path):
    session = open_model(onnx_recipes.two_of_each(tmp_path), static_inputs=("scale",))
    a, b = x(3, 2), x(3, 2) + 1
    found = session.run(NAME, Rows({"a": a, "b": b}, 3, {"scale": np.array(2, np.float32)}))
    np.testing.assert_allclose(found["total"], (a + b) * 2, rtol=1e-6)
    np.testing.assert_allclose(found["less"], a - b, rtol=1e-6)


def test_a_card_may_narrow_the_outputs(open_model: Load, tmp_path: Path):
    folder = onnx_recipes.two_of_each(tmp_path)
    session = open_model(folder, static_inputs=("scale",), outputs=("less",))
    found = session.run(NAME, Rows({"a": x(2, 2), "b": x(2, 2)}, 2, {"scale": np.array(2, np.float32)}))
    assert list(found) == ["less"]
    with pytest.raises(UnknownOutput, match="less, total"):
        load(folder, openvino(outputs=("more",)))


@pytest.mark.parametrize("batch", [1, 8])
def test_a_fixed_leading_dimension_is_filled_up(open_model: Load, tmp_path: Path, batch: int):
    session = open_model(onnx_recipes.linear(tmp_path, batch))
    assert session.description.signatures[NAME].batch == batch
    found = session.run(NAME, Rows({"x": x(11)}, 11))["y"]
    np.testing.assert_allclose(found, x(11) @ numbers(4, 3) + numbers(3, seed=8), rtol=1e-5)


def test_every_signature_is_served_under_its_own_name(open_model: Load):
    session = open_model("two_signatures")
    assert sorted(session.description.signatures) == ["half", NAME]
    whole, half = (session.run(name, Rows({"x": x(2)}, 2))["y"] for name in (NAME, "half"))
    np.testing.assert_allclose(whole / 2, half, rtol=1e-6)


def test_one_tensor_under_two_names(open_model: Load):
    session = open_model("passed_on")
    found = session.run(NAME, Rows({"x": x(2, 2)}, 2))
    assert {spec.name for spec in session.description.signatures[NAME].outputs} == set(found)
    assert np.array_equal(found["same"], x(2, 2))
    assert np.array_equal(found["twice"], found["again"])


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "int8", "int16", "int32", "int64", "float16", "float32"])
def test_values_of_every_type_come_back(open_model: Load, dtype: str):
    session = open_model(f"identity_{dtype}")
    values = np.array([[0, 1], [1, 100]]).astype(dtype)
    found = session.run(NAME, Rows({"x": values}, 2))["y"]
    assert found.dtype == values.dtype
    assert np.array_equal(found, values)


def test_answers_that_hang_on_their_company_run_alone(open_model: Load, tmp_path: Path):
    session = open_model(onnx_recipes.centred(tmp_path))
    assert "changes with the rows beside it" in session.description.signatures[NAME].alone


def test_a_number_that_would_be_cut_off_is_its_row_s_fault_and_no_other_s(open_model: Load, tmp_path: Path):
    session = open_model(onnx_recipes.ids(tmp_path))
    values = np.ones((4, 5), np.int64)
    values[2, 3] = 1 << 31
    with pytest.raises(RowBroken, match="beyond 32 bits"):
        session.run(NAME, Rows({"ids": values}, 4))
    signature = session.description.signatures[NAME]
    result = answer_batch(session, signature, Rows({"ids": values}, 4))
    assert [isinstance(each, RowBroken) for each in result.packed] == [False, False, True, False]


def test_rows_of_a_shape_that_does_not_fit_are_refused_and_the_next_are_answered(open_model: Load):
    session = open_model("linear")
    with pytest.raises(RowBroken):
        session.run(NAME, Rows({"x": x(2, 5)}, 2))
    assert session.run(NAME, Rows({"x": x(2)}, 2))["y"].shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("vocabulary", "input word is string"),
        ("half_precision", "input x is bfloat16"),
        ("random_op", "RandomStandardNormal"),
        ("counter", r"changes its variables \(AssignAddVariableOp\)"),
    ],
)
def test_what_it_cannot_run_says_why_and_what_to_do(model, name: str, why: str):
    with pytest.raises(CannotLoad, match=why) as caught:
        load(model(name), openvino())
    assert 'engine = "tensorflow"' in str(caught.value)
    assert str(model(name)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_onnx_file_that_cannot_be_converted_names_the_op(tmp_path: Path):
    with pytest.raises(CannotLoad, match="NoSuchOp"):
        load(onnx_recipes.strange_op(tmp_path), openvino())


def test_a_signature_that_cannot_be_converted_is_left_out_and_the_others_serve(model, tmp_path: Path):
    folder = Path(shutil.copytree(model("two_signatures"), tmp_path / "copy"))

    def harm(message: Any) -> None:
        graph = message.meta_graphs[0].graph_def
        graph.node.add(name="random", op="RandomStandardNormal")
        message.meta_graphs[0].signature_def["half"].outputs["y"].name = "random:0"

    session = load(edit(folder, harm), openvino())
    assert list(session.description.signatures) == [NAME]
    assert any("signature half" in note and "left out" in note for note in session.description.notes)
    session.close()


def test_checks_that_are_left_out_are_told(open_model: Load):
    (note,) = open_model("fussy").description.notes
    assert "without its checks (Assert)" in note


@pytest.mark.parametrize("name", ["read_file_plainly", "write_file_at_start", "write_file_in_loader"])
def test_ops_that_reach_outside_are_refused_before_anything_is_converted(model, monkeypatch, name: str):
    def never(*_: Any) -> None:
        raise AssertionError("converted")

    monkeypatch.setattr("rowserve.graphs.openvino_loading._convert", never)
    with pytest.raises(ForbiddenOp):
        load(model(name), openvino())


def test_only_the_reader_of_its_own_form_sees_a_file(model, tmp_path: Path):
    """A file of another form under the name of an ONNX file goes to no other reader."""
    shutil.copy(model("linear") / "saved_model.pb", tmp_path / "model.onnx")
    with pytest.raises(CannotLoad, match=r"model\.onnx"):
        load(tmp_path, openvino())


def test_exact_mode_finds_sizes_and_keeps_a_row_s_bytes(open_model: Load):
    session = open_model("dense", exact=True, max_rows=8)
    assert session.description.sizes[NAME]
    rows = np.random.default_rng(3).normal(size=(8, 512)).astype(np.float32)
    whole = session.run(NAME, Rows({"x": rows}, 8))["y"]
    for count in (1, 3, 8):
        assert np.array_equal(session.run(NAME, Rows({"x": rows[:count].copy()}, count))["y"], whole[:count])


def test_no_answer_is_found_under_another_engine_precision_or_version(model, monkeypatch):
    def execution(settings: LoadSettings):
        session = load(model("linear"), settings)
        session.close()
        return tuple(sorted(session.description.execution.items()))

    monkeypatch.setattr("rowserve.graphs.execution.engine_version", lambda engine: "1.0")
    seen = {execution(settings) for settings in (LoadSettings(), openvino(), openvino(precision="bf16"))}
    monkeypatch.setattr("rowserve.graphs.execution.engine_version", lambda engine: "2.0")
    seen.add(execution(openvino()))
    assert len(seen) == 4
    assert dict(next(each for each in seen if ("engine", "tensorflow") in each)) == {
        "engine": "tensorflow",
        "precision": "as saved",
    }
    names = {description_name("f", settings) for settings in (LoadSettings(), openvino(), openvino(precision="bf16"))}
    assert len(names) == 3


def test_what_is_remembered_is_not_tested_again(model, monkeypatch):
    first = load(model("two_signatures"), openvino())
    first.close()

    def never(*_: Any) -> None:
        raise AssertionError("tested again")

    monkeypatch.setattr("rowserve.graphs.loading.examine", never)
    again = load(model("two_signatures"), openvino(), first.description)
    assert again.description == first.description
    assert again.run("half", Rows({"x": x(3)}, 3))["y"].shape == (3, 3)
    again.close()


def test_neither_tensorflow_nor_what_reports_to_others_is_imported(model, tmp_path: Path):
    """In a process of its own, with a reporter that would be noticed."""
    (tmp_path / "openvino_telemetry").mkdir()
    (tmp_path / "openvino_telemetry" / "__init__.py").write_text("raise SystemExit('reported')")
    folders = [str(model("linear")), str(onnx_recipes.linear(tmp_path / "onnx"))]
    code = (
        "import sys; from pathlib import Path\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "from rowserve.graphs.loading import load, LoadSettings\n"
        f"for folder in {folders!r}:\n"
        "    load(Path(folder), LoadSettings(engine='openvino', precision='f32'))\n"
        "wrong = {'tensorflow', 'keras', 'openvino_telemetry'} & set(sys.modules)\n"
        "sys.exit(f'imported {wrong}' if wrong else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_the_package_the_error_says_what_to_install(model, monkeypatch: pytest.MonkeyPatch):
    openvino_engine._openvino.cache_clear()
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(CannotLoad, match=r"pip install 'rowserve\[openvino\]'"):
        load(model("linear"), openvino())
