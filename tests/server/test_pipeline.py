from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError

from rowserve.cache import admin, layout
from rowserve.cache.keys import Generation
from rowserve.cache.row_cache import RowCache
from rowserve.graphs.errors import CannotLoad, GraphFailed, RowBroken
from rowserve.graphs.rows import Rows
from rowserve.graphs.signature import TensorSpec
from rowserve.handlers.items import Picture, Priority
from rowserve.handlers.problem import Problem
from rowserve.server.decoding import LARGE
from rowserve.server.faults import problem_of
from tests.doubles import BROKEN, arithmetic_signature, number_rows
from tests.server.conftest import PipelineBench, new_store, outcomes


class NumberPicture:
    """Decodes b"7" to the row of 7. Counts its decodes."""

    def __init__(self, identity: bytes = b"v1") -> None:
        self.identity = identity
        self.decodes = 0

    def peak_bytes(self, upload: Any) -> int:
        return len(upload)

    def decode(self, upload: Any) -> Rows:
        self.decodes += 1
        try:
            return number_rows(float(bytes(upload)))
        except ValueError:
            raise Problem(422, "not a picture", reason="undecodable") from None


def test_of_32_rows_24_cached_the_graph_runs_exactly_the_other_8():
    bench, plain = PipelineBench(), PipelineBench(cache=RowCache(start_thread=lambda run: None))
    bench.answer(number_rows(*range(24)))
    bench.session.seen.clear()
    order = [*range(24, 28), *range(12), *range(28, 32), *range(12, 24)]
    asked = bench.answer(number_rows(*order))
    assert sorted(row[0] for row in bench.session.seen) == list(range(24, 32))
    assert outcomes([asked]) == {"hit": 24, "computed": 8}
    uncached = plain.answer(number_rows(*order))
    assert outcomes([uncached]) == {"computed": 32}
    assert asked.answer is not None
    assert uncached.answer is not None
    for name, array in uncached.answer.stacked().items():
        assert np.array_equal(asked.answer.stacked()[name], array)
        assert np.array_equal(asked.answer.stacked([name])[name], array)


def test_one_door_may_ask_for_one_output_and_another_for_both(bench):
    first = bench.answer(number_rows(1, 2))
    second = bench.answer(number_rows(1, 2))
    assert first.answer is not None
    assert second.answer is not None
    assert list(first.answer.row(0, ["sum"])) == ["sum"]
    assert sorted(second.answer.row(1)) == ["double", "sum"]
    assert bench.session.batches == [2]
    assert second.outcomes == ["hit", "hit"]


def test_a_request_of_hits_is_answered_at_once_without_a_deferred(bench):
    bench.answer(number_rows(1, 2))
    asked = bench.ask(number_rows(2, 1))
    assert asked.at_once
    assert asked.doubles == [4.0, 2.0]
    assert not bench.graph.inbox
    assert bench.counts == {"asked": 4, "computed": 2, "hit": 2}


def test_batches_are_measured(bench):
    bench.ask(number_rows(0))
    bench.ask(number_rows(1, 2))
    bench.clock.advance(0.25)
    bench.run()
    told = bench.metrics.exposition().decode()
    for line in (
        "rowserve_batch_rows_count 2.0",
        "rowserve_batch_rows_sum 3.0",
        "rowserve_graph_seconds_sum 0.25",
        "rowserve_queue_seconds_sum 0.25",
    ):
        assert line in told


def test_200_clients_with_one_new_row_cost_one_computation(bench):
    bench.ask(number_rows(0))
    asked = [bench.ask(number_rows(7)) for _ in range(200)]
    bench.run()
    assert outcomes(asked) == {"computed": 1, "collapsed": 199}
    assert bench.session.seen.count([7.0] * 4) == 1
    late = bench.ask(number_rows(7))
    assert late.outcomes == ["hit"]


def test_when_199_hang_up_the_last_still_gets_its_answer(bench):
    bench.ask(number_rows(0))
    asked = [bench.ask(number_rows(7)) for _ in range(200)]
    for one in asked[:-1]:
        one.hang_up()
    bench.run()
    assert asked[-1].doubles == [14.0]
    assert asked[-1].outcomes == ["computed"]
    assert all(isinstance(one.failure, CancelledError) for one in asked[:-1])
    assert bench.counts == {"asked": 201, "computed": 2, "failed": 199}
    assert bench.reasons() == {"cancelled": 199}


