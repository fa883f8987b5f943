"""From a model's folder to a GraphSession: open it in its engine, test, warm. What is remembered is not tested again.

Blocking (seconds); on the thread that will run the graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rowserve.graphs.batch_sizes import batch_sizes
from rowserve.graphs.description import ModelDescription
from rowserve.graphs.errors import CannotLoad, GraphError
from rowserve.graphs.exact_sizes import exact_sizes
from rowserve.graphs.execution import OPENVINO, execution
from rowserve.graphs.fingerprint import fingerprint
from rowserve.graphs.load_settings import LoadSettings
from rowserve.graphs.made_up_rows import make_up
from rowserve.graphs.opened import Opened
from rowserve.graphs.self_test import examine
from rowserve.graphs.session import GraphSession
from rowserve.graphs.signature import Signature
from rowserve.graphs.trial import Trial

__all__ = ["LoadSettings", "load"]


def load(path: Path, settings: LoadSettings, known: ModelDescription | None = None) -> GraphSession:
    """The model in that folder, warm, and tested unless its description is `known` from an earlier load.

    Raises CannotLoad: one readable line that names the folder.
    """
    digest = fingerprint(path)
    if known is not None and known.fingerprint == digest:
        try:
            return _session(_open(path, settings, known), settings, known)
        except GraphError:
            pass  # found out anew below, with an error that says more
    opened = _open(path, settings, None)
    try:
        description = describe(digest, opened, settings)
    except GraphError as error:
        opened.graph.close()
        raise CannotLoad(f"{path}: {error}") from None
    return _session(opened, settings, description)


def _open(path: Path, settings: LoadSettings, known: ModelDescription | None) -> Opened:
    """Each engine is imported only where it is wanted."""
    if settings.engine == OPENVINO:
        from rowserve.graphs.openvino_loading import open_with_openvino

        return open_with_openvino(path, settings, known)
    from rowserve.graphs.tensorflow_loading import open_with_tensorflow

    return open_with_tensorflow(path, settings, known)


def _session(opened: Opened, settings: LoadSettings, description: ModelDescription) -> GraphSession:
    session = GraphSession(opened.graph, description)
    try:
        warm(session, opened.trials, settings.max_rows)
    except GraphError as error:
        session.close()
        raise CannotLoad(f"{opened.path}: {error}") from None
    return session


def describe(digest: str, opened: Opened, settings: LoadSettings) -> ModelDescription:
    """What the self-test finds of each signature, and with it what goes into the keys."""
    notes: list[str] = []
    signatures: dict[str, Signature] = {}
    sizes: dict[str, tuple[int, ...]] = {}
    for name, declared in opened.signatures.items():
        signature, found = tested(opened, declared, settings)
        notes += found
        if settings.exact and not signature.alone:
            signature, sizes[name] = exact(opened, signature, settings)
        if signature.alone:
            notes.append(f"signature {name} runs one request at a time, uncached: {signature.alone}")
        signatures[name] = signature
    graph = opened.graph
    return ModelDescription(
        fingerprint=digest,
        signatures=signatures,
        loader=graph.loader,
        frozen=graph.frozen,
        folded=graph.folded,
        op_threads=opened.op_threads,
        exact_sizes={name: found for name, found in sizes.items() if found},
        execution=execution(
            engine=settings.engine,
            precision=settings.precision,
            exact=settings.exact,
            op_threads=settings.op_threads,
            loader=graph.loader,
            frozen=graph.frozen,
            sizes=sizes,
        ),
        notes=tuple(dict.fromkeys([*opened.notes, *notes])),
    )


def tested(opened: Opened, signature: Signature, settings: LoadSettings) -> tuple[Signature, list[str]]:
    """The signature as the self-test found it, and what it noted."""
    trial = opened.trials[signature.name]
    trusted = settings.trust == "rows"
    if signature.alone:
        return opened.alone(signature, signature.alone), []
    if trial.refused:
        reason = f"none of the made-up rows was accepted ({trial.error}), so nothing is known of its answers"
        return (signature, []) if trusted else (opened.alone(signature, reason), [])
    verdict = examine(opened.graph, signature, trial.passed)
    if verdict.misfit or (verdict.changing and not trusted):
        return opened.alone(signature, verdict.misfit or verdict.changing), list(verdict.notes)
    notes = list(verdict.notes)
    if verdict.changing:
        notes.append(f"signature {signature.name} is cached and batched as its card says, although {verdict.changing}")
    return replace(signature, outputs=verdict.outputs), notes


def exact(opened: Opened, signature: Signature, settings: LoadSettings) -> tuple[Signature, tuple[int, ...]]:
    """The signature and the sizes it may run at in exact mode; alone where no size keeps a row's bytes."""
    trial = opened.trials[signature.name]
    if trial.refused:
        return signature, (signature.batch or 1,)
    found = exact_sizes(opened.graph, signature, trial.passed, settings.max_rows)
    if found:
        return signature, found
    reason = "its answers are not the same to the last bit in any batch size, which exact mode asks for"
    return opened.alone(signature, reason), ()


def warm(session: GraphSession, trials: Mapping[str, Trial], max_rows: int) -> None:
    """Run every size that will be in use once: first runs build kernels. Raises GraphError where one does not run."""
    for name, signature in session.description.signatures.items():
        if signature.alone:
            continue
        fixed = (signature.batch,) if signature.batch is not None else session.description.exact_sizes.get(name)
        for kind in trials[name].passed[:1]:
            most = session.settle(name, make_up(signature, kind, min(fixed or (1,)))) or max_rows
            for size in fixed or batch_sizes(min(most, max_rows)):
                session.run(name, make_up(signature, kind, size))
