from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from rowserve.graphs import freezing, opening, tensorflow_loading
from rowserve.graphs.batch_sizes import batch_sizes
from rowserve.graphs.engine import tensorflow
from rowserve.graphs.errors import CannotLoad, GraphError, GraphFailed, RowBroken, UnknownOutput
from rowserve.graphs.isolation import BatchResult, answer_batch
from rowserve.graphs.loading import LoadSettings, load
from rowserve.graphs.rows import RowLayout, Rows
from rowserve.graphs.run_watch import RunWatch
from rowserve.graphs.runners import FunctionGraph, SessionGraph
from rowserve.graphs.session import GraphSession
from rowserve.graphs.signature import Signature
from rowserve.graphs.tolerance import Likeness, likeness
from tests.model_recipes import edit, numbers

Load = Callable[..., GraphSession]
NAME = "serving_default"


@pytest.fixture
def open_model(model) -> Iterator[Load]:
    """Load a recipe's model, closed at the end of the test."""
    opened = []

    def find(name: str, **settings) -> GraphSession:
        opened.append(load(model(name), LoadSettings(**settings)))
        return opened[-1]

    yield find
    for session in opened:
        session.close()


def rows(**arrays) -> Rows:
    made = {name: texts(*a) if isinstance(a, tuple) else np.asarray(a) for name, a in arrays.items()}
    return Rows(made, len(next(iter(made.values()))))


def texts(*values: bytes):
    array = np.empty(len(values), object)
    array[:] = values
    return array


def unpacked(signature: Signature, result: BatchResult, at: int = 0) -> dict[str, Any]:
    """One answer of a batch, which must not be an error."""
    packed = result.packed[at]
    assert not isinstance(packed, GraphError), packed
    return RowLayout(signature.outputs).unpack(packed)


def x(count: int, width: int = 4):
    return numbers(count, width, seed=count)


def alike(one, other) -> bool:
    return likeness(np.asarray(one), np.asarray(other, np.asarray(one).dtype)) is Likeness.EQUAL


# Right answers


def test_a_linear_model(open_model: Load):
    session = open_model("linear")
    about = session.description
    assert (about.loader, about.frozen, about.notes) == ("v1", True, ())
    assert alike(session.run(NAME, rows(x=x(5)))["y"], x(5) @ numbers(4, 3) + numbers(3, seed=8))
    assert session.run(NAME, rows(x=x(0)))["y"].shape == (0, 3)


def test_two_outputs_of_different_types(open_model: Load):
    session = open_model("two_outputs")
    found = session.run(NAME, rows(x=x(5)))
    assert (found["best"].dtype, found["best"].shape) == (np.int64, (5,))
    assert np.array_equal(found["best"], (x(5) @ numbers(4, 3)).argmax(axis=1))
    assert alike(found["scores"].sum(axis=1), np.ones(5))


def test_a_card_may_narrow_the_outputs(open_model: Load):
    session = open_model("two_outputs", outputs=("best",))
    assert [spec.name for spec in session.description.signatures[NAME].outputs] == ["best"]
    assert set(session.run(NAME, rows(x=x(2)))) == {"best"}


@pytest.mark.parametrize("settings", [{"outputs": ("worst",)}, {"static_inputs": ("worst",)}])
def test_a_card_that_names_what_is_not_there_is_told_what_is(model, settings: dict):
    with pytest.raises(UnknownOutput, match="'?worst'?; there is: (best, scores|x)$"):
        load(model("two_outputs"), LoadSettings(**settings))


def test_several_signatures_and_one_that_cannot_be_served(open_model: Load):
    session = open_model("two_signatures")
    assert set(session.description.signatures) == {NAME, "half"}
    assert any("resource" in note for note in session.description.notes)
    found = rows(x=x(3))
    assert alike(session.run(NAME, found)["y"] / 2, session.run("half", found)["y"])


def test_several_inputs_of_different_types(open_model: Load):
    session = open_model("several_inputs")
    found = session.run(NAME, rows(a=x(2, 3), b=np.array([1, 2]), c=(b"one", b"\xfftwo")))
    assert found["said"].tolist() == [b"one:1", b"\xfftwo:2"]
    assert alike(found["total"], x(2, 3).sum(axis=1) + np.array([1, 2]))


