from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rowserve.graphs.errors import GraphError, GraphFailed, RowBroken
from rowserve.graphs.isolation import BatchResult, answer_batch
from rowserve.graphs.loading import LoadSettings, load
from rowserve.graphs.made_up_rows import kinds
from rowserve.graphs.rows import RowLayout, Rows
from rowserve.graphs.self_test import examine
from rowserve.graphs.signature import Signature, TensorSpec
from rowserve.graphs.tolerance import Likeness, likeness
from tests.model_recipes import RECIPES, numbers

NAME = "serving_default"
CHANGING = {
    "random_op": "changes from one run to the next",
    "counter": "changes from one run to the next",
    "centred": "changes with the rows beside it",
    "padded_words": "changes with the rows beside it",
    "numbered": "changes with its place in the batch",
}
MISFITS = {
    "mean_of_batch": "output mean does not follow the leading dimension: [4] for 3 rows",
    "no_row_input": "no input with a leading dimension",
    "static_input": "input temperature has no leading dimension",
}
REFUSED = {
    *("read_file", "read_file_plainly", "read_file_deep", "write_file", "write_file_at_start", "write_file_in_loader"),
    *("python_function", "restore_elsewhere", "table_elsewhere", "asset_outside"),
}


def unpacked(signature: Signature, result: BatchResult, at: int = 0) -> dict[str, Any]:
    """One answer of a batch, which must not be an error."""
    packed = result.packed[at]
    assert not isinstance(packed, GraphError), packed
    return RowLayout(signature.outputs).unpack(packed)


@pytest.mark.parametrize(("name", "why"), (CHANGING | MISFITS).items())
def test_what_keeps_rows_apart_is_found_and_said(model, name: str, why: str):
    session = load(model(name), LoadSettings())
    signature = session.description.signatures[NAME]
    assert why in signature.alone
    assert any("one request at a time, uncached" in note and why in note for note in session.description.notes)
    assert not any(spec.batched for spec in signature.outputs)
    session.close()


@pytest.mark.parametrize("name", sorted(set(RECIPES) - set(CHANGING) - set(MISFITS) - REFUSED))
def test_ordinary_models_share_batches_and_cache(model, name: str):
    session = load(model(name), LoadSettings())
    assert [signature.alone for signature in session.description.signatures.values()] == [""] * len(
        session.description.signatures
    )
    session.close()


def test_an_ordinary_dense_model_is_not_taken_for_one_whose_rows_hang_together(model):
    """Between batch sizes its rows differ by more than RTOL and ATOL allow (211 of 64,000 values when this was
    written).
    """
    session = load(model("wide_dense"), LoadSettings())
    about = session.description
    x = numbers(64, 2048)
    many = session.run(NAME, Rows({"x": x}, 64))["y"]
    alone = np.concatenate([session.run(NAME, Rows({"x": x[at : at + 1]}, 1))["y"] for at in range(64)])
    assert likeness(many, alone) >= Likeness.ROUNDING
    assert about.signatures[NAME].alone == ""
    assert likeness(many, alone) is Likeness.EQUAL or any("differs in its last bits" in note for note in about.notes)
    session.close()


def test_alone_requests_are_answered_whole_and_right(model):
    session = load(model("mean_of_batch"), LoadSettings())
    signature = session.description.signatures[NAME]
    assert {spec.name: spec.shape for spec in signature.outputs} == {"mean": (4,), "y": (None, 4)}
    x = numbers(5, 4)
    result = answer_batch(session, signature, Rows({"x": x}, 5))
    assert (len(result.packed), result.calls) == (1, 1)
    found = unpacked(signature, result)
    assert np.allclose(found["mean"], x.mean(axis=0), rtol=1e-5)
    assert np.array_equal(found["y"], x * 2)
    session.close()


def test_a_signature_without_rows_is_answered(model):
    session = load(model("no_row_input"), LoadSettings())
    signature = session.description.signatures[NAME]
    assert signature.row_inputs == ()
    static = {"start": np.array(3, np.int32), "stop": np.array(6, np.int32)}
    result = answer_batch(session, signature, Rows({}, 1, static))
    assert unpacked(signature, result)["numbers"].tolist() == [3, 4, 5]
    session.close()