def test_when_all_hang_up_while_the_row_is_queued_the_graph_never_sees_it(bench):
    bench.ask(number_rows(0))
    asked = [bench.ask(number_rows(7)) for _ in range(200)]
    for one in asked:
        one.hang_up()
    bench.run()
    assert bench.session.seen == [[0.0] * 4]
    assert bench.counts == {"asked": 201, "computed": 1, "failed": 200}


def test_twins_inside_one_request_run_once(bench):
    asked = bench.answer(number_rows(3, 3, 4, 3))
    assert asked.doubles == [6.0, 6.0, 8.0, 6.0]
    assert outcomes([asked]) == {"computed": 2, "collapsed": 2}
    assert sum(bench.session.batches) == 2


def test_rows_come_back_in_the_order_of_the_request_whatever_they_are(bench):
    decoder = NumberPicture()
    bench.answer(number_rows(2), Picture(b"4", decoder))
    fault = Problem(422, "no part", reason="empty")
    asked = bench.answer(number_rows(1, 2), Picture(b"3", decoder), fault, Picture(b"4", decoder), number_rows(5))
    assert asked.answer is not None
    assert asked.outcomes == ["computed", "hit", "computed", "failed", "hit", "computed"]
    assert asked.answer.errors == {3: fault}
    assert [asked.answer.row(at)["double"][0] for at in (0, 1, 2, 4, 5)] == [2.0, 4.0, 6.0, 8.0, 10.0]
    with pytest.raises(Problem, match="no part"):
        asked.answer.row(3)


def test_one_bad_row_in_64_leaves_63_answers():
    bench = PipelineBench(max_rows=64)
    asked = bench.answer(number_rows(*range(40), BROKEN, *range(100, 123)))
    assert asked.answer is not None
    assert outcomes([asked]) == {"computed": 63, "failed": 1}
    assert asked.answer.errors[40].status == 422
    assert bench.reasons() == {"refused_by_model": 1}
    again = bench.answer(number_rows(*range(40), BROKEN, *range(100, 123)))
    assert outcomes([again]) == {"hit": 63, "failed": 1}


def test_a_failed_row_is_never_kept(bench):
    bench.graph.failure = MemoryError("none left")
    asked = bench.answer(number_rows(1))
    assert asked.answer is not None
    assert asked.answer.errors[0].status == 500
    bench.graph.failure = None
    assert bench.answer(number_rows(1)).outcomes == ["computed"]


def test_who_hangs_up_while_a_batch_is_handed_out_harms_nobody(bench):
    bench.ask(number_rows(0))
    asked = [bench.ask(number_rows(7)) for _ in range(3)]
    assert asked[0].deferred is not None
    asked[0].deferred.addCallback(lambda _: asked[1].hang_up())
    bench.run()
    assert isinstance(asked[1].failure, CancelledError)
    assert asked[2].doubles == [14.0]
    assert bench.counts == {"asked": 4, "computed": 2, "collapsed": 1, "failed": 1}


def test_who_hangs_up_while_a_failed_batch_is_handed_out_is_counted_once(bench):
    bench.ask(number_rows(0))
    asked = [bench.ask(number_rows(BROKEN)) for _ in range(2)]
    assert asked[0].deferred is not None
    asked[0].deferred.addCallback(lambda _: asked[1].hang_up())
    bench.run()
    assert isinstance(asked[1].failure, CancelledError)
    assert bench.counts == {"asked": 3, "computed": 1, "failed": 2}


def test_where_the_time_went(bench):
    ticks = iter((10.0, 10.5, 20.0, 20.25))
    bench.pipeline.monotonic = lambda: next(ticks)
    bench.ask(number_rows(0))
    asked = bench.ask(number_rows(1), Picture(b"2", NumberPicture()), Picture(b"3", NumberPicture()))
    bench.pool.step_all()
    bench.clock.advance(2.0)
    bench.graph.step()
    bench.clock.advance(3.0)
    bench.graph.step()
    assert asked.answer is not None
    timing = asked.answer.timing
    assert (timing.decode, timing.queue, timing.graph) == (0.75, 2.0, 3.0)


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (RowBroken("too large"), 422, "refused this row: too large"),
        (CannotLoad("models/x: gone"), 503, "models/x: gone"),
        (GraphFailed("no memory"), 500, "no memory"),
        (ZeroDivisionError("secret"), 500, "its log says why"),
        (Problem(413, "too many pixels"), 413, "too many pixels"),
    ],
)
def test_a_rows_fault_in_the_words_of_its_answer(error, status, says):
    problem = problem_of(error)
    assert problem.status == status
    assert says in problem.detail
    assert "secret" not in problem.detail