def test_a_table_in_memory(open_model: Load):
    found = open_model("vocabulary").run(NAME, rows(word=(b"dog", b"gnu", b"cat")))
    assert found["id"].tolist() == [20, -1, 10]
    assert found["upper"].tolist() == [b"DOG", b"GNU", b"CAT"]


def test_a_table_from_a_file_of_the_model_also_when_frozen_and_moved(model, tmp_path: Path):
    folder = Path(shutil.copytree(model("vocabulary_file"), tmp_path / "moved"))
    session = load(folder, LoadSettings())
    assert session.description.frozen
    found = session.run(NAME, rows(word=(b"cow", b"gnu", b"ant")))
    assert found["id"].tolist() == [2, -1, 0]
    assert alike(found["weight"], numbers(4)[[3, 0, 1]])
    session.close()


def test_variables_and_init_ops_of_tensorflow_1(open_model: Load):
    session = open_model("ref_variables")
    assert session.description.frozen
    found = session.run(NAME, rows(x=x(2), word=(b"b", b"c")))
    assert found["id"].tolist() == [2, -1]
    assert alike(found["y"], x(2) @ numbers(4, 3))


def test_a_static_input(open_model: Load):
    session = open_model("static_input", static_inputs=("temperature",))
    signature = session.description.signatures[NAME]
    assert signature.alone == ""
    assert [spec.name for spec in signature.static_inputs] == ["temperature"]
    for temperature in (0.5, 2.0):
        found = session.run(NAME, Rows({"x": x(3, 3)}, 3, {"temperature": np.array(temperature, np.float32)}))["p"]
        powers = np.exp(x(3, 3) / np.float32(temperature))
        assert alike(found, powers / powers.sum(axis=1, keepdims=True))


def test_a_static_input_that_nobody_named_keeps_requests_apart(open_model: Load):
    session = open_model("static_input")
    signature = session.description.signatures[NAME]
    assert "temperature" in signature.alone
    assert "static_inputs" in signature.alone
    assert [spec.name for spec in signature.row_inputs] == ["x"]
    assert any("static_inputs" in note for note in session.description.notes)
    found = answer_batch(session, signature, Rows({"x": x(3, 3)}, 3, {"temperature": np.array(1, np.float32)}))
    assert unpacked(signature, found)["p"].shape == (3, 3)


@pytest.mark.parametrize(("name", "batch"), [("fixed_one", 1), ("fixed_eight", 8)])
def test_a_fixed_leading_dimension(open_model: Load, name: str, batch: int):
    session = open_model(name)
    assert session.description.signatures[NAME].batch == batch
    assert session.description.signatures[NAME].alone == ""
    for count in (1, 3, 8, 9):
        assert alike(session.run(NAME, rows(x=x(count)))["y"], x(count) @ numbers(4, 3))


def test_free_dimensions_of_a_row(open_model: Load):
    session = open_model("free_rows")
    for width in (1, 5, 40):
        found = session.run(NAME, rows(x=x(2, width)))
        assert alike(found["total"], x(2, width).sum(axis=1))
        assert found["twice"].shape == (2, width)
    assert session.description.signatures[NAME].alone == ""


def test_half_precision(open_model: Load):
    session = open_model("half_precision")
    found = session.run(NAME, rows(x=x(2).astype(ml_dtypes.bfloat16)))["y"]
    assert found.dtype == ml_dtypes.bfloat16
    assert np.array_equal(found, x(2).astype(ml_dtypes.bfloat16) * 2)


def test_made_up_rows_find_the_numbers_that_a_lookup_takes(open_model: Load):
    session = open_model("embedding")
    assert session.description.signatures[NAME].alone == ""
    assert session.description.frozen
    ids = np.array([[0, 1, 2, 0, 1]], np.int32)
    assert alike(session.run(NAME, rows(ids=ids))["mean"], numbers(3, 2)[ids].mean(axis=1))


def test_made_up_rows_find_the_text_that_a_parser_takes(open_model: Load):
    session = open_model("parse_numbers")
    assert session.description.signatures[NAME].alone == ""
    assert session.run(NAME, rows(text=(b"2.5", b"-1")))["value"].tolist() == [2.5, -1]


