"""Makers of small SavedModels, one for each thing that real models do.

`RECIPES[name](folder)` writes one and returns the folder.

Each takes a fraction of a second once TensorFlow is there. Tests get them through the `model` fixture, which
makes each once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from rowserve.graphs.engine import tensorflow

Recipe = Callable[[Path], Path]
RECIPES: dict[str, Recipe] = {}


def recipe(make: Recipe) -> Recipe:
    """Put a maker into RECIPES under its name."""
    RECIPES[make.__name__] = make
    return make


def save(folder: Path, call: Callable[..., Any], specs: Mapping[str, tuple[Any, Any]], **owned: Any) -> Path:
    """Save `call` as serving_default; `specs` gives (shape, dtype) by input, `owned` what the model keeps (variables,
    tables).
    """
    tf = tensorflow()
    module = tf.Module()
    for name, value in owned.items():
        setattr(module, name, value)
    names = list(specs)

    # Signature functions are called by keyword, so the parameters must bear the inputs' names.
    traced = tf.function(lambda **inputs: call(*[inputs[name] for name in names]), autograph=False)
    concrete = traced.get_concrete_function(
        **{name: tf.TensorSpec(shape, dtype, name=name) for name, (shape, dtype) in specs.items()}
    )
    module.serve = traced
    tf.saved_model.save(module, str(folder), signatures={"serving_default": concrete})
    return folder


def numbers(*shape: int, seed: int = 7) -> Any:
    """A float32 array that is the same every time."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def edit(folder: Path, change: Callable[[Any], None]) -> Path:
    """Change the SavedModel message of a saved model by hand."""
    tensorflow()
    from tensorflow.core.protobuf import saved_model_pb2

    message = saved_model_pb2.SavedModel()
    file = folder / "saved_model.pb"
    message.ParseFromString(file.read_bytes())
    change(message)
    file.write_bytes(message.SerializeToString())
    return folder


# What ordinary models do.


@recipe
def linear(folder: Path) -> Path:
    """x [N,4] -> y [N,3], x @ w + b."""
    tf = tensorflow()
    w, b = tf.Variable(numbers(4, 3)), tf.Variable(numbers(3, seed=8))
    return save(folder, lambda x: {"y": x @ w + b}, {"x": ([None, 4], tf.float32)}, w=w, b=b)


@recipe
def half_plus_two(folder: Path) -> Path:
    """x [N,1] -> y [N,1], x / 2 + 2: TensorFlow Serving's first example."""
    tf = tensorflow()
    return save(folder, lambda x: {"y": x / 2 + 2}, {"x": ([None, 1], tf.float32)})


@recipe
def two_outputs(folder: Path) -> Path:
    """x [N,4] -> scores [N,3] float32, best [N] int64."""
    tf = tensorflow()
    w = tf.Variable(numbers(4, 3))

    def call(x: Any) -> dict[str, Any]:
        scores = tf.nn.softmax(x @ w)
        return {"scores": scores, "best": tf.argmax(scores, axis=1)}

    return save(folder, call, {"x": ([None, 4], tf.float32)}, w=w)


@recipe
def two_signatures(folder: Path) -> Path:
    """serving_default: x [N,4] -> y [N,3]; `half`: x -> y / 2; `resource`: one that has no row form."""
    tf = tensorflow()
    module = tf.Module()
    module.w = tf.Variable(numbers(4, 3))
    spec = [tf.TensorSpec([None, 4], tf.float32, name="x")]
    whole = tf.function(lambda x: {"y": x @ module.w}, input_signature=spec)
    half = tf.function(lambda x: {"y": x @ module.w / 2}, input_signature=spec)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": whole, "half": half})

    def add(message: Any) -> None:
        signatures = message.meta_graphs[0].signature_def
        signatures["resource"].CopyFrom(signatures["half"])
        signatures["resource"].inputs["x"].dtype = tf.resource.as_datatype_enum

    return edit(folder, add)


