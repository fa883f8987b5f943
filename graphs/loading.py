"""From a model's folder to a GraphSession: open it in its engine, test, warm. What is remembered is not tested again.

Blocking (seconds); on the thread that will run the graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rowserve.graphs.agreeing_sizes import agreeing_sizes
from rowserve.graphs.batch_sizes import batch_sizes
from rowserve.graphs.description import ModelDescription
from rowserve.graphs.errors import CannotLoad, GraphError
from rowserve.graphs.exact_sizes import exact_sizes
from rowserve.graphs.execution import OPENVINO, execution
from rowserve.graphs.fingerprint import fingerprint
from rowserve.graphs.load_settings import LoadSettings
from rowserve.graphs.made_up_rows import make_up
from rowserve.graphs.opened import Opened
from rowserve.graphs.run_watch import watched_run
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
    exact: dict[str, tuple[int, ...]] = {}
    agreeing: dict[str, tuple[int, ...]] = {}
    for name, declared in opened.signatures.items():
        signature, counting, found = tested(opened, declared, settings)
        notes += found
        if counting:
            signature, agreeing[name] = sized(opened, signature, settings, counting)
            notes += [ran_at(name, agreeing[name], counting)] if agreeing[name] else []
        elif settings.exact and not signature.alone:
            signature, exact[name] = sized(opened, signature, settings)
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
        sizes={name: sizes for name, sizes in (exact | agreeing).items() if sizes},
        execution=execution(
            engine=settings.engine,
            precision=settings.precision,
            exact=settings.exact,
            op_threads=settings.op_threads,
            loader=graph.loader,
            frozen=graph.frozen,
            sizes=exact,
        ),
        notes=tuple(dict.fromkeys([*opened.notes, *notes])),
    )


def tested(opened: Opened, signature: Signature, settings: LoadSettings) -> tuple[Signature, str, list[str]]:
    """The signature as the self-test found it, how its answers change with the number of rows, or "", and what it
    noted."""
    trial = opened.trials[signature.name]
    trusted = settings.trust == "rows"
    if signature.alone:
        return opened.alone(signature, signature.alone), "", []
    if trial.refused:
        reason = f"none of the made-up rows was accepted ({trial.error}), so nothing is known of its answers"
        return (signature, "", []) if trusted else (opened.alone(signature, reason), "", [])
    verdict = examine(opened.graph, signature, trial.passed)
    notes = list(verdict.notes)
    if verdict.misfit or (verdict.changing and not trusted):
        return opened.alone(signature, verdict.misfit or verdict.changing), "", notes
    signature = replace(signature, outputs=verdict.outputs)
    if not trusted:
        return signature, verdict.counting, notes
    why = verdict.changing or verdict.counting
    if why:
        notes.append(f"signature {signature.name} is cached and batched as its card says, although {why}")
    return signature, "", notes


def sized(
    opened: Opened, signature: Signature, settings: LoadSettings, counting: str = ""
) -> tuple[Signature, tuple[int, ...]]:
    """The signature and the only sizes it may run at, for exact mode or because of `counting`; alone where no size
    keeps a row's answer."""
    trial = opened.trials[signature.name]
    if trial.refused:
        return signature, (signature.batch or 1,)
    find = exact_sizes if settings.exact else agreeing_sizes
    found = find(opened.graph, signature, trial.passed, settings.max_rows)
    if found:
        return signature, found
    reason = "its answers are not the same to the last bit in any batch size, which exact mode asks for"
    return opened.alone(signature, counting or reason), ()


def ran_at(name: str, sizes: tuple[int, ...], counting: str) -> str:
    """What the log says of a signature that runs at these sizes only."""
    least = f"{', '.join(map(str, sizes[:-1]))} or {sizes[-1]}" if len(sizes) > 1 else str(sizes[0])
    return f"signature {name} is cached, and runs only in batches of {least}, filled up: {counting}"


def warm(session: GraphSession, trials: Mapping[str, Trial], max_rows: int) -> None:
    """Run every size that will be in use once: first runs build kernels. Raises GraphError where one does not run."""
    for name, signature in session.description.signatures.items():
        if signature.alone:
            continue
        fixed = (signature.batch,) if signature.batch is not None else session.description.sizes.get(name)
        for kind in trials[name].passed[:1]:
            with watched_run():
                most = session.settle(name, make_up(signature, kind, min(fixed or (1,)))) or max_rows
            for size in fixed or batch_sizes(min(most, max_rows)):
                with watched_run():
                    session.run(name, make_up(signature, kind, size))