@pytest.mark.parametrize("name", ["padded_words", "random_op", "counted"])
def test_the_card_may_overrule_what_the_self_test_found(model, name: str):
    session = load(model(name), LoadSettings(trust="rows"))
    assert session.description.signatures[NAME].alone == ""
    assert session.description.sizes == {}
    assert any("as its card says, although" in note for note in session.description.notes)
    session.close()


def test_but_not_what_cannot_be_cut_into_rows(model):
    session = load(model("mean_of_batch"), LoadSettings(trust="rows"))
    assert session.description.signatures[NAME].alone
    session.close()


# What no small model shows: graphs that are functions of arrays.

X = TensorSpec("x", "float32", (2,))
PLAIN = Signature(NAME, (X,), (TensorSpec("y", "float32", (2,)),))


class Graph:
    loader, frozen, folded = "v1", True, False

    def __init__(self, answer) -> None:
        self.answer = answer

    def call(self, signature, arrays):
        return {"y": self.answer(arrays["x"])}

    def settle(self, signature, arrays, *, whole=False) -> None:
        """There is nothing to choose."""

    def close(self) -> None:
        """Nothing to free."""


def verdict(answer, signature: Signature = PLAIN):
    return examine(Graph(answer), signature, list(kinds(signature))[:2])


def test_rounding_between_batch_sizes_is_noted_and_forgiven():
    def answer(x):
        return x * 100 + np.float32(1e-3 if len(x) == 1 else 0)

    found = verdict(answer)
    assert (found.changing, found.misfit) == ("", "")
    assert any("differs in its last bits" in note for note in found.notes)


def test_the_same_difference_among_rows_of_one_batch_is_not():
    def answer(x):
        return x * 100 + np.float32(1e-3) * x.sum()

    assert "changes with the rows beside it" in verdict(answer).changing


def test_what_hangs_on_the_number_of_rows_alone_is_found():
    found = verdict(lambda x: x / np.float32(len(x)))
    assert "changes with the number of rows beside it" in found.counting
    assert (found.changing, found.misfit) == ("", "")


def test_what_hangs_on_repeats_alone_is_found():
    def answer(x):
        return x + np.float32(len(np.unique(x, axis=0)) == 1 < len(x))

    assert "changes with the rows beside it" in verdict(answer).changing


def test_a_graph_that_takes_no_lone_row_hangs_on_the_number_of_rows():
    def answer(x):
        if len(x) == 1:
            raise RowBroken("one is too few")
        return x

    found = verdict(answer)
    assert "one is too few" in found.counting
    assert found.changing == ""


def test_company_at_one_size_weighs_more_than_the_number_of_rows():
    assert "changes with the rows beside it" in verdict(lambda x: x.mean(axis=0) + np.float32(len(x)) * x).changing


def test_so_does_a_place():
    found = verdict(lambda x: x * np.float32(len(x)) + np.arange(len(x), dtype=np.float32)[:, None])
    assert "changes with its place in the batch" in found.changing


def test_a_difference_that_only_one_kind_of_rows_shows_is_found():
    """Values from 0 to 1 saturate it; normal ones do not."""
    assert verdict(lambda x: np.minimum(x, 0) + np.minimum(x, 0).mean()).changing


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_output_that_always_has_so_many_rows_follows_nothing(count: int):
    assert "leading dimension" in verdict(lambda x: np.repeat(x[:1], count, axis=0)).misfit


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_a_fixed_batch_is_tested_at_its_size(batch: int):
    signature = Signature(NAME, (X,), PLAIN.outputs, batch=batch)

    def checked(answer):
        def run(x):
            if len(x) != batch:
                raise GraphFailed(f"{len(x)} rows where {batch} belong")
            return answer(x)

        return run

    assert verdict(checked(lambda x: x), signature).changing == ""
    assert "leading dimension" in verdict(checked(lambda x: x[0, :1]), signature).misfit or batch == 1
    changing = verdict(checked(lambda x: x - x.mean(axis=0)), signature).changing
    assert bool(changing) == (batch > 1)


def test_an_answer_that_does_not_keep_to_its_declared_shape_makes_the_shape_free():
    assert verdict(lambda x: np.tile(x, 2)).outputs[0].shape == (None,)
    assert verdict(lambda x: x[:, 0]).outputs[0].shape is None
    assert verdict(lambda x: x).outputs[0].shape == (2,)