@recipe
def no_default(folder: Path) -> Path:
    """`embed`: x [N,4] -> e [N,3]; `score`: x -> s [N]. Neither is serving_default."""
    tf = tensorflow()
    module = tf.Module()
    module.w = tf.Variable(numbers(4, 3))
    spec = [tf.TensorSpec([None, 4], tf.float32, name="x")]
    embed = tf.function(lambda x: {"e": x @ module.w}, input_signature=spec)
    score = tf.function(lambda x: {"s": tf.reduce_sum(x, 1)}, input_signature=spec)
    tf.saved_model.save(module, str(folder), signatures={"embed": embed, "score": score})
    return folder


@recipe
def several_inputs(folder: Path) -> Path:
    """a [N,3] float32, b [N] int64, c [N] string -> total [N] float32, said [N] string."""
    tf = tensorflow()

    def call(a: Any, b: Any, c: Any) -> dict[str, Any]:
        total = tf.reduce_sum(a, axis=1) + tf.cast(b, tf.float32)
        return {"total": total, "said": tf.strings.join([c, tf.strings.as_string(b)], ":")}

    return save(folder, call, {"a": ([None, 3], tf.float32), "b": ([None], tf.int64), "c": ([None], tf.string)})


@recipe
def vocabulary(folder: Path) -> Path:
    """word [N] string -> id [N] int64, upper [N] string; the table is filled from the graph."""
    tf = tensorflow()
    words = tf.constant(["cat", "dog", "bird"])
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(words, tf.constant([10, 20, 30], tf.int64)), default_value=-1
    )
    return save(
        folder,
        lambda word: {"id": table.lookup(word), "upper": tf.strings.upper(word)},
        {"word": ([None], tf.string)},
        table=table,
    )


@recipe
def vocabulary_file(folder: Path) -> Path:
    """word [N] string -> id [N] int64, by line number of a file in assets/; and a weight, so that there is something to
    freeze.
    """
    tf = tensorflow()
    source = folder.with_name(folder.name + "-words.txt")
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text("ant\nbee\ncow\n", encoding="utf-8")
    table = tf.lookup.StaticHashTable(
        tf.lookup.TextFileInitializer(
            str(source), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
        ),
        default_value=-1,
    )
    weight = tf.Variable(numbers(4))

    def call(word: Any) -> dict[str, Any]:
        number = table.lookup(word)
        return {"id": number, "weight": tf.gather(weight, number + 1)}

    save(folder, call, {"word": ([None], tf.string)}, table=table, weight=weight)
    source.unlink()  # only the copy in the model's assets is left
    return folder


@recipe
def static_input(folder: Path) -> Path:
    """x [N,3], temperature [] -> p [N,3], softmax(x / temperature)."""
    tf = tensorflow()
    return save(
        folder,
        lambda x, temperature: {"p": tf.nn.softmax(x / temperature)},
        {"x": ([None, 3], tf.float32), "temperature": ([], tf.float32)},
    )


@recipe
def fixed_one(folder: Path) -> Path:
    """x [1,4] -> y [1,3]."""
    tf = tensorflow()
    w = tf.Variable(numbers(4, 3))
    return save(folder, lambda x: {"y": x @ w}, {"x": ([1, 4], tf.float32)}, w=w)


@recipe
def fixed_eight(folder: Path) -> Path:
    """x [8,4] -> y [8,3]."""
    tf = tensorflow()
    w = tf.Variable(numbers(4, 3))
    return save(folder, lambda x: {"y": x @ w}, {"x": ([8, 4], tf.float32)}, w=w)


@recipe
def free_rows(folder: Path) -> Path:
    """x [N,None] -> total [N], twice [N,None]."""
    tf = tensorflow()
    return save(
        folder,
        lambda x: {"total": tf.reduce_sum(x, axis=1), "twice": x * 2},
        {"x": ([None, None], tf.float32)},
    )


@recipe
def half_precision(folder: Path) -> Path:
    """x [N,4] bfloat16 -> y [N,4] bfloat16."""
    tf = tensorflow()
    return save(folder, lambda x: {"y": x * 2}, {"x": ([None, 4], tf.bfloat16)})