def test_a_graph_that_answers_too_few_rows_is_not_believed(bench):
    def short(signature: str, rows: Rows) -> Any:
        whole = type(bench.session).run(bench.session, signature, rows)
        return {name: array[:-1] for name, array in whole.items()}

    bench.session.run = short
    asked = bench.answer(number_rows(1, 2))
    assert asked.outcomes == ["failed", "failed"]


# Pictures


def test_a_repeated_upload_decodes_nothing(bench):
    decoder = NumberPicture()
    assert bench.answer(Picture(b"7", decoder)).outcomes == ["computed"]
    again = bench.ask(Picture(b"7", decoder))
    assert again.at_once
    assert again.outcomes == ["hit"]
    assert decoder.decodes == 1


def test_other_settings_or_another_version_of_the_code_decode_anew(bench):
    bench.answer(Picture(b"7", NumberPicture()))
    other = NumberPicture(b"v2")
    assert bench.answer(Picture(b"7", other)).outcomes == ["hit"]
    assert other.decodes == 1


def test_two_encodings_and_a_tensor_of_the_same_pixels_meet_at_the_row(bench):
    assert bench.answer(Picture(b"7", NumberPicture())).outcomes == ["computed"]
    assert bench.answer(Picture(b"7.0", NumberPicture())).outcomes == ["hit"]
    assert bench.ask(number_rows(7)).outcomes == ["hit"]
    assert bench.session.batches == [1]


def test_a_large_upload_is_hashed_on_the_pool_and_still_decoded_once(bench):
    decoder = NumberPicture()
    upload = b"7" + b" " * LARGE
    assert bench.answer(Picture(upload, decoder)).outcomes == ["computed"]
    again = bench.ask(Picture(upload, decoder))
    assert not again.at_once
    bench.pool.step()
    assert again.outcomes == ["hit"]
    assert decoder.decodes == 1