def test_an_output_that_is_an_input_and_one_tensor_under_two_names(open_model: Load):
    found = open_model("passed_on").run(NAME, rows(x=x(3, 2)))
    assert alike(found["same"], x(3, 2))
    assert alike(found["twice"], x(3, 2) * 2)
    assert alike(found["again"], x(3, 2) * 2)


def test_a_bad_row_among_good_ones(open_model: Load):
    session = open_model("fussy")
    signature = session.description.signatures[NAME]
    values = x(64)
    values[17] = 2000
    result = answer_batch(session, signature, rows(x=values))
    bad = [at for at, packed in enumerate(result.packed) if isinstance(packed, Exception)]
    assert bad == [17]
    assert isinstance(result.packed[17], RowBroken)
    assert "a value above 1000" in str(result.packed[17])
    assert "\n" not in str(result.packed[17])
    good = [at for at in range(64) if at != 17]
    found = np.array([unpacked(signature, result, at)["y"] for at in good])
    assert likeness(found, values[good] @ numbers(4, 3)) >= Likeness.ROUNDING


def test_a_fault_that_no_row_has_is_the_graph_s(open_model: Load):
    with pytest.raises(GraphFailed, match="KeyError"):
        open_model("linear").run(NAME, rows(other=x(2)))


def test_sessions_do_not_share_state(open_model: Load):
    one, other = open_model("linear"), open_model("two_outputs")
    before = one.run(NAME, rows(x=x(2)))["y"]
    other.close()
    assert alike(one.run(NAME, rows(x=x(2)))["y"], before)


# Loaders


def test_a_model_that_only_the_second_loader_opens(open_model: Load, model):
    tf = tensorflow()
    session = open_model("only_v2")
    assert (session.description.loader, session.description.frozen) == ("v2 frozen", True)
    assert alike(session.run(NAME, rows(x=x(5)))["y"], x(5) @ numbers(4, 3) + numbers(3, seed=8))
    # The recipe is what it says: the first loader opens it, and fails at the first run.
    with tf.compat.v1.Session(graph=tf.Graph()) as plain:
        tf.compat.v1.saved_model.load(plain, ["serve"], str(model("only_v2")))
        with pytest.raises(tf.errors.FailedPreconditionError, match="Could not find variable"):
            plain.run("StatefulPartitionedCall:0", {"serving_default_x:0": x(1)})


def test_one_of_those_that_cannot_be_frozen_runs_as_its_function(open_model: Load):
    session = open_model("only_v2_table")
    assert (session.description.loader, session.description.frozen) == ("v2 function", False)
    assert any("cannot be made constants" in note for note in session.description.notes)
    found = session.run(NAME, rows(word=(b"cat", b"gnu", b"dog")))["y"]
    assert alike(found, np.array([[1], [0], [2]]) @ numbers(1, 2) + numbers(2, seed=8))
    assert session.description.signatures[NAME].alone == ""


def test_a_model_that_only_the_first_loader_opens(open_model: Load, model):
    session = open_model("only_v1")
    assert session.description.loader == "v1"
    assert alike(session.run(NAME, rows(x=x(5)))["y"], x(5) @ numbers(4, 3))
    with pytest.raises(AttributeError, match="'_UserObject' object has no attribute 'add_slot'"):
        tensorflow().saved_model.load(str(model("only_v1")))


def test_a_loader_is_not_believed_before_a_run(open_model: Load, monkeypatch: pytest.MonkeyPatch):
    """Both loaders open it without a word; what decides is which one runs."""
    opened: list[str] = []

    def noted(name: str, opener: Any) -> Any:
        def call(*args: Any) -> Any:
            opened.append(name)
            return opener(*args)

        return call

    for name, opener in opening.OPENERS.items():
        monkeypatch.setitem(opening.OPENERS, name, noted(name, opener))
    open_model("only_v2")
    assert opened == ["v1", "v2"]
    open_model("linear")
    assert opened == ["v1", "v2", "v1"]