@recipe
def embedding(folder: Path) -> Path:
    """ids [N,5] int32, each below 3 -> mean [N,2]: a lookup that refuses what is too large."""
    tf = tensorflow()
    table = tf.Variable(numbers(3, 2))

    def call(ids: Any) -> dict[str, Any]:
        return {"mean": tf.reduce_mean(tf.gather(table, ids), axis=1)}

    return save(folder, call, {"ids": ([None, 5], tf.int32)}, table=table)


@recipe
def fussy(folder: Path) -> Path:
    """x [N,4] -> y [N,3]; a row with a value above 1000 raises InvalidArgument."""
    tf = tensorflow()
    w = tf.Variable(numbers(4, 3))

    def call(x: Any) -> dict[str, Any]:
        with tf.control_dependencies([tf.debugging.assert_less_equal(x, 1000.0, message="a value above 1000")]):
            return {"y": tf.identity(x) @ w}

    return save(folder, call, {"x": ([None, 4], tf.float32)}, w=w)


@recipe
def parse_numbers(folder: Path) -> Path:
    """text [N] string -> value [N]; text that is no number raises InvalidArgument."""
    tf = tensorflow()
    return save(folder, lambda text: {"value": tf.strings.to_number(text)}, {"text": ([None], tf.string)})


@recipe
def dense(folder: Path) -> Path:
    """x [N,512] -> y [N,16] through 256 and 256: a row alone has other last bits than in a batch."""
    tf = tensorflow()
    sizes = [512, 256, 256, 16]
    weights = [tf.Variable(numbers(a, b, seed=a + b) / np.float32(a**0.5)) for a, b in pairwise(sizes)]

    def call(x: Any) -> dict[str, Any]:
        for weight in weights[:-1]:
            x = tf.nn.relu(x @ weight)
        return {"y": x @ weights[-1]}

    return save(folder, call, {"x": ([None, 512], tf.float32)}, weights=weights)


def convolve(x: Any, kernel: Any, scale: Any) -> Any:
    """A convolution, normalised with constants and put through an activation; the mean over each channel."""
    tf = tensorflow()
    y = tf.nn.conv2d(tf.pad(x, [[0, 0], [0, 1], [0, 1], [0, 0]]), kernel, 2, "VALID")
    y = tf.nn.depthwise_conv2d(y, kernel, [1, 1, 1, 1], "SAME")
    factor = tf.math.rsqrt(scale * scale + 1e-3)
    return tf.reduce_mean(tf.nn.relu6(y * factor + (0.5 - scale * factor)), axis=[1, 2])


@recipe
def convolution(folder: Path) -> Path:
    """x [N,8,8,3] -> y [N,9]."""
    tf = tensorflow()
    kernel, scale = tf.Variable(numbers(3, 3, 3, 3)), tf.Variable(numbers(9))
    call = lambda x: {"y": convolve(x, kernel, scale)}  # noqa: E731
    return save(folder, call, {"x": ([None, 8, 8, 3], tf.float32)}, kernel=kernel, scale=scale)


@recipe
def constant_convolution(folder: Path) -> Path:
    """The same without variables."""
    tf = tensorflow()
    kernel, scale = tf.constant(numbers(3, 3, 3, 3)), tf.constant(numbers(9))
    return save(folder, lambda x: {"y": convolve(x, kernel, scale)}, {"x": ([None, 8, 8, 3], tf.float32)})


@recipe
def passed_on(folder: Path) -> Path:
    """A TensorFlow 1 graph whose output is its input: x [N,2] -> same [N,2], twice [N,2], again [N,2] (the tensor of
    twice).
    """
    tf = tensorflow()
    v1 = tf.compat.v1
    with v1.Session(graph=tf.Graph()) as session:
        x = v1.placeholder(tf.float32, [None, 2], name="x")
        twice = x * 2
        v1.saved_model.simple_save(session, str(folder), {"x": x}, {"same": x, "twice": twice, "again": twice})
    return folder


