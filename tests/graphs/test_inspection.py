from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from rowserve.graphs import opening
from rowserve.graphs.errors import CannotLoad, ForbiddenOp
from rowserve.graphs.forbidden_ops import FORBIDDEN, reaches_outside
from rowserve.graphs.inspection import inspect
from rowserve.graphs.load_settings import LoadSettings
from rowserve.graphs.loading import load
from rowserve.graphs.saved_model import read_saved_model
from tests.model_recipes import RECIPES, edit

REFUSED = {
    "read_file": "ReadFile",
    "read_file_plainly": "ReadFile",
    "read_file_deep": "ReadFile",
    "write_file": "WriteFile",
    "write_file_at_start": "WriteFile",
    "write_file_in_loader": "WriteFile",
    "python_function": "PyFunc",
    "restore_elsewhere": "RestoreV2",
    "table_elsewhere": "InitializeTableFromTextFileV2",
}
OUTSIDE = {*REFUSED, "asset_outside"}


@pytest.fixture
def nothing_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any loader that is so much as called fails the test."""

    def called(*_: object) -> None:
        pytest.fail("a loader was called before the graph was refused")

    for name in opening.OPENERS:
        monkeypatch.setitem(opening.OPENERS, name, called)


@pytest.mark.usefixtures("nothing_loads")
@pytest.mark.parametrize(("name", "op"), REFUSED.items())
def test_a_graph_that_reaches_outside_is_refused_by_name_before_anything_runs(model, name: str, op: str):
    folder = model(name)
    with pytest.raises(ForbiddenOp, match=rf"refused before anything of it ran: .* {op} ") as caught:
        load(folder, LoadSettings())
    assert caught.value.ops == (op,)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not folder.with_name(folder.name + "-written.txt").exists()


@pytest.mark.parametrize("name", sorted(set(RECIPES) - OUTSIDE))
def test_ordinary_models_pass(model, name: str):
    inspect(read_saved_model(model(name), LoadSettings()))


@pytest.mark.parametrize(("name", "op"), REFUSED.items())
def test_an_op_may_be_allowed_by_name(model, name: str, op: str):
    inspect(read_saved_model(model(name), LoadSettings()), [op])
    with pytest.raises(ForbiddenOp):
        inspect(read_saved_model(model(name), LoadSettings()), ["Abort"])


def test_an_allowed_op_runs(model):
    found = load(model("read_file_plainly"), LoadSettings(allowed_ops=("ReadFile",)))
    assert found.description.signatures["serving_default"].inputs[0].name == "x"
    found.close()


@pytest.mark.usefixtures("nothing_loads")
def test_an_asset_outside_the_folder_is_refused(model):
    with pytest.raises(CannotLoad, match=re.escape("'../../etc/passwd' lies outside")):
        load(model("asset_outside"), LoadSettings())


@pytest.mark.usefixtures("nothing_loads")
def test_so_is_one_that_a_link_leads_outside(model, tmp_path: Path):
    folder = Path(shutil.copytree(model("vocabulary_file"), tmp_path / "copy"))
    (asset,) = (folder / "assets").iterdir()
    asset.unlink()
    asset.symlink_to("/etc/passwd")
    with pytest.raises(CannotLoad, match="lies outside"):
        load(folder, LoadSettings())


def test_a_link_that_stays_inside_is_fine(model, tmp_path: Path):
    folder = Path(shutil.copytree(model("vocabulary_file"), tmp_path / "copy"))
    (folder / "assets").rename(folder / "data")
    (folder / "assets").symlink_to("data")
    inspect(read_saved_model(folder, LoadSettings()))


def test_what_only_the_second_loader_would_run_is_seen(model, tmp_path: Path):
    """The resource's initializer is taken out of the session's init op, so that only the object graph leads to it."""
    folder = Path(shutil.copytree(model("write_file_in_loader"), tmp_path / "copy"))

    def change(message) -> None:
        meta = message.meta_graphs[0]
        (node,) = [n for n in meta.graph_def.node if "initializer" in n.attr["f"].func.name]
        for other in meta.graph_def.node:
            kept = [name for name in other.input if name != f"^{node.name}"]
            del other.input[:]
            other.input.extend(kept)

    edit(folder, change)
    with pytest.raises(ForbiddenOp, match="WriteFile"):
        inspect(read_saved_model(folder, LoadSettings()))


def test_what_nothing_served_reaches_does_not_matter(model, tmp_path: Path):
    """Training graphs read files in parts that no answer needs."""
    folder = Path(shutil.copytree(model("linear"), tmp_path / "copy"))

    def change(message) -> None:
        graph = message.meta_graphs[0].graph_def
        graph.node.add(name="somewhere", op="ReadFile", input=["serving_default_x"])

    inspect(read_saved_model(edit(folder, change), LoadSettings()))


@pytest.mark.parametrize("kind", ["loop", "branch", "dataset", "direct"])
def test_functions_are_followed_however_they_are_named(model, tmp_path: Path, kind: str):
    """The forbidden op stands in a function that a node of the signature's function names in its own way."""
    folder = Path(shutil.copytree(model("linear"), tmp_path / "copy"))

    def change(message) -> None:
        library = message.meta_graphs[0].graph_def.library
        hidden = library.function.add()
        hidden.signature.name = "hidden"
        hidden.node_def.add(name="bad", op="WriteFile", input=["a:output:0", "b:output:0"])
        caller = next(each for each in library.function if "signature_wrapper" in each.signature.name).node_def.add()
        caller.name = "caller"
        if kind == "loop":
            caller.op = "StatelessWhile"
            caller.attr["body"].func.name = "hidden"
        elif kind == "branch":
            caller.op = "Case"
            caller.input.append("which")
            caller.attr["branches"].list.func.add(name="hidden")
        elif kind == "dataset":
            caller.op = "MapDataset"
            caller.attr["f"].func.name = "hidden"
        else:
            caller.op = "hidden"

    with pytest.raises(ForbiddenOp, match="WriteFile in node bad of function hidden"):
        inspect(read_saved_model(edit(folder, change), LoadSettings()))