def test_a_signature_that_does_not_run_is_left_out_and_the_others_serve(model, tmp_path: Path):
    """One signature reads a variable that nobody ever sets, which no loader can help."""
    tf = tensorflow()
    folder = Path(shutil.copytree(model("two_signatures"), tmp_path / "copy"))

    def change(message) -> None:
        meta = message.meta_graphs[0]
        meta.ClearField("object_graph_def")
        with tf.Graph().as_default() as graph:
            handle = tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[], shared_name="lost", name="lost")
            value = tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32)
            answer = tf.zeros([3, 3]) + value
        meta.graph_def.node.extend(graph.as_graph_def().node)
        meta.signature_def["half"].outputs["y"].name = answer.name

    session = load(edit(folder, change), LoadSettings())
    assert list(session.description.signatures) == [NAME]
    assert any("half is left out: it does not run" in note and "lost" in note for note in session.description.notes)
    assert alike(session.run(NAME, rows(x=x(2)))["y"], x(2) @ numbers(4, 3))
    session.close()


# Freezing


def test_freezing_keeps_what_a_graph_answers(open_model: Load, monkeypatch: pytest.MonkeyPatch):
    frozen = open_model("dense")
    monkeypatch.setattr(tensorflow_loading, "freeze", refuse)
    kept = open_model("dense")
    assert (frozen.description.frozen, kept.description.frozen) == (True, False)
    many = rows(x=x(9, 512))
    assert likeness(frozen.run(NAME, many)["y"], kept.run(NAME, many)["y"]) >= Likeness.ROUNDING


def refuse(*_: object) -> None:
    raise ValueError("not today")


def test_a_graph_that_cannot_be_frozen_is_served_as_it_is(open_model: Load, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tensorflow_loading, "freeze", refuse)
    session = open_model("linear")
    assert not session.description.frozen
    assert "kept its variables: they cannot be made constants: not today" in session.description.notes
    assert alike(session.run(NAME, rows(x=x(5)))["y"], x(5) @ numbers(4, 3) + numbers(3, seed=8))


def test_a_frozen_graph_that_answers_otherwise_is_not_served(open_model: Load, monkeypatch: pytest.MonkeyPatch):
    def wrong(*told):
        frozen = freezing.freeze(*told)
        right = frozen.call
        monkeypatch.setattr(frozen, "call", lambda name, arrays: {"y": right(name, arrays)["y"] + 1})
        return frozen

    monkeypatch.setattr(tensorflow_loading, "freeze", wrong)
    session = open_model("linear")
    assert not session.description.frozen
    assert any("output y of signature serving_default differs" in note for note in session.description.notes)
    assert alike(session.run(NAME, rows(x=x(5)))["y"], x(5) @ numbers(4, 3) + numbers(3, seed=8))


def test_variables_too_large_for_one_graph_stay_variables(open_model: Load, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(freezing, "MOST_BYTES", 10)
    assert not open_model("linear").description.frozen


def test_batch_normalisation_goes_into_weights(open_model: Load, monkeypatch: pytest.MonkeyPatch):
    folded = open_model("convolution")
    assert (folded.description.frozen, folded.description.folded, folded.description.notes) == (True, True, ())
    monkeypatch.setattr(tensorflow_loading, "freeze", refuse)
    kept = open_model("convolution")
    many = rows(x=numbers(9, 8, 8, 3))
    assert not alike(folded.run(NAME, many)["y"], 0)
    assert likeness(folded.run(NAME, many)["y"], kept.run(NAME, many)["y"]) >= Likeness.ROUNDING


def test_in_exact_mode_nothing_is_folded(open_model: Load):
    assert not open_model("convolution", exact=True).description.folded


def test_what_is_folded_wrongly_is_not_served(open_model: Load, monkeypatch: pytest.MonkeyPatch):
    def wrong(model, graph, settings, folded):
        frozen = freezing.freeze(model, graph, settings, folded)
        right = frozen.call
        if folded:
            monkeypatch.setattr(frozen, "call", lambda name, arrays: {"y": right(name, arrays)["y"] + 1})
        return frozen

    monkeypatch.setattr(tensorflow_loading, "freeze", wrong)
    session = open_model("convolution")
    assert (session.description.frozen, session.description.folded) == (True, False)


def test_a_model_of_constants_is_folded_as_well(model, tmp_path: Path):
    session = load(model("constant_convolution"), LoadSettings())
    assert session.description.folded
    session.close()


@pytest.mark.parametrize("name", ["convolution", "only_v2_convolution"])
def test_what_is_known_of_a_model_is_folded_again(model, name: str):
    first = load(model(name), LoadSettings())
    assert first.description.folded
    again = load(model(name), LoadSettings(), first.description)
    many = rows(x=numbers(9, 8, 8, 3))
    assert np.array_equal(first.run(NAME, many)["y"], again.run(NAME, many)["y"])
    first.close()
    again.close()


# Folders that are no models


def truncated(folder: Path) -> None:
    graph = folder / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:-40])