@recipe
def ref_variables(folder: Path) -> Path:
    """A TensorFlow 1 graph with the variables of its day and a table filled by a legacy init op: x [N,4], word [N] ->
    y, id.
    """
    tf = tensorflow()
    v1 = tf.compat.v1
    with v1.Session(graph=tf.Graph()) as session:
        x = v1.placeholder(tf.float32, [None, 4], name="x")
        word = v1.placeholder(tf.string, [None], name="word")
        w = v1.get_variable("w", initializer=numbers(4, 3), use_resource=False)
        table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(tf.constant(["a", "b"]), tf.constant([1, 2], tf.int64)), -1
        )
        y, number = tf.matmul(x, w), table.lookup(word)
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        v1.saved_model.simple_save(
            session, str(folder), {"x": x, "word": word}, {"y": y, "id": number}, legacy_init_op=v1.tables_initializer()
        )
    return folder


@recipe
def examples(folder: Path) -> Path:
    """examples [N] string -> score [N]: serialised tf.train.Example with x [3] float32, n int64 and words of any
    number.
    """
    tf = tensorflow()
    w = tf.Variable(numbers(3, 1))
    features = {
        "x": tf.io.FixedLenFeature([3], tf.float32),
        "n": tf.io.FixedLenFeature([], tf.int64),
        "words": tf.io.VarLenFeature(tf.string),
    }

    def call(text: Any) -> dict[str, Any]:
        parsed = tf.io.parse_example(text, features)
        count = tf.math.bincount(tf.cast(parsed["words"].indices[:, 0], tf.int32), minlength=tf.size(text))
        return {"score": (parsed["x"] @ w)[:, 0] + tf.cast(parsed["n"], tf.float32) + tf.cast(count, tf.float32)}

    return save(folder, call, {"examples": ([None], tf.string)}, w=w)


@recipe
def judged_examples(folder: Path) -> Path:
    """inputs [N] string, serialised tf.train.Examples with n float32 and word string -> `classify`: classes and scores
    [N,2]; `scores`: scores [N,2]; `regress`: outputs [N,1].
    """
    tf = tensorflow()
    module = tf.Module()
    spec = [tf.TensorSpec([None], tf.string, name="inputs")]
    features = {"n": tf.io.FixedLenFeature([], tf.float32), "word": tf.io.FixedLenFeature([], tf.string, "no")}

    def scores(inputs: Any) -> dict[str, Any]:
        n = tf.io.parse_example(inputs, features)["n"]
        return {"scores": tf.stack([-n, n], axis=1)}

    def classify(inputs: Any) -> dict[str, Any]:
        word = tf.io.parse_example(inputs, features)["word"]
        return {**scores(inputs), "classes": tf.stack([tf.strings.join(["not ", word]), word], axis=1)}

    def regress(inputs: Any) -> dict[str, Any]:
        return {"outputs": scores(inputs)["scores"][:, 1:] * 2}

    signatures = {}
    for name, call in (("classify", classify), ("scores", scores), ("regress", regress)):
        signatures[name] = tf.function(call, input_signature=spec)
        setattr(module, name, signatures[name])
    tf.saved_model.save(module, str(folder), signatures=signatures)
    return folder


@recipe
def old_examples(folder: Path) -> Path:
    """A TensorFlow 1 graph that parses examples: examples [N] string -> twice [N]."""
    tf = tensorflow()
    v1 = tf.compat.v1
    with v1.Session(graph=tf.Graph()) as session:
        text = v1.placeholder(tf.string, [None], name="text")
        keys, types = [tf.constant("x")], [tf.constant([], tf.float32)]
        (x,) = tf.raw_ops.ParseExample(
            serialized=text,
            names=tf.constant([], tf.string),
            sparse_keys=[],
            dense_keys=keys,
            dense_defaults=types,
            sparse_types=[],
            dense_shapes=[[]],
        ).dense_values
        v1.saved_model.simple_save(session, str(folder), {"examples": text}, {"twice": x * 2})
    return folder


@recipe
def wide_dense(folder: Path) -> Path:
    """x [N,2048] -> y [N,1000] through 1024: alone and in a batch a row differs by more than the places of a float."""
    tf = tensorflow()
    first, last = (tf.Variable(numbers(a, b, seed=a) / np.float32(a**0.5)) for a, b in ((2048, 1024), (1024, 1000)))
    return save(
        folder, lambda x: {"y": tf.nn.relu(x @ first) @ last}, {"x": ([None, 2048], tf.float32)}, first=first, last=last
    )


