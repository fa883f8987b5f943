from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rowserve.cache import keys
from rowserve.cache.keys import Generation
from rowserve.graphs.rows import RowLayout
from rowserve.graphs.signature import Signature, TensorSpec

SECRET = bytes(range(32))
X = TensorSpec("x", "float32", (4,))
Y = TensorSpec("y", "float32", (2,))


def make(
    *,
    secret: bytes = SECRET,
    fingerprint: str = "f",
    name: str = "s",
    inputs: tuple[TensorSpec, ...] = (X,),
    outputs: tuple[TensorSpec, ...] = (Y,),
    static: Mapping[str, Any] | None = None,
    execution: Mapping[str, str] | None = None,
    tenant: bytes = b"",
) -> Generation:
    return keys.generation(
        secret,
        fingerprint=fingerprint,
        signature=Signature(name, inputs, outputs),
        static=static or {},
        execution=execution or {},
        tenant=tenant,
    )


def row_key(generation: Generation, row: bytes = b"row") -> bytes:
    (key,) = generation.row_keys([row])
    return key


CHANGES: dict[str, dict[str, Any]] = {
    "secret": {"secret": bytes(32)},
    "one weight": {"fingerprint": "g"},
    "signature": {"name": "t"},
    "input name": {"inputs": (TensorSpec("z", "float32", (4,)),)},
    "input dtype": {"inputs": (TensorSpec("x", "int32", (4,)),)},
    "input shape": {"inputs": (TensorSpec("x", "float32", (2, 2)),)},
    "input shape free": {"inputs": (TensorSpec("x", "float32", (None,)),)},
    "input rank unknown": {"inputs": (TensorSpec("x", "float32", None),)},
    "input unbatched": {"inputs": (TensorSpec("x", "float32", (4,), batched=False),)},
    "another input": {"inputs": (X, TensorSpec("z", "float32", (4,)))},
    "output name": {"outputs": (TensorSpec("q", "float32", (2,)),)},
    "output dtype": {"outputs": (TensorSpec("y", "float64", (2,)),)},
    "output set": {"outputs": (Y, TensorSpec("z", "float32", (2,)))},
    "a tensor changes sides": {"inputs": (X, Y), "outputs": ()},
    "static input": {"static": {"k": np.array(3)}},
    "static input renamed": {"static": {"j": np.array(3)}},
    "static input retyped": {"static": {"k": np.array(3, np.int8)}},
    "engine setting renamed": {"execution": {"precision": "tensorflow"}},
    "engine setting": {"execution": {"engine": "tensorflow"}},
    "tenant salt": {"tenant": b"t"},
}


def test_every_ingredient_changes_row_alias_and_name():
    generations = {"as it was": make(), **{what: make(**change) for what, change in CHANGES.items()}}
    for of in (
        lambda generation: generation.digest,
        row_key,
        lambda generation: generation.alias_key(b"file", b"decoder"),
    ):
        found = {what: of(generation) for what, generation in generations.items()}
        assert len(set(found.values())) == len(found)


def test_the_same_ingredients_give_the_same_keys_whatever_their_order():
    first = make(
        inputs=(X, TensorSpec("z", "int8", ())),
        static={"a": np.ones(2), "b": np.zeros(2)},
        execution={"p": "1", "q": "2"},
    )
    second = make(
        inputs=(TensorSpec("z", "int8", ()), X),
        static={"b": np.zeros(2), "a": np.ones(2)},
        execution={"q": "2", "p": "1"},
    )
    assert first == second
    assert row_key(first) == row_key(second)


def test_the_name_of_a_model_is_no_ingredient():
    # Nothing that `generation` takes could be one: a copy under another name shares the cache.
    assert row_key(make(fingerprint="f")) == row_key(make(fingerprint="f"))


@pytest.mark.parametrize(
    "other",
    [
        {"execution": {"ab": "c"}},
        {"execution": {"": "abc"}},
        {"execution": {"a": "b", "c": ""}},
        {"tenant": b"a", "fingerprint": "bcf"},
        {"fingerprint": "fs", "name": ""},
    ],
)
def test_fields_do_not_run_into_each_other(other):
    assert row_key(make(execution={"a": "bc"})) != row_key(make(**other))
    assert row_key(make()) != row_key(make(**other))


def test_rows_aliases_and_names_live_apart():
    generation = make()
    assert len({row_key(generation, b""), generation.alias_key(b"", b""), generation.digest}) == 3