def test_many_uploads_are_hashed_on_the_reactor_only_up_to_a_bound(bench):
    decoder = NumberPicture()
    uploads = [Picture(b"%d" % n + b" " * (LARGE // 2), decoder) for n in range(5)]
    bench.answer(*uploads)
    again = bench.ask(*uploads)
    assert len(bench.pool.calls) == 4
    bench.pool.step_all()
    assert again.outcomes == ["hit"] * 5
    assert decoder.decodes == 5


def test_an_upload_that_does_not_decode_fails_alone(bench):
    asked = bench.answer(Picture(b"x", NumberPicture()), Picture(b"1", NumberPicture()))
    assert asked.outcomes == ["failed", "computed"]
    assert bench.reasons() == {"undecodable": 1}


def test_a_bug_in_a_decoder_is_a_500_of_that_row_and_is_logged(bench, caplog):
    class Buggy(NumberPicture):
        def decode(self, upload: Any) -> Rows:
            raise ZeroDivisionError("oh")

    asked = bench.answer(Picture(b"1", Buggy()))
    assert asked.answer is not None
    assert asked.answer.errors[0].status == 500
    assert "oh" not in asked.answer.errors[0].detail
    assert "ZeroDivisionError" in caplog.text


def test_decoding_runs_no_further_ahead_than_two_batches():
    bench = PipelineBench(max_rows=2)
    asked = bench.ask(*[Picture(str(n).encode(), NumberPicture()) for n in range(20)])
    assert len(bench.pool.calls) == 4
    bench.run()
    assert asked.doubles == [2.0 * n for n in range(20)]


def test_who_hung_up_has_no_more_pictures_decoded():
    bench = PipelineBench(max_rows=2)
    decoder = NumberPicture()
    bench.ask(*[Picture(str(n).encode(), decoder) for n in range(20)]).hang_up()
    bench.run()
    assert decoder.decodes == 0
    assert bench.session.batches == []
    assert bench.counts == {"asked": 20, "failed": 20}


# Cache-Control


def test_no_store_neither_reads_nor_keeps_nor_joins(bench):
    bench.answer(number_rows(1))
    asked = [bench.ask(number_rows(1, 2), no_store=True) for _ in range(2)]
    bench.run()
    assert outcomes(asked) == {"bypassed": 4}
    assert bench.session.seen.count([2.0] * 4) == 2
    assert bench.answer(number_rows(2)).outcomes == ["computed"]


def test_no_store_decodes_and_leaves_no_alias(bench):
    decoder = NumberPicture()
    for _ in range(2):
        assert bench.answer(Picture(b"7", decoder), no_store=True).outcomes == ["bypassed"]
    large = Picture(b"7" + b" " * LARGE, decoder)
    bench.answer(large)
    assert bench.answer(large, no_store=True).outcomes == ["bypassed"]
    assert decoder.decodes == 4


def test_no_cache_computes_anew_and_keeps(bench):
    bench.answer(number_rows(1))
    assert bench.answer(number_rows(1), no_cache=True).outcomes == ["computed"]
    assert bench.session.batches == [1, 1]
    assert bench.answer(number_rows(2), no_cache=True).outcomes == ["computed"]
    assert bench.ask(number_rows(2)).outcomes == ["hit"]


def test_no_cache_joins_a_queued_twin_but_not_a_running_one(bench):
    bench.ask(number_rows(7))
    fresh = [bench.ask(number_rows(7), no_cache=True) for _ in range(2)]
    bench.run()
    assert outcomes(fresh) == {"computed": 1, "collapsed": 1}
    assert sum(bench.session.batches) == 2


def test_only_if_cached_never_touches_the_graph(bench):
    bench.answer(number_rows(1))
    assert bench.ask(number_rows(1), only_if_cached=True).outcomes == ["hit"]
    missing = bench.ask(number_rows(1, 2), only_if_cached=True)
    assert isinstance(missing.failure, Problem)
    assert missing.failure.status == 504
    assert not bench.graph.inbox
    assert bench.counts["failed"] == 1


def test_only_if_cached_finds_a_picture_by_its_pixels(bench):
    bench.answer(number_rows(7))
    assert bench.answer(Picture(b"7", NumberPicture()), only_if_cached=True).outcomes == ["hit"]
    missing = bench.answer(Picture(b"8", NumberPicture()), only_if_cached=True)
    assert isinstance(missing.failure, Problem)
    assert missing.failure.status == 504
    assert bench.session.batches == [1]


def test_throw_away_rows_meet_their_own_kind_alone_and_are_forgotten_alone():
    threads: list[Any] = []
    wall = [1000.0]
    cache = RowCache(new_store(), clock=lambda: wall[0], start_thread=threads.append)
    bench = PipelineBench(cache=cache)
    bench.ask(number_rows(0))  # the graph is busy: the others wait together
    asked = [bench.ask(number_rows(7), throw_away=each) for each in (True, False, True)]
    bench.run()
    assert [one.outcomes for one in asked] == [["computed"], ["computed"], ["collapsed"]]
    assert bench.session.batches == [1, 1, 1]  # a batch keeps its rows in one generation
    assert bench.ask(number_rows(7), throw_away=True).at_once
    upload = Picture(b"8", NumberPicture())
    assert bench.answer(upload).outcomes == ["computed"]
    assert bench.answer(upload, throw_away=True).outcomes == ["computed"]
    assert bench.ask(upload, throw_away=True).at_once
    writer = threads[0].__self__
    for seconds in (0, 11, 0):
        wall[0] += seconds
        writer.step()
    assert bench.answer(number_rows(0, 7, 8)).outcomes == ["hit"] * 3
    assert bench.answer(number_rows(7), upload, throw_away=True).outcomes == ["computed"] * 2


def test_a_row_that_is_not_kept_takes_no_generation_from_those_in_its_batch():
    store = new_store()
    threads: list[Any] = []
    bench = PipelineBench(cache=RowCache(store, start_thread=threads.append))
    bench.ask(number_rows(0), no_store=True)
    asked = [bench.ask(number_rows(number), no_store=number == 1, throw_away=True) for number in (1, 2)]
    bench.run()
    assert [one.outcomes for one in asked] == [["bypassed"], ["computed"]]
    assert bench.session.batches == [1, 2]
    threads[0].__self__.step()
    assert admin.stat(store).generations == {layout.THROW_AWAY_TAG.hex(): 1}


def test_max_age_and_the_cards_ttl_bound_the_age_of_a_hit():
    bench = PipelineBench(ttl=100.0)
    bench.answer(number_rows(1))
    bench.write()
    bench.wall += 50
    assert bench.ask(number_rows(1), max_age=60).outcomes == ["hit"]
    assert bench.answer(number_rows(1), max_age=40).outcomes == ["computed"]
    bench.write()
    bench.wall += 101
    assert bench.answer(number_rows(1), max_age=500).outcomes == ["computed"]


def test_a_card_may_switch_the_cache_off():
    bench = PipelineBench(enabled=False)
    asked = [bench.answer(number_rows(1)) for _ in range(2)]
    assert outcomes(asked) == {"bypassed": 2}


# Signatures whose requests run alone


def test_an_alone_signature_runs_a_request_at_a_time_uncached():
    bench = PipelineBench(arithmetic_signature(alone="its answers change"))
    asked = [bench.ask(number_rows(1, 1)), bench.ask(number_rows(1, 1)), bench.ask(number_rows(1), number_rows(2))]
    bench.run()
    assert bench.session.batches == [2, 2, 1, 1]
    assert outcomes(asked) == {"bypassed": 4}
    assert asked[0].answer is not None
    assert asked[0].answer.stacked()["double"].tolist() == [[2.0] * 4] * 2
    assert asked[2].answer is not None
    assert asked[2].answer.row(1)["double"].tolist() == [4.0] * 4


def test_rows_with_other_static_inputs_share_neither_batch_nor_key():
    spec = TensorSpec("temperature", "float32", (), batched=False)
    plain = arithmetic_signature()
    bench = PipelineBench(replace(plain, inputs=(*plain.inputs, spec)))

    def rows(number: float, static: float) -> Rows:
        return Rows(number_rows(number).arrays, 1, {"temperature": np.array(static, np.float32)})

    bench.ask(rows(0, 0.5))
    asked = [bench.ask(rows(1, 0.5)), bench.ask(rows(1, 2.0)), bench.ask(rows(1, 0.5)), bench.ask(rows(2, 0.5))]
    bench.run()
    assert bench.session.batches == [1, 2, 1]
    assert outcomes(asked) == {"computed": 3, "collapsed": 1}


# Deadlines and bounds


def test_a_deadline_is_met_while_the_graph_is_busy(bench):
    asked = bench.ask(number_rows(1, 2), timeout=1.0)
    bench.clock.advance(0.9)
    assert asked.answer is None
    bench.clock.advance(0.1)
    assert asked.answer is not None
    assert [problem.status for problem in asked.answer.errors.values()] == [504, 504]
    bench.run()
    assert bench.counts == {"asked": 2, "failed": 2}
    assert bench.reasons() == {"deadline": 2}


def test_what_was_known_by_the_deadline_is_answered(bench):
    bench.answer(number_rows(1))
    asked = bench.ask(number_rows(1, 2), timeout=1.0)
    bench.clock.advance(1.0)
    assert asked.outcomes == ["hit", "failed"]


def test_a_late_row_is_kept_for_the_next_who_asks(bench):
    bench.ask(number_rows(1), timeout=1.0)
    bench.clock.advance(1.0)
    bench.run()
    assert bench.ask(number_rows(1)).outcomes == ["hit"]


def test_a_late_picture_is_not_decoded_any_more(bench):
    decoder = NumberPicture()
    asked = bench.ask(Picture(b"1", decoder), timeout=1.0)
    bench.clock.advance(1.0)
    bench.run()
    assert asked.outcomes == ["failed"]
    assert decoder.decodes == 0


def test_of_many_late_pictures_none_is_begun_any_more():
    bench = PipelineBench(max_rows=2)
    decoder = NumberPicture()
    asked = bench.ask(*[Picture(str(n).encode(), decoder) for n in range(20)], timeout=1.0)
    bench.clock.advance(1.0)
    assert asked.outcomes == ["failed"] * 20
    assert len(bench.pool.calls) == 4


def test_a_full_queue_is_said_at_once():
    bench = PipelineBench(queue_rows=4)
    bench.ask(number_rows(0))
    bench.ask(number_rows(1, 2, 3, 4))
    refused = bench.ask(number_rows(5))
    assert isinstance(refused.failure, Problem)
    assert (refused.failure.status, refused.failure.retry_after) == (503, 1)
    bench.run()
    assert bench.counts == {"asked": 6, "computed": 5, "failed": 1}
    assert bench.reasons() == {"queue_full": 1}


def test_pictures_are_refused_before_they_are_decoded():
    bench = PipelineBench(queue_rows=2)
    bench.ask(number_rows(0))
    decoder = NumberPicture()
    bench.ask(Picture(b"1", decoder), Picture(b"2", decoder))
    assert bench.ask(Picture(b"3", decoder)).failure is not None
    bench.run()
    assert decoder.decodes == 2


def test_a_request_larger_than_the_queue_is_answered_whole():
    bench = PipelineBench(queue_rows=4, max_rows=2)
    assert bench.answer(number_rows(*range(50))).doubles == [2.0 * n for n in range(50)]


def test_rows_that_wait_for_room_are_hits_when_somebody_else_had_them_computed_meanwhile():
    bench = PipelineBench(queue_rows=4, max_rows=2)
    asked = [bench.ask(number_rows(*range(20)), priority=Priority.BULK) for _ in range(3)]
    bench.run()
    assert all(one.doubles == [2.0 * n for n in range(20)] for one in asked)
    assert sorted(row[0] for row in bench.session.seen) == list(range(20))


def test_a_wait_for_room_looks_only_for_rows_that_may_have_run_and_a_batch_of_them_at_a_time():
    looked: list[int] = []

    class Watched(RowCache):
        def lookup(self, keys: Any, max_age: float | None = None) -> Any:
            looked.append(len(keys))
            return super().lookup(keys, max_age)

    bench = PipelineBench(cache=Watched(new_store(), start_thread=lambda run: None), queue_rows=8, max_rows=4)
    short = bench.ask(number_rows(*range(100)), priority=Priority.BULK)
    bench.run()
    assert short.doubles == [2.0 * n for n in range(100)]
    assert looked == [100]
    bench.ask(number_rows(1000), priority=Priority.BULK)
    asked = bench.ask(number_rows(*range(200, 400), 201, 1000), priority=Priority.BULK)
    bench.run()
    assert asked.doubles == [2.0 * n for n in [*range(200, 400), 201, 1000]]
    assert looked[1:3] == [1, 202]
    assert max(looked[3:]) == 4  # after so many batches, nobody remembers what has run
    assert sum(looked[3:]) < 200
    assert bench.session.seen.count([1000.0] * 4) == bench.session.seen.count([201.0] * 4) == 1


# The cache's troubles


class Full(RowCache):
    """A cache whose write queue has no room until told."""

    def __init__(self) -> None:
        super().__init__(new_store(), start_thread=lambda run: None)
        self.room = 0
        self.kept: list[int] = []
        self.calls: list[Callable[[], None]] = []

    def room_for(self, packed: Any) -> int:
        return min(len(packed), self.room)

    def when_room(self, call: Callable[[], None]) -> None:
        self.calls.append(call)

    def keep(self, keys: Any, packed: Any, generation: Any = None) -> int:
        self.kept.append(len(keys))
        return super().keep(keys, packed, generation) if self.room else 0


def test_an_interactive_answer_never_waits_for_the_cache():
    cache = Full()
    bench = PipelineBench(cache=cache)
    assert bench.answer(number_rows(1)).outcomes == ["computed"]
    assert cache.kept == [1]


def test_a_bulk_answer_waits_until_its_rows_are_taken():
    cache = Full()
    bench = PipelineBench(cache=cache)
    asked = bench.answer(number_rows(1, 2), priority=Priority.BULK)
    another = bench.answer(number_rows(3), priority=Priority.BULK)
    assert asked.answer is None
    assert cache.kept == []
    assert len(cache.calls) == 1
    cache.room = 100
    cache.calls.pop()()
    assert asked.outcomes == ["computed", "computed"]
    assert another.outcomes == ["computed"]
    assert sum(cache.kept) == 3
    cache.room = 0
    bench.answer(number_rows(4), priority=Priority.BULK)
    assert len(cache.calls) == 1


def test_what_bulk_has_computed_is_kept_as_far_as_there_is_room():
    cache = Full()
    bench = PipelineBench(cache=cache)
    cache.room = 2
    asked = bench.answer(number_rows(1, 2, 3, 4, 5), priority=Priority.BULK)
    assert (asked.answer, cache.kept) == (None, [2])
    cache.calls.pop()()
    assert (asked.answer, cache.kept) == (None, [2, 2])
    cache.calls.pop()()
    assert (asked.outcomes, cache.kept) == (["computed"] * 5, [2, 2, 1])
    assert bench.ask(number_rows(5, 1, 4, 2, 3)).outcomes == ["hit"] * 5


def test_a_bulk_client_that_goes_while_its_rows_wait_harms_nothing():
    cache = Full()
    bench = PipelineBench(cache=cache)
    asked = bench.answer(number_rows(1), priority=Priority.BULK)
    asked.hang_up()
    cache.room = 100
    for call in cache.calls:
        call()
    assert isinstance(asked.failure, CancelledError)
    assert bench.counts == {"asked": 1, "computed": 1}


def test_no_rows_are_an_answer_without_the_graph(bench):
    asked = bench.ask(number_rows())
    assert asked.answer is not None
    assert asked.answer.stacked()["double"].shape == (0, 4)
    assert bench.ask().answer is not None
    assert not bench.graph.inbox


POLICIES: list[dict[str, bool]] = [{}, {"no_store": True}, {"no_cache": True}]
requests = st.lists(
    st.one_of(st.integers(0, 9), st.just(int(BROKEN)), st.sampled_from([b"3", b"11", b"x"])), max_size=7
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), requests, st.sampled_from(POLICIES), st.booleans()),
        st.tuples(st.just("ask"), requests, st.just({"only_if_cached": True}), st.booleans()),
        st.tuples(st.just("hang up"), st.integers(0, 30)),
        st.tuples(st.just("decode")),
        st.tuples(st.just("run")),
        st.tuples(st.just("wait")),
    ),
    max_size=40,
)