def random_bytes(folder: Path) -> None:
    (folder / "saved_model.pb").write_bytes(np.random.default_rng(1).bytes(1000))


def no_graphs(folder: Path) -> None:
    (folder / "saved_model.pb").write_bytes(b"")


def no_variables(folder: Path) -> None:
    shutil.rmtree(folder / "variables")


def truncated_variables(folder: Path) -> None:
    data = next((folder / "variables").glob("*.data*"))
    data.write_bytes(data.read_bytes()[:10])


def other_tags(folder: Path) -> None:
    def change(message) -> None:
        message.meta_graphs.add().CopyFrom(message.meta_graphs[0])
        for meta, tag in zip(message.meta_graphs, ("train", "eval"), strict=True):
            meta.meta_info_def.tags[:] = [tag]

    edit(folder, change)


def no_signatures(folder: Path) -> None:
    edit(folder, lambda message: message.meta_graphs[0].signature_def.clear())


def unknown_op(folder: Path) -> None:
    def change(message) -> None:
        for function in message.meta_graphs[0].graph_def.library.function:
            for node in function.node_def:
                if node.op == "MatMul":
                    node.op = "NoSuchOp"

    edit(folder, change)


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (truncated, "corrupt"),
        (random_bytes, "corrupt"),
        (no_graphs, "empty or corrupt"),
        (no_variables, "no loader opens it"),
        (truncated_variables, "no loader opens it"),
        (other_tags, "train; eval"),
        (no_signatures, "no signature"),
        (unknown_op, "NoSuchOp"),
    ],
)
def test_a_bad_model_folder_is_one_readable_line(model, tmp_path: Path, harm: Callable[[Path], None], why: str):
    folder = Path(shutil.copytree(model("linear"), tmp_path / "copy"))
    harm(folder)
    with pytest.raises(CannotLoad, match=why) as caught:
        load(folder, LoadSettings())
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_text_graph_is_read_too(model, tmp_path: Path):
    from google.protobuf import text_format

    tensorflow()
    from tensorflow.core.protobuf import saved_model_pb2

    folder = Path(shutil.copytree(model("linear"), tmp_path / "copy"))
    message = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    (folder / "saved_model.pb").unlink()
    (folder / "saved_model.pbtxt").write_text(text_format.MessageToString(message), encoding="utf-8")
    session = load(folder, LoadSettings())
    assert alike(session.run(NAME, rows(x=x(1)))["y"], x(1) @ numbers(4, 3) + numbers(3, seed=8))
    session.close()
    (folder / "saved_model.pbtxt").write_text("meta_graphs { what? }", encoding="utf-8")
    with pytest.raises(CannotLoad, match="corrupt"):
        load(folder, LoadSettings())


def test_every_size_that_a_batch_may_have_is_warm_before_it_is_used(model, monkeypatch):
    ran: list[int] = []
    run = GraphSession.run

    def watched(self: GraphSession, signature: str, rows: Rows) -> Any:
        ran.append(rows.count)
        return run(self, signature, rows)

    monkeypatch.setattr(GraphSession, "run", watched)
    load(model("linear"), LoadSettings(max_rows=12)).close()
    assert set(batch_sizes(12)) <= set(ran)


def test_each_run_of_a_loading_is_watched_and_none_afterwards(open_model, monkeypatch):
    watch, watched = RunWatch(lambda: 1.0), []
    for kind in (SessionGraph, FunctionGraph):
        real = kind.call

        def call(self, signature, arrays, real=real):
            watched.append(watch._since is not None)
            return real(self, signature, arrays)

        monkeypatch.setattr(kind, "call", call)
    with watch.here():
        session = open_model("dense")
    assert len(watched) > 3  # trials, tests, and every size once
    assert all(watched)
    watched.clear()
    taken = session.description.signatures[NAME].inputs
    session.run(NAME, Rows({spec.name: numbers(1, *spec.shape) for spec in taken}, 1))
    assert watched == [False]
