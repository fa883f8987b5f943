"""A SavedModel in TensorFlow: look, open by the loader that works, freeze and fold, choose its threads.

Graph thread, at load; blocking (seconds).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter

from rowserve.graphs.description import ModelDescription
from rowserve.graphs.errors import CannotLoad, one_line
from rowserve.graphs.freezing import NothingToFreeze, freeze
from rowserve.graphs.inspection import inspect
from rowserve.graphs.load_settings import LoadSettings
from rowserve.graphs.made_up_examples import features_of
from rowserve.graphs.made_up_rows import make_up
from rowserve.graphs.opened import Opened, difference, without_broken
from rowserve.graphs.opening import OPENERS, OpenGraph
from rowserve.graphs.runners import LoadedGraph, quickest
from rowserve.graphs.saved_model import SavedModel, output_shapes, read_saved_model
from rowserve.graphs.trial import WANTED, Trial, call, try_signatures

# A run of a few rows that takes longer than this (seconds) is worth the threads' wake-up, which costs up to 0.1 ms.
LIGHT = 0.002
FEW = 8


def open_with_tensorflow(path: Path, settings: LoadSettings, known: ModelDescription | None) -> Opened:
    """The model in that folder, ready to run. What is known of it is not found out again. Raises CannotLoad."""
    model = read_saved_model(path, settings)
    inspect(model, settings.allowed_ops)
    if known is not None:
        return _as_known(model, settings, known)
    graph, trials = open_graph(model, settings)
    signatures, broken = without_broken(model.signatures, trials)
    model = replace(model, signatures=signatures)
    frozen, kept = freeze_or_keep(model, graph, trials, settings)
    threads = settings.op_threads
    if frozen is not graph:
        frozen, threads = with_fewer_threads(model, graph, frozen, trials, settings)
        graph.close()
    notes = (*model.notes, *broken, *kept)
    return Opened(path, frozen, signatures, output_shapes(model), trials, threads, notes)


def _as_known(model: SavedModel, settings: LoadSettings, known: ModelDescription) -> Opened:
    """By the loader that worked, with as many threads; frozen without another look if that was right before."""
    if not known.signatures.keys() <= model.signatures.keys():
        raise CannotLoad(f"{model.path}: its signatures are not those that are remembered")
    model = replace(model, signatures={name: model.signatures[name] for name in known.signatures})
    settings = replace(settings, intra_op_threads=known.op_threads)
    try:
        opened = OPENERS[known.loader.split()[0]](model, settings)
        graph: LoadedGraph = opened
        if known.frozen:
            try:
                graph = freeze(model, opened, settings, known.folded)
            finally:
                opened.close()
    except Exception as error:  # noqa: BLE001  (whoever asked goes on without what is known)
        raise CannotLoad(f"{model.path}: {one_line(error)}") from None
    trials = try_signatures(graph, model.signatures, features_of(model.meta_graph), wanted=1)
    return Opened(model.path, graph, model.signatures, output_shapes(model), trials, known.op_threads)


def open_graph(model: SavedModel, settings: LoadSettings) -> tuple[OpenGraph, Mapping[str, Trial]]:
    """The graph by the first loader that lets every signature run, else by the one that lets most run."""
    best: tuple[tuple[int, int], OpenGraph, dict[str, Trial]] | None = None
    faults: list[str] = []
    for name, opener in OPENERS.items():
        try:
            graph = opener(model, settings)
        except Exception as error:  # noqa: BLE001  (loaders raise everything there is)
            faults.append(f"{name}: {one_line(error)}")
            continue
        trials = try_signatures(graph, model.signatures, features_of(model.meta_graph), wanted=WANTED)
        score = (sum(bool(trial.passed) for trial in trials.values()), sum(trial.refused for trial in trials.values()))
        faults += [f"{name}: {trial.error}" for trial in trials.values() if not trial.passed and not trial.refused]
        if best is None or score > best[0]:
            if best is not None:
                best[1].close()
            best = (score, graph, trials)
        else:
            graph.close()
        if score[0] == len(trials):
            break
    if best is None or best[0] == (0, 0):
        if best is not None:
            best[1].close()
        raise CannotLoad(f"{model.path}: no loader opens it; {'; '.join(dict.fromkeys(faults))}")
    return best[1], best[2]


def freeze_or_keep(
    model: SavedModel, graph: OpenGraph, trials: Mapping[str, Trial], settings: LoadSettings
) -> tuple[LoadedGraph, list[str]]:
    """The frozen graph where it answers made-up rows as the one it was made of, else that one; folded where that holds.

    In exact mode nothing is folded: rows keep the last bits of the graph as saved.
    """
    why = ""
    for folded in (False,) if settings.exact else (True, False):
        try:
            frozen = freeze(model, graph, settings, folded)
        except NothingToFreeze:
            return graph, []
        except Exception as error:  # noqa: BLE001  (what cannot be frozen is served as it is)
            why = f"they cannot be made constants: {one_line(error)}"
            continue
        other = difference(graph, frozen, model.signatures, trials)
        if not other:
            return frozen, []
        frozen.close()
        why = f"with constants in their place {other}"
    return graph, [f"kept its variables: {why}"]


def with_fewer_threads(
    model: SavedModel, graph: OpenGraph, frozen: LoadedGraph, trials: Mapping[str, Trial], settings: LoadSettings
) -> tuple[LoadedGraph, int]:
    """The graph, and the threads of one op: one where a few rows run quicker so, else as set.

    In exact mode nothing that is measured may change the last bits, and threads do.
    """
    rows = [
        (signature, make_up(signature, kind, signature.batch or FEW))
        for name, signature in model.signatures.items()
        for kind in trials[name].passed[:1]
    ]
    if settings.exact or settings.intra_op_threads or settings.op_threads == 1 or not rows:
        return frozen, settings.op_threads
    signature, few = rows[0]
    call(frozen, signature, few)
    start = perf_counter()
    call(frozen, signature, few)
    if perf_counter() - start > LIGHT:
        return frozen, settings.op_threads
    try:
        single = freeze(model, graph, replace(settings, intra_op_threads=1), frozen.folded)
    except Exception:  # noqa: BLE001  (it worked a moment ago; without it nothing is lost)
        return frozen, settings.op_threads
    runs = [partial(call, each, signature, few) for each in (single, frozen)]
    if quickest(runs, (), perf_counter) is runs[0]:
        frozen.close()
        return single, 1
    single.close()
    return frozen, settings.op_threads