@given(steps, st.integers(1, 4), st.integers(1, 8))
def test_rows_add_up_and_are_right_through_anything(schedule, max_rows, queue_rows):
    bench = PipelineBench(max_rows=max_rows, queue_rows=queue_rows)
    asked: list[Any] = []
    for step in schedule:
        if step[0] == "ask":
            decoder = NumberPicture()
            items = [Picture(n, decoder) if isinstance(n, bytes) else number_rows(n) for n in step[1]]
            priority = Priority.BULK if step[3] else Priority.INTERACTIVE
            asked.append((bench.ask(*items, priority=priority, timeout=5.0, **step[2]), step[1]))
        elif step[0] == "hang up" and step[1] < len(asked) and asked[step[1]][0].deferred:
            asked[step[1]][0].hang_up()
        elif step[0] == "decode" and bench.pool.calls:
            bench.pool.step()
        elif step[0] == "run" and bench.graph.inbox:
            bench.graph.step()
        elif step[0] == "wait":
            bench.clock.advance(2.0)
        assert bench.counts is not None  # and it checks that they add up
    bench.run()
    bench.clock.advance(10.0)
    assert "pending" not in bench.counts
    for one, numbers in asked:
        assert (one.answer is None) != (one.failure is None)
        for at, number in enumerate(numbers if one.answer else []):
            if at not in one.answer.errors:
                assert one.answer.row(at)["double"][0] == 2 * float(number)
    assert (bench.model.batcher.rows, bench.model.batcher._promises) == (0, {})