# One model of each dtype, for the protocols that carry them.

DTYPES = (
    "bool uint8 uint16 uint32 uint64 int8 int16 int32 int64 float16 bfloat16 float32 float64 string".split()  # noqa: SIM905
)


def identity(folder: Path, dtype: str) -> Path:
    """x [N,None] -> y [N,None], the same."""
    tf = tensorflow()
    return save(folder, lambda x: {"y": tf.identity(x)}, {"x": ([None, None], tf.as_dtype(dtype))})


RECIPES.update({f"identity_{dtype}": partial(identity, dtype=dtype) for dtype in DTYPES})


# What keeps rows from sharing a batch or a cache.


@recipe
def no_row_input(folder: Path) -> Path:
    """start [], stop [] int32 -> numbers [N] int32: a signature without a leading dimension."""
    tf = tensorflow()
    return save(
        folder,
        lambda start, stop: {"numbers": tf.range(start, stop)},
        {"start": ([], tf.int32), "stop": ([], tf.int32)},
    )


@recipe
def mean_of_batch(folder: Path) -> Path:
    """x [N,4] -> y [N,4], mean [4]: an output without the leading dimension, though nothing says so before a run."""
    tf = tensorflow()
    return save(folder, lambda x: {"y": x * 2, "mean": tf.reduce_mean(x, axis=0)}, {"x": ([None, 4], tf.float32)})


@recipe
def random_op(folder: Path) -> Path:
    """x [N,4] -> y [N,4], with noise."""
    tf = tensorflow()
    return save(folder, lambda x: {"y": x + tf.random.normal(tf.shape(x))}, {"x": ([None, 4], tf.float32)})


@recipe
def counter(folder: Path) -> Path:
    """x [N,4] -> y [N,4], plus how often it was called."""
    tf = tensorflow()
    calls = tf.Variable(0.0)
    return save(folder, lambda x: {"y": x + calls.assign_add(1.0)}, {"x": ([None, 4], tf.float32)}, calls=calls)


@recipe
def centred(folder: Path) -> Path:
    """x [N,4] -> y [N,4], less the batch's mean: what batch norm in training does."""
    tf = tensorflow()
    return save(folder, lambda x: {"y": x - tf.reduce_mean(x, axis=0)}, {"x": ([None, 4], tf.float32)})


@recipe
def padded_words(folder: Path) -> Path:
    """text [N] string -> words [N, longest]: padded to the longest of the batch."""
    tf = tensorflow()
    return save(folder, lambda text: {"words": tf.strings.split(text).to_tensor()}, {"text": ([None], tf.string)})


@recipe
def numbered(folder: Path) -> Path:
    """x [N,4] -> y [N,4], plus the row's place in the batch."""
    tf = tensorflow()

    def call(x: Any) -> dict[str, Any]:
        return {"y": x + tf.cast(tf.range(tf.shape(x)[0]), tf.float32)[:, None]}

    return save(folder, call, {"x": ([None, 4], tf.float32)})


def by_count(folder: Path, nudge: Callable[[Any], Any]) -> Path:
    """x [N,4] -> y [N,4], x and what `nudge` makes of the number of rows (a float scalar)."""
    tf = tensorflow()
    return save(folder, lambda x: {"y": x + nudge(tf.cast(tf.shape(x)[0], tf.float32))}, {"x": ([None, 4], tf.float32)})


@recipe
def counted(folder: Path) -> Path:
    """x [N,4] -> y [N,4], x plus N: at every number of rows another answer."""
    return by_count(folder, lambda count: count)


@recipe
def few_counted(folder: Path) -> Path:
    """x [N,4] -> y [N,4], x plus 1 where there are fewer than four rows."""
    tf = tensorflow()
    return by_count(folder, lambda count: tf.cast(count < 4, tf.float32))


