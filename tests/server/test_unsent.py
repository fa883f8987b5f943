"""One budget for all answers that are not taken: who waits, who is cut off, and what is counted."""

from __future__ import annotations

import gc
import json
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from rowserve.handlers.items import Options
from rowserve.handlers.problem import Problem
from rowserve.server import pieces
from rowserve.server.pieces import answer_in_pieces
from rowserve.server.unsent import GRACE_SECONDS, Unsent
from tests.doubles import number_rows
from tests.http_doubles import Client, Server, head
from tests.server.conftest import Asked, PipelineBench


class Slow:
    """A connection with so much to send."""

    def __init__(self, unsent: Unsent, owed: int) -> None:
        self.unsent = unsent
        self.owed = owed
        self.taken = 0
        self.gone = False
        unsent.owe(self)

    def abort(self) -> None:
        assert not self.gone
        self.gone = True
        self.unsent.forget(self)


def passes(clock: Clock, seconds: float) -> None:
    for _ in range(round(seconds * 4)):
        clock.advance(0.25)


def test_who_takes_least_goes_first_when_the_budget_is_used_up() -> None:
    clock = Clock()
    unsent = Unsent(clock, 100)
    slow, reading = Slow(unsent, 40), Slow(unsent, 40)
    passes(clock, 10)
    reading.taken = 5
    new = Slow(unsent, 30)
    assert (slow.gone, reading.gone, new.gone) == (True, False, False)
    assert (unsent.bytes, unsent.cut) == (70, 1)


def test_who_has_taken_all_owes_nothing_any_more() -> None:
    clock = Clock()
    unsent = Unsent(clock, 100)
    client = Slow(unsent, 40)
    client.owed = 0
    passes(clock, 1)
    assert unsent.bytes == 0
    assert clock.getDelayedCalls() == []
    passes(clock, 100)
    client.owed = 40
    unsent.owe(client)  # since now, not since then
    other = Slow(unsent, 40)
    passes(clock, 1)
    client.taken = 1
    Slow(unsent, 40)
    assert (client.gone, other.gone) == (False, True)


def test_an_answer_in_the_making_waits_until_those_who_do_not_read_have_gone() -> None:
    clock = Clock()
    unsent = Unsent(clock, 100)
    begun: list[str] = []
    slow = Slow(unsent, 60)
    unsent.claim(50).when_room(lambda: begun.append("first"))
    unsent.claim(10).when_room(lambda: begun.append("second"))
    assert begun == []  # those who asked earlier go first
    passes(clock, GRACE_SECONDS - 0.5)
    assert not slow.gone
    passes(clock, 1)
    assert slow.gone
    assert begun == ["first", "second"]


def test_an_answer_larger_than_the_budget_is_made_alone() -> None:
    clock = Clock()
    unsent = Unsent(clock, 100)
    begun: list[str] = []
    large = unsent.claim(1000)
    large.when_room(lambda: begun.append("large"))
    unsent.claim(1).when_room(lambda: begun.append("small"))
    assert begun == ["large"]
    large.release()
    large.release()
    clock.advance(0)
    assert begun == ["large", "small"]
    assert unsent.bytes == 1


def test_who_leaves_the_line_is_never_called() -> None:
    clock = Clock()
    unsent = Unsent(clock, 100)
    first = unsent.claim(100)
    first.hold()
    claim = unsent.claim(50)
    claim.when_room(lambda: pytest.fail("it has left"))
    claim.release()
    first.release()
    passes(clock, 2)
    assert unsent.bytes == 0
    assert clock.getDelayedCalls() == []


STEPS = st.sampled_from(["owe", "take", "go", "claim", "release", "wait"])