def test_all_uploads_of_a_request_are_looked_up_together(bench, monkeypatch):
    decoder = NumberPicture()
    cache, asked = bench.pipeline.cache, []
    real = cache.lookup_aliases

    def lookup_aliases(keys):
        asked.append(len(keys))
        return real(keys)

    monkeypatch.setattr(cache, "lookup_aliases", lookup_aliases)
    pictures = [Picture(bytes([number]), decoder) for number in (49, 50, 51)]
    bench.answer(*pictures)
    assert bench.ask(number_rows(9), *pictures) is not None
    assert asked == [3, 3]


def test_an_answer_says_why_rows_were_not_taken_from_the_cache(bench):
    row = number_rows(1)
    assert bench.answer(row).answer.forward == "miss"
    assert bench.answer(row, no_cache=True).answer.forward == "request"
    bench.write()
    bench.wall += 50
    assert bench.answer(row, max_age=40).answer.forward == "stale"
    assert bench.answer(number_rows(2), max_age=40).answer.forward == "miss"


def test_an_upload_is_hashed_once(bench, monkeypatch):
    hashed = []
    real = Generation.alias_key

    def alias_key(generation, upload, identity):
        hashed.append(bytes(upload))
        return real(generation, upload, identity)

    monkeypatch.setattr(Generation, "alias_key", alias_key)
    large = b"0" * LARGE + b"7"
    uploads = [b"1", large, b"2"]  # new, too large for the reactor, behind it
    for upload in uploads:
        bench.answer(Picture(upload, NumberPicture()))
    assert hashed == uploads