@recipe
def counted_beside_linear(folder: Path) -> Path:
    """serving_default: x [N,4] -> y [N,4], x times 2; `counted`: x plus N."""
    tf = tensorflow()
    module = tf.Module()
    spec = [tf.TensorSpec([None, 4], tf.float32, name="x")]
    plain = tf.function(lambda x: {"y": x * 2}, input_signature=spec)
    counted = tf.function(lambda x: {"y": x + tf.cast(tf.shape(x)[0], tf.float32)}, input_signature=spec)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": plain, "counted": counted})
    return folder


# What is refused.


@recipe
def read_file(folder: Path) -> Path:
    """path [N] string -> text: ReadFile in the signature itself."""
    tf = tensorflow()
    return save(folder, lambda path: {"text": tf.map_fn(tf.io.read_file, path)}, {"path": ([None], tf.string)})


@recipe
def read_file_plainly(folder: Path) -> Path:
    """A TensorFlow 1 graph with ReadFile among its own nodes: x [N,2] -> y [N,2]."""
    tf = tensorflow()
    v1 = tf.compat.v1
    with v1.Session(graph=tf.Graph()) as session:
        x = v1.placeholder(tf.float32, [None, 2], name="x")
        y = x + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)
        v1.saved_model.simple_save(session, str(folder), {"x": x}, {"y": y})
    return folder


@recipe
def read_file_deep(folder: Path) -> Path:
    """x [N,2] -> y [N,2]: ReadFile in a function, in a branch, in a function."""
    tf = tensorflow()

    @tf.function
    def deepest(x: Any) -> Any:
        return x + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)

    @tf.function
    def middle(x: Any) -> Any:
        return tf.cond(tf.reduce_sum(x) > 0, lambda: deepest(x), lambda: x)

    return save(folder, lambda x: {"y": middle(x)}, {"x": ([None, 2], tf.float32)})


@recipe
def write_file(folder: Path) -> Path:
    """x [N,2] -> y [N,2]: WriteFile, which nothing but its effect keeps in the graph."""
    tf = tensorflow()
    target = str(folder.with_name(folder.name + "-written.txt"))

    def call(x: Any) -> dict[str, Any]:
        with tf.control_dependencies([tf.io.write_file(target, "was here")]):
            return {"y": tf.identity(x)}

    return save(folder, call, {"x": ([None, 2], tf.float32)})


@recipe
def write_file_at_start(folder: Path) -> Path:
    """x [N,2] -> y [N,2]: a TensorFlow 1 init op that writes a file."""
    tf = tensorflow()
    v1 = tf.compat.v1
    with v1.Session(graph=tf.Graph()) as session:
        x = v1.placeholder(tf.float32, [None, 2], name="x")
        write = tf.io.write_file(str(folder.with_name(folder.name + "-written.txt")), "was here")
        v1.saved_model.simple_save(session, str(folder), {"x": x}, {"y": x * 2}, legacy_init_op=write)
    return folder


@recipe
def write_file_in_loader(folder: Path) -> Path:
    """x [N,2] -> y [N,2]: a resource whose initializer, which only the TensorFlow 2 loader calls, writes a file."""
    tf = tensorflow()
    from tensorflow.python.trackable.resource import CapturableResource

    target = str(folder.with_name(folder.name + "-written.txt"))

    class Writer(CapturableResource):  # type: ignore[misc]
        def _create_resource(self) -> Any:
            return tf.raw_ops.MutableHashTableV2(key_dtype=tf.string, value_dtype=tf.int64)

        def _initialize(self) -> Any:
            return tf.io.write_file(target, "was here") if not tf.executing_eagerly() else None

    writer = Writer()

    def call(x: Any) -> dict[str, Any]:
        size = tf.raw_ops.LookupTableSizeV2(table_handle=writer.resource_handle)
        return {"y": x + tf.cast(size, tf.float32)}

    return save(folder, call, {"x": ([None, 2], tf.float32)}, writer=writer)


@recipe
def python_function(folder: Path) -> Path:
    """x [N,2] -> y [N,2] through Python."""
    tf = tensorflow()
    return save(
        folder,
        lambda x: {"y": tf.ensure_shape(tf.numpy_function(lambda a: a, [x], tf.float32), [None, 2])},
        {"x": ([None, 2], tf.float32)},
    )