def test_decoder_and_file_do_not_run_into_each_other():
    generation = make()
    assert generation.alias_key(b"bc", b"a") != generation.alias_key(b"c", b"ab")
    assert generation.alias_key(b"file", b"one") != generation.alias_key(b"file", b"two")
    assert generation.alias_key(memoryview(b"file"), b"one") == generation.alias_key(b"file", b"one")


def test_the_secret_shows_nowhere():
    generation = make()
    shown = repr(generation) + "".join(field.framed.hex() + field.digest for field in generation.fields)
    assert SECRET.hex() not in shown
    assert repr(SECRET)[2:-1] not in shown
    assert generation._row.hex() not in shown
    assert "_row" not in repr(generation)
    assert keys.secret_mark(SECRET) not in (generation.digest, SECRET[:16])


def test_a_secret_of_another_length_is_refused():
    with pytest.raises(ValueError, match="31 bytes"):
        make(secret=bytes(31))


def test_generations_that_differ_in_static_inputs_share_a_tag():
    assert make(static={"k": np.array(1)}).tag == make(static={"k": np.array(2)}).tag == make().tag
    assert make(fingerprint="g").tag != make().tag


@pytest.mark.parametrize(
    "twin",
    [
        np.array([[1, 2], [3, 4]], np.int32),
        np.array([1, 2, 3, 4], np.uint32),
        np.array([1, 2, 3, 4], np.int64),
        np.array([1, 2, 3], np.int32),
        np.array([b"\1\0\0\0"], object),
    ],
)
def test_static_twins_differ(twin):
    assert make(static={"k": np.array([1, 2, 3, 4], np.int32)}) != make(static={"k": twin})


def test_static_strings_are_framed_one_by_one():
    first, second = np.array([b"ab", b"c"], object), np.array([b"a", b"bc"], object)
    assert make(static={"k": first}) != make(static={"k": second})


FREE = (TensorSpec("a", "string", (None,)), TensorSpec("b", "float32", None))
DTYPES = ["float32", "int32", "uint8", "float64"]
ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(np.dtype(dtype), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
)


def array_key(array: np.ndarray) -> bytes:
    """The key of a row that is this array, served by a signature of its very dtype and shape."""
    spec = TensorSpec("x", array.dtype.name, array.shape)
    (packed,) = RowLayout([spec]).pack({"x": array[None]}, 1)
    return row_key(make(inputs=(spec,)), bytes(packed))


@given(ARRAYS, ARRAYS)
def test_two_arrays_share_a_key_only_if_they_are_the_same(one, other):
    same = one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    assert (array_key(one) == array_key(other)) == same


@given(ARRAYS)
def test_reshape_and_retype_twins_differ(array):
    twins = [array[None], array.reshape(-1, 1), array.reshape(-1).view(np.uint8)]
    seen = {(array.dtype.name, array.shape): array_key(array)}
    seen.update({(twin.dtype.name, twin.shape): array_key(twin) for twin in twins})
    assert len(set(seen.values())) == len(seen)


WORDS = st.lists(st.binary(max_size=3), max_size=4)


@given(WORDS, WORDS)
def test_strings_share_a_key_only_if_they_are_the_same(one, other):
    layout = RowLayout(FREE)
    packed = []
    for words in (one, other):
        row = np.empty((1, len(words)), object)
        row[0] = words
        packed += layout.pack({"a": row, "b": np.zeros((1, 0), np.float32)}, 1)
    first, second = make(inputs=FREE).row_keys(packed)
    assert (first == second) == (one == other)


@given(st.binary(max_size=40), st.integers(0, 40))
def test_a_value_that_moves_to_the_next_input_changes_the_key(content, cut):
    cut = min(cut, len(content))
    arrays = [np.frombuffer(part, np.uint8) for part in (content[:cut], content[cut:])]
    specs = tuple(TensorSpec(n, "uint8", array.shape) for n, array in zip("ab", arrays, strict=True))
    whole = (TensorSpec("a", "uint8", (len(content),)), TensorSpec("b", "uint8", (0,)))
    assert (row_key(make(inputs=specs), content) == row_key(make(inputs=whole), content)) == (cut == len(content))


@given(st.lists(st.binary(max_size=8), max_size=4), st.lists(st.binary(max_size=8), max_size=4))
def test_frames_are_as_different_as_their_fields(one, other):
    assert (keys.frame(*one) == keys.frame(*other)) == (one == other)


def test_nan_and_minus_zero_stay_as_they_are():
    values = np.array([0.0, -0.0, np.nan, -np.nan], np.float32)
    found = {array_key(values[i : i + 1]) for i in range(4)}
    assert len(found) == 4