def test_functions_that_call_each_other_end(model, tmp_path: Path):
    folder = Path(shutil.copytree(model("linear"), tmp_path / "copy"))

    def change(message) -> None:
        library = message.meta_graphs[0].graph_def.library
        ours = [each for each in library.function if "traced" not in each.signature.name]
        for each in ours:
            for other in ours:
                node = each.node_def.add(name=f"to_{other.signature.name}", op="PartitionedCall")
                node.attr["f"].func.name = other.signature.name

    inspect(read_saved_model(edit(folder, change), LoadSettings()))


def test_functions_nested_beyond_all_sense_are_an_error_and_not_a_crash(model, tmp_path: Path):
    folder = Path(shutil.copytree(model("linear"), tmp_path / "copy"))

    def change(message) -> None:
        library = message.meta_graphs[0].graph_def.library
        last = next(each for each in library.function if "signature_wrapper" in each.signature.name)
        for number in range(3000):
            last.node_def.add(name="deeper", op=f"function_{number}")
            last = library.function.add()
            last.signature.name = f"function_{number}"

    with pytest.raises(CannotLoad, match="nested too deeply"):
        inspect(read_saved_model(edit(folder, change), LoadSettings()))


def test_the_table_s_path_must_be_the_asset_itself(model, tmp_path: Path):
    """The asset's path is put into a variable; when anything else is put there too, it vouches for nothing."""
    folder = Path(shutil.copytree(model("vocabulary_file"), tmp_path / "copy"))

    def change(message) -> None:
        graph = message.meta_graphs[0].graph_def
        (assign,) = [node for node in graph.node if node.op == "AssignVariableOp"]
        other = graph.node.add(name="other", op="Const")
        again = graph.node.add(name="again", op="AssignVariableOp", input=[assign.input[0], other.name])
        again.attr["dtype"].CopyFrom(assign.attr["dtype"])

    with pytest.raises(ForbiddenOp, match="InitializeTableFromTextFileV2"):
        inspect(read_saved_model(edit(folder, change), LoadSettings()))


def test_every_listed_op_is_one_that_tensorflow_has():
    """A misspelt name would forbid nothing."""
    from rowserve.graphs.engine import tensorflow

    tensorflow()
    from tensorflow.core.framework import op_def_pb2
    from tensorflow.python.client import pywrap_tf_session

    there = op_def_pb2.OpList()
    there.ParseFromString(pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList()))
    # A plug-in brings this one.
    assert FORBIDDEN - {op.name for op in there.op} <= {"BigQueryReader"}


def test_ops_that_reach_outside_by_an_attribute():
    from rowserve.graphs.engine import tensorflow

    node_def = tensorflow().compat.v1.NodeDef

    def node(op: str, **attributes: str):
        made = node_def(op=op)
        for name, value in attributes.items():
            made.attr[name].s = value.encode()
        return made

    assert reaches_outside(node("PrintV2", output_stream="file:///x"))
    assert not reaches_outside(node("PrintV2", output_stream="stderr"))
    assert reaches_outside(node("DecodeProtoV2", descriptor_source="/etc/passwd"))
    assert not reaches_outside(node("DecodeProtoV2", descriptor_source="local://"))
    assert reaches_outside(node("FixedUnigramCandidateSampler", vocab_file="/etc/passwd"))
    assert not reaches_outside(node("FixedUnigramCandidateSampler"))
    debug = node("DebugIdentity")
    assert not reaches_outside(debug)
    debug.attr["debug_urls"].list.s.append(b"grpc://somewhere")
    assert reaches_outside(debug)