@recipe
def restore_elsewhere(folder: Path) -> Path:
    """x [N,2] -> y [N,2]: reads somebody else's checkpoint."""
    tf = tensorflow()

    def call(x: Any) -> dict[str, Any]:
        (found,) = tf.raw_ops.RestoreV2(
            prefix="/somewhere/else", tensor_names=["w"], shape_and_slices=[""], dtypes=[tf.float32]
        )
        return {"y": x + tf.reduce_sum(found)}

    return save(folder, call, {"x": ([None, 2], tf.float32)})


@recipe
def asset_outside(folder: Path) -> Path:
    """vocabulary_file with its asset's name pointing out of the folder."""

    def change(message: Any) -> None:
        for asset in message.meta_graphs[0].asset_file_def:
            asset.filename = "../../etc/passwd"

    return edit(vocabulary_file(folder), change)


@recipe
def table_elsewhere(folder: Path) -> Path:
    """vocabulary_file with the note that its file is an asset taken out: the path in the graph is read as it stands."""

    def change(message: Any) -> None:
        del message.meta_graphs[0].asset_file_def[:]

    return edit(vocabulary_file(folder), change)


# What only one of the two loaders opens.


@recipe
def only_v2(folder: Path) -> Path:
    """x [N,4] -> y [N,3]: a Keras 3 model as an attribute of a module; the session loader finds no variables."""
    tf = tensorflow()
    import keras

    layer = keras.Sequential([keras.Input([4]), keras.layers.Dense(3)])
    layer.set_weights([numbers(4, 3), numbers(3, seed=8)])
    return save(folder, lambda x: {"y": layer(x)}, {"x": ([None, 4], tf.float32)}, layer=layer)


@recipe
def only_v2_convolution(folder: Path) -> Path:
    """x [N,8,8,3] -> y [N,5], for the same loader alone."""
    tf = tensorflow()
    import keras

    layers = [keras.layers.Conv2D(5, 3), keras.layers.BatchNormalization(), keras.layers.GlobalAveragePooling2D()]
    layer = keras.Sequential([keras.Input([8, 8, 3]), *layers])
    layer.set_weights([numbers(*weight.shape, seed=at) ** 2 for at, weight in enumerate(layer.get_weights())])
    return save(folder, lambda x: {"y": layer(x)}, {"x": ([None, 8, 8, 3], tf.float32)}, layer=layer)


@recipe
def only_v2_table(folder: Path) -> Path:
    """word [N] string -> y [N,2]: as `only_v2`, with a table, so that it cannot be frozen either."""
    tf = tensorflow()
    import keras

    layer = keras.Sequential([keras.Input([1]), keras.layers.Dense(2)])
    layer.set_weights([numbers(1, 2), numbers(2, seed=8)])
    words = tf.constant(["cat", "dog"])
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(words, tf.constant([1, 2], tf.int64)), default_value=0
    )

    def call(word: Any) -> dict[str, Any]:
        return {"y": layer(tf.cast(table.lookup(word), tf.float32)[:, None])}

    return save(folder, call, {"word": ([None], tf.string)}, layer=layer, table=table)


@recipe
def only_v1(folder: Path) -> Path:
    """x [N,4] -> y [N,3]: the object graph of a model saved with its optimizer's slots, whose class is not here."""
    tf = tensorflow()
    w, momentum = tf.Variable(numbers(4, 3)), tf.Variable(numbers(4, 3, seed=9))
    save(folder, lambda x: {"y": x @ w}, {"x": ([None, 4], tf.float32)}, w=w, momentum=momentum, optimizer=tf.Module())

    def change(message: Any) -> None:
        nodes = message.meta_graphs[0].object_graph_def.nodes
        where = {child.local_name: child.node_id for child in nodes[0].children}
        nodes[where["optimizer"]].slot_variables.add(
            original_variable_node_id=where["w"], slot_name="momentum", slot_variable_node_id=where["momentum"]
        )

    return edit(folder, change)