@given(st.lists(st.tuples(STEPS, st.integers(0, 60)), max_size=60))
def test_what_is_counted_is_what_is_held_and_never_more_than_the_limit(steps: list[tuple[str, int]]) -> None:
    clock = Clock()
    unsent = Unsent(clock, 100)
    debtors: list[Slow] = []
    claims: list[Any] = []
    begun: set[Any] = set()
    for what, number in steps:
        if what == "owe":
            debtors.append(Slow(unsent, number))
        elif what == "take" and debtors:
            debtor = debtors[number % len(debtors)]
            debtor.owed //= 2
            debtor.taken += 1
        elif what == "go" and debtors:
            unsent.forget(debtors.pop(number % len(debtors)))
        elif what == "claim":
            claim = unsent.claim(number)
            claims.append(claim)
            claim.when_room(partial(begun.add, claim))
        elif what == "release" and claims:
            claims.pop(number % len(claims)).release()
        else:
            clock.advance(number / 10)
        debtors = [debtor for debtor in debtors if not debtor.gone]
        list(unsent.collect())
        in_the_making = [claim.size for claim in claims if claim in begun]
        assert unsent.bytes == sum(debtor.owed for debtor in debtors) + sum(in_the_making)
        assert unsent.bytes <= 100 or not debtors or sum(in_the_making) > 0
    for debtor in debtors:
        unsent.forget(debtor)
    while claims:
        claims.pop().release()
    clock.advance(1)
    clock.advance(1)
    assert unsent.bytes == 0
    assert clock.getDelayedCalls() == []


def ask_for(client: Client, rows: int) -> None:
    body = json.dumps({"instances": [[i, 1] for i in range(rows)]}).encode()
    client.send(head("POST", "/v1/models/m:predict", len(body)) + body)


def test_clients_that_do_not_read_are_cut_off_and_those_that_do_are_answered() -> None:
    server = Server(unsent=400_000)
    deaf = [server.connect(room=1000) for _ in range(3)]
    for client in deaf:
        ask_for(client, 3000)
        server.pool.step_all()
        server.wait(1)
    assert 0 < server.api.pipeline.unsent.bytes <= 400_000
    gone = [client.wire.aborted for client in deaf]
    assert gone[0]
    assert not gone[-1]
    reader = server.connect()
    ask_for(reader, 3000)
    server.pool.step_all()
    server.wait(10)  # it waits its turn, and those who do not read make room
    assert len(reader.reply().json["predictions"]) == 3000
    for client in deaf:
        client.wire.lose()
    assert server.api.pipeline.unsent.bytes == 0


@pytest.mark.parametrize("why", ["cut off", "gone", "answered"])
def test_what_nobody_has_read_is_freed_when_the_connection_ends(why: str) -> None:
    """And not by the garbage collector some time later: the memory of a flood of them would wait for it."""
    server = Server(unsent=400_000)
    gc.collect()
    client = server.connect(room=1000)
    ask_for(client, 3000)
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        server.pool.step_all()
        server.wait(1)
        assert client.wire.full
        if why == "cut off":
            client.wire.protocol.abort()
        elif why == "gone":
            client.wire.lose()
        while client.wire.value() and why == "answered":
            client.wire.take()
        server.wait(1)
        del client
        gc.collect()
        left = {type(each).__name__ for each in gc.garbage} & {"Answer", "Pieces", "WriteOut", "memoryview"}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert not left


def test_a_large_request_waits_for_room_and_meets_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_ROWS", 4)
    bench = PipelineBench()
    bench.pipeline.unsent = Unsent(bench.clock, 1000)
    other = bench.pipeline.unsent.claim(1000)
    other.hold()

    def ask(timeout: float | None) -> Asked:
        rows = number_rows(*range(10))
        options = Options("test", timeout=timeout)
        return Asked(answer_in_pieces(bench.pipeline, bench.model, bench.signature, [rows], options))

    late, patient, leaving = ask(3), ask(None), ask(60)
    bench.run()
    assert bench.session.batches == []
    passes(bench.clock, 4)
    assert isinstance(late.failure, Problem)
    assert (late.failure.status, late.failure.reason) == (504, "deadline")
    leaving.hang_up()
    other.release()
    for _ in range(20):
        bench.run()
        bench.clock.advance(0)
    assert patient.outcomes == ["computed"] * 10
    assert bench.pipeline.unsent.bytes == 0
    bench.clock.advance(1)
    assert bench.clock.getDelayedCalls() == []
