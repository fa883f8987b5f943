"""Stand-ins that step by hand: a graph thread, a decode pool, a model that does arithmetic, a list of cache calls."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

import numpy as np
from twisted.internet.defer import Deferred

from rowserve.graphs.description import ModelDescription
from rowserve.graphs.errors import RowBroken
from rowserve.graphs.rows import Rows
from rowserve.graphs.signature import Signature, TensorSpec

BROKEN = -666.0


class SteppedGraphThread:
    """A GraphThread that takes its batches and work as soon as it is free, but is only done with them when it is told.

    `turn` is a turn of the reactor: it makes the calls that the thread has asked for.
    """

    def __init__(self, session: Any) -> None:
        self.session = session
        self.batches: Any = None
        self.batch: Any = None  # the one that runs
        self.work: deque[Any] = deque()
        self.calls: deque[Any] = deque()
        self.failure: BaseException | None = None

    @property
    def inbox(self) -> list[Any]:
        """What it has begun, or been given."""
        return [*([] if self.batch is None else [self.batch]), *self.work]

    def busy_seconds(self) -> float:
        return 0.0

    def pull_from(self, batches: Any) -> None:
        self.batches = batches

    def call_in_reactor(self, call: Any) -> None:
        self.calls.append(call)

    def wake(self) -> None:
        self._next()

    def run(self, work: Any, done: Any) -> None:
        self.work.append((work, done))

    def finish(self) -> None:
        """The thread's part of a step: it is done with what it has begun, and begins the next."""
        if self.batch is not None:
            batch, self.batch = self.batch, None
            self.batches.over(batch, self._attempt(lambda session: self.batches.run(batch, session)))
        elif self.work:
            work, done = self.work.popleft()
            result = self._attempt(work)
            self.calls.append(lambda: done(result))
        self._next()

    def _attempt(self, work: Any) -> Any:
        try:
            return self.failure or work(self.session)
        except BaseException as error:  # noqa: BLE001  as the real one does
            return error

    def _next(self) -> None:
        if self.batch is None and not self.work and self.batches is not None:
            self.batch = self.batches.take()

    def turn(self) -> None:
        """What the reactor does meanwhile."""
        while self.calls:
            self.calls.popleft()()

    def step(self) -> None:
        """It is done with what it has begun, and the reactor hears of it."""
        self.turn()
        self.finish()
        self.turn()

    def step_all(self) -> None:
        """Steps until nothing is left to do."""
        self.turn()
        while self.inbox:
            self.step()

    def stop(self) -> None:
        self.work.clear()
        self.batches = self.batch = None


class SteppedPool:
    """A decode pool whose calls wait until `step` makes them."""

    def __init__(self) -> None:
        self.calls: deque[tuple[Any, Deferred[Any]]] = deque()

    def defer(self, call: Any, *args: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.calls.append((lambda: call(*args), done))
        return done

    def step(self) -> None:
        """Makes the oldest call."""
        call, done = self.calls.popleft()
        try:
            result = call()
        except Exception:  # noqa: BLE001  as the real one does
            done.errback()
        else:
            done.callback(result)

    def step_all(self) -> None:
        """Steps until nothing is left to do."""
        while self.calls:
            self.step()


def arithmetic_signature(width: int = 4, *, alone: str = "", name: str = "serving_default") -> Signature:
    """x float32 [N, width] -> double float32 [N, width], sum int64 [N]."""
    batched = not alone
    lead = () if batched else (None,)
    return Signature(
        name,
        (TensorSpec("x", "float32", (width,)),),
        (TensorSpec("double", "float32", (*lead, width), batched), TensorSpec("sum", "int64", (*lead,), batched)),
        alone=alone,
    )


def worded_signature(*, alone: str = "") -> Signature:
    """The same, and word string [N] beside them: the sum as text."""
    plain = arithmetic_signature(alone=alone)
    word = TensorSpec("word", "string", (None,) if alone else (), batched=not alone)
    return replace(plain, outputs=(*plain.outputs, word))


class ArithmeticSession:
    """A model without TensorFlow: doubles its rows and sums them up. A row that holds BROKEN breaks its batch."""

    def __init__(self, *signatures: Signature) -> None:
        self.signatures = signatures or (arithmetic_signature(),)
        self.description = ModelDescription(
            "f" * 64, {signature.name: signature for signature in self.signatures}, "v1", frozen=True
        )
        self.batches: list[int] = []
        self.seen: list[list[float]] = []
        self.closed = False

    def run(self, signature: str, rows: Rows) -> dict[str, Any]:
        x = rows.arrays["x"]
        if (x == BROKEN).any():
            raise RowBroken("a row holds the number that breaks")
        self.batches.append(rows.count)
        self.seen += x.tolist()
        sums = x.sum(axis=tuple(range(1, x.ndim))).astype(np.int64)
        words = np.array([str(total).encode() for total in sums], object)
        return {"double": x * np.float32(2), "sum": sums, "word": words}

    def close(self) -> None:
        self.closed = True


def number_rows(*numbers: float, width: int = 4) -> Rows:
    """Rows of the arithmetic model, each `width` times its number."""
    return Rows({"x": np.repeat(np.array(numbers, np.float32)[:, None], width, axis=1)}, len(numbers))
