"""From a SavedModel folder to a GraphSession: look, load, try, freeze, test, warm.

Blocking (seconds); on the thread that will run the graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rowserve.graphs.batch_sizes import batch_sizes
from rowserve.graphs.description import ModelDescription
from rowserve.graphs.errors import CannotLoad, GraphError, one_line
from rowserve.graphs.exact_sizes import exact_sizes
from rowserve.graphs.execution import execution
from rowserve.graphs.fingerprint import fingerprint
from rowserve.graphs.freezing import NothingToFreeze, freeze
from rowserve.graphs.inspection import inspect
from rowserve.graphs.load_settings import LoadSettings
from rowserve.graphs.made_up_examples import features_of
from rowserve.graphs.made_up_rows import make_up
from rowserve.graphs.opening import OPENERS, OpenGraph
from rowserve.graphs.runners import LoadedGraph
from rowserve.graphs.saved_model import SavedModel, made_alone, read_saved_model
from rowserve.graphs.self_test import examine, widen
from rowserve.graphs.session import GraphSession
from rowserve.graphs.signature import Signature
from rowserve.graphs.tolerance import Likeness, likeness
from rowserve.graphs.trial import Trial, call, try_signatures

__all__ = ["LoadSettings", "load"]


def load(path: Path, settings: LoadSettings) -> GraphSession:
    """The model in that folder, tested and warm. Raises CannotLoad: one readable line that names the folder."""
    digest = fingerprint(path)
    model = read_saved_model(path, settings)
    inspect(model, settings.allowed_ops)
    opened = open_graph(model, settings)
    graph, notes = freeze_or_keep(opened, settings)
    try:
        description = describe(digest, opened, graph, settings)
        description = replace(description, notes=tuple(dict.fromkeys([*opened.notes, *notes, *description.notes])))
        session = GraphSession(graph, description)
        warm(session, opened.trials, settings.max_rows)
    except GraphError as error:
        graph.close()
        raise CannotLoad(f"{path}: {error}") from None
    return session


def describe(digest: str, opened: Opened, graph: LoadedGraph, settings: LoadSettings) -> ModelDescription:
    """What the self-test finds of each signature, and with it what goes into the keys."""
    notes: list[str] = []
    signatures: dict[str, Signature] = {}
    sizes: dict[str, tuple[int, ...]] = {}
    for name, declared in opened.model.signatures.items():
        signature, found = tested(opened, graph, declared, settings)
        notes += found
        if settings.exact and not signature.alone:
            signature, sizes[name] = exact(opened, graph, signature, settings)
        if signature.alone:
            notes.append(f"signature {name} runs one request at a time, uncached: {signature.alone}")
        signatures[name] = signature
    return ModelDescription(
        fingerprint=digest,
        signatures=signatures,
        loader=graph.loader,
        frozen=graph.frozen,
        exact_sizes={name: found for name, found in sizes.items() if found},
        execution=execution(
            exact=settings.exact,
            op_threads=settings.op_threads,
            loader=graph.loader,
            frozen=graph.frozen,
            sizes=sizes,
        ),
        notes=tuple(notes),
    )


@dataclass
class Opened:
    """A graph that has run, what came of trying its signatures, and the model less the signatures that do not run."""

    model: SavedModel
    graph: OpenGraph
    trials: Mapping[str, Trial]
    notes: list[str]


def open_graph(model: SavedModel, settings: LoadSettings) -> Opened:
    """The graph by the first loader that lets every signature run, else by the one that lets most run."""
    best: tuple[tuple[int, int], OpenGraph, dict[str, Trial]] | None = None
    faults: list[str] = []
    for name, opener in OPENERS.items():
        try:
            graph = opener(model, settings)
        except Exception as error:  # noqa: BLE001  (loaders raise everything there is)
            faults.append(f"{name}: {one_line(error)}")
            continue
        trials = try_signatures(graph, model.signatures, features_of(model.meta_graph))
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
    return _without_broken(model, best[1], best[2])


def _without_broken(model: SavedModel, graph: OpenGraph, trials: Mapping[str, Trial]) -> Opened:
    running = {name for name, trial in trials.items() if trial.passed or trial.refused}
    notes = [
        f"signature {name} is left out: it does not run: {trial.error}"
        for name, trial in trials.items()
        if name not in running
    ]
    signatures = {name: signature for name, signature in model.signatures.items() if name in running}
    return Opened(replace(model, signatures=signatures), graph, trials, [*model.notes, *notes])


def freeze_or_keep(opened: Opened, settings: LoadSettings) -> tuple[LoadedGraph, list[str]]:
    """The frozen graph where it answers made-up rows as the one it was made of, else that one."""
    try:
        frozen = freeze(opened.model, opened.graph, settings)
    except NothingToFreeze:
        return opened.graph, []
    except Exception as error:  # noqa: BLE001  (what cannot be frozen is served as it is)
        return opened.graph, [f"kept its variables: they cannot be made constants: {one_line(error)}"]
    other = _answers_otherwise(opened, frozen)
    if other:
        frozen.close()
        return opened.graph, [f"kept its variables: with constants in their place {other}"]
    opened.graph.close()
    return frozen, []


def _answers_otherwise(opened: Opened, frozen: LoadedGraph) -> str:
    for name, signature in opened.model.signatures.items():
        for kind in opened.trials[name].passed:
            rows = make_up(signature, kind, signature.batch or 3)
            one = call(opened.graph, signature, rows)
            try:
                other = call(frozen, signature, rows)
            except GraphError as error:
                return f"signature {name} does not run: {error}"
            for key in one:
                if likeness(one[key], other[key]) is Likeness.DIFFERENT:
                    return f"output {key} of signature {name} differs"
    return ""


def tested(
    opened: Opened, graph: LoadedGraph, signature: Signature, settings: LoadSettings
) -> tuple[Signature, list[str]]:
    """The signature as the self-test found it, and what it noted."""
    trial = opened.trials[signature.name]
    trusted = settings.trust == "rows"
    if signature.alone:
        return _widened(opened, graph, signature), []
    if trial.refused:
        reason = f"none of the made-up rows was accepted ({trial.error}), so nothing is known of its answers"
        return (signature, []) if trusted else (made_alone(opened.model, signature, reason), [])
    verdict = examine(graph, signature, trial.passed)
    if verdict.misfit or (verdict.changing and not trusted):
        alone = made_alone(opened.model, signature, verdict.misfit or verdict.changing)
        return _widened(opened, graph, alone), list(verdict.notes)
    notes = list(verdict.notes)
    if verdict.changing:
        notes.append(f"signature {signature.name} is cached and batched as its card says, although {verdict.changing}")
    return replace(signature, outputs=verdict.outputs), notes


def _widened(opened: Opened, graph: LoadedGraph, signature: Signature) -> Signature:
    """An alone signature with free dimensions where a real answer does not keep to those declared."""
    outputs = signature.outputs
    for kind in opened.trials[signature.name].passed:
        answers = call(graph, signature, make_up(signature, kind, signature.batch or 2))
        outputs = tuple(widen(spec, answers[spec.name].shape) for spec in outputs)
    return replace(signature, outputs=outputs)


def exact(
    opened: Opened, graph: LoadedGraph, signature: Signature, settings: LoadSettings
) -> tuple[Signature, tuple[int, ...]]:
    """The signature and the sizes it may run at in exact mode; alone where no size keeps a row's bytes."""
    trial = opened.trials[signature.name]
    if trial.refused:
        return signature, (signature.batch or 1,)
    found = exact_sizes(graph, signature, trial.passed, settings.max_rows)
    if found:
        return signature, found
    reason = "its answers are not the same to the last bit in any batch size, which exact mode asks for"
    return made_alone(opened.model, signature, reason), ()


def warm(session: GraphSession, trials: Mapping[str, Trial], max_rows: int) -> None:
    """Run every size that will be in use once: first runs build kernels. Raises GraphError where one does not run."""
    for name, signature in session.description.signatures.items():
        if signature.alone:
            continue
        fixed = (signature.batch,) if signature.batch is not None else session.description.exact_sizes.get(name)
        for kind in trials[name].passed[:1]:
            for size in fixed or batch_sizes(max_rows):
                session.run(name, make_up(signature, kind, size))
            session.settle(name, make_up(signature, kind, min(fixed or (1,))))
