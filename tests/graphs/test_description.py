from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowserve.graphs import description, execution
from rowserve.graphs.description import ModelDescription, description_name
from rowserve.graphs.load_settings import LoadSettings
from rowserve.graphs.signature import Signature, TensorSpec

SPEC = TensorSpec("x", "float32", (None, 3))
ABOUT = ModelDescription(
    "ab" * 32,
    {
        "serving_default": Signature("serving_default", (SPEC,), (TensorSpec("y", "string", None),), "predict", 8),
        "other": Signature("other", (), (TensorSpec("z", "int64", (), batched=False),), alone="no rows in it"),
    },
    "v2 frozen",
    True,
    {"serving_default": (2, 4, 8)},
    {"engine": "tensorflow", "precision": "as saved"},
    ("a note",),
    op_threads=1,
)
SETTINGS = LoadSettings()


def test_a_description_comes_back_as_it_was():
    assert ModelDescription.from_json(ABOUT.to_json()) == ABOUT


@pytest.mark.parametrize("document", [b"", b"{}", b"[]", b"null", b"{", b"\xff", ABOUT.to_json()[:-20]])
def test_what_is_no_description_is_refused(document: bytes):
    with pytest.raises(ValueError):
        ModelDescription.from_json(document)


@pytest.mark.parametrize(
    "change",
    [
        {"static_inputs": ("x",)},
        {"outputs": ("y",)},
        {"allowed_ops": ("ReadFile",)},
        {"max_rows": 64},
        {"exact": True},
        {"trust": "rows"},
        {"intra_op_threads": 1},
        {"inter_op_threads": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_settings_do_not_recall_it(change: dict):
    assert description_name("ab", replace(SETTINGS, **change)) != description_name("ab", SETTINGS)


def test_the_name_hangs_on_model_code_and_tensorflow(monkeypatch: pytest.MonkeyPatch):
    name = description_name("ab", SETTINGS)
    assert name == description_name("ab", LoadSettings())
    assert len(name) == 32
    assert name != description_name("ac", SETTINGS)
    with monkeypatch.context() as patch:
        patch.setattr(description, "CODE_VERSION", 0)
        assert name != description_name("ab", SETTINGS)
    with monkeypatch.context() as patch:
        patch.setattr(description, "engine_version", lambda engine: "1.0")
        assert name != description_name("ab", SETTINGS)


def test_in_exact_mode_it_hangs_on_what_makes_the_last_bits(monkeypatch: pytest.MonkeyPatch):
    exact = LoadSettings(exact=True, intra_op_threads=2)

    def facts():
        return description_name("ab", exact), execution.execution(
            exact=True, op_threads=exact.op_threads, loader="v1", frozen=True, sizes={"s": (1, 2)}
        )

    seen = [facts()]
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    seen.append(facts())
    monkeypatch.setattr(execution, "cpu", lambda: "another processor")
    seen.append(facts())
    monkeypatch.setattr(execution, "engine_version", lambda engine: "1.0")
    seen.append(facts())
    names, settings = zip(*seen, strict=True)
    assert len(set(names)) == 4
    assert len({tuple(sorted(each.items())) for each in settings}) == 4


def test_exact_execution_names_sizes_threads_and_freezing():
    def of(**changed):
        facts: dict[str, Any] = {"exact": True, "op_threads": 2, "loader": "v1", "frozen": True}
        facts |= {"sizes": {"s": (1, 2)}} | changed
        return execution.execution(**facts)

    base = of()
    for change in (
        {"op_threads": 3},
        {"frozen": False},
        {"sizes": {"s": (2,)}},
        {"loader": "v2 frozen"},
        {"exact": False},
    ):
        assert of(**change) != base
    assert of(exact=False) == {"engine": "tensorflow", "precision": "as saved"}


FAST = {"engine": "tensorflow", "precision": "as saved"}


def test_where_the_number_of_rows_matters_the_key_says_what_the_answers_agree_with():
    def keyed(sizes, execution=FAST, name="s"):
        return replace(ABOUT, sizes=sizes, execution=execution).execution_of(name)

    assert keyed({}) == keyed({"other": (4, 8)}) == FAST
    assert keyed({"s": (4, 8)}) == keyed({"s": (4, 8, 16, 32)})  # they agree at four
    seen = [keyed({}), keyed({"s": (4, 8)}), keyed({"s": (8,)}), keyed({"s": (16,)})]
    assert len({tuple(sorted(each.items())) for each in seen}) == 4


def test_exact_mode_names_its_sizes_once():
    settled = execution.execution(exact=True, op_threads=2, loader="v1", frozen=True, sizes={"s": (1, 2)})
    about = replace(ABOUT, sizes={"s": (1, 2), "counted": (16,)}, execution=settled)
    assert about.execution_of("s") == settled
    assert about.execution_of("counted") == {**settled, "rows at once": "as 16"}


@given(st.lists(st.text(max_size=4), max_size=4), st.lists(st.text(max_size=4), max_size=4))
def test_settings_are_one_form_for_one_meaning(one: list[str], other: list[str]):
    a, b = (LoadSettings(allowed_ops=tuple(each)).to_bytes() for each in (one, other))
    assert (a == b) == (sorted(one) == sorted(other))


def test_keys_need_no_tensorflow():
    """All that a process of nothing but hits does with graphs/, in a process of its own."""
    code = (
        "import sys; from pathlib import Path\n"
        "from rowserve.graphs.description import ModelDescription, description_name\n"
        "from rowserve.graphs.load_settings import LoadSettings\n"
        "from rowserve.graphs import fingerprint, isolation, loading, session, thread\n"
        f"about = ModelDescription.from_json({ABOUT.to_json()!r})\n"
        "description_name(about.fingerprint, LoadSettings(exact=True))\n"
        "heavy = {'tensorflow', 'keras', 'openvino', 'twisted', 'lmdb'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
