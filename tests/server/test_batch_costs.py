from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rowserve.graphs.batch_sizes import batch_size, batch_sizes
from rowserve.server.batch_costs import LOOK_AGAIN, BatchCosts

INF = float("inf")


def known(costs: dict[int, float], most: int) -> BatchCosts:
    batch_costs = BatchCosts(most)
    for size, seconds in costs.items():
        batch_costs.learn(size, seconds)
    return batch_costs


def linear(most: int, fixed: float = 1.0, a_row: float = 0.1) -> dict[int, float]:
    return {size: fixed + a_row * size for size in batch_sizes(most)}


def test_while_nothing_is_known_all_that_waits_runs():
    assert [BatchCosts(32).choose(waiting) for waiting in (1, 5, 9, 33, 500)] == [1, 5, 8, 32, 32]


def test_a_large_batch_that_costs_more_than_two_halves_is_not_run():
    costs = known({**linear(32), 32: 10.0}, 32)  # 16 and 16 take 5.2
    first = costs.choose(32)
    assert first < 32
    assert costs.seconds[first] + costs.seconds[batch_size(32 - first, 32)] < 9.0
    assert costs.choose(4096) < 32


def test_a_small_difference_is_no_reason():
    assert known({**linear(32), 32: 5.3}, 32).choose(32) == 32


def test_what_the_plain_rule_costs_stays_known():
    costs = known({**linear(32), 32: 10.0}, 32)
    assert [costs.choose(32) for _ in range(2 * LOOK_AGAIN)].count(32) == 2


def test_a_quick_run_is_believed_at_once_and_a_slow_one_bit_by_bit():
    costs = known({4: 1.0}, 32)
    costs.learn(4, 9.0)
    assert costs.seconds[4] == 2.0
    costs.learn(4, 0.5)
    assert costs.seconds[4] == 0.5


@given(st.data())
def test_it_is_never_worse_than_the_plain_rule(data):
    """Rows that all wait are all done no later, whatever the batches cost."""
    most = data.draw(st.integers(1, 48))
    sizes = batch_sizes(most)
    seconds = dict(
        zip(sizes, data.draw(st.lists(st.floats(0.01, 10), min_size=len(sizes), max_size=len(sizes))), strict=True)
    )
    waiting = left = data.draw(st.integers(1, 200))
    costs, spent, plain = known(seconds, most), 0.0, 0.0
    while left:
        size = costs.choose(left)
        assert 1 <= size <= min(left, most)
        spent += seconds[size]
        left -= size
    while waiting:
        plain += seconds[batch_size(waiting, most)]
        waiting -= batch_size(waiting, most)
    assert spent <= plain * (1 + 1e-9)


def test_a_batch_shrinks_to_meet_a_deadline():
    costs = known(linear(32), 32)  # 32 rows take 4.2, 16 take 2.6
    assert costs.in_time(32, [102.7, *[INF] * 31], 100.0) == 16
    assert costs.in_time(32, [104.3, *[INF] * 31], 100.0) == 32
    assert costs.in_time(32, [INF] * 32, 100.0) == 32
    assert costs.in_time(32, [], 100.0) == 32


def test_but_not_so_far_that_the_row_is_left_out_nor_for_one_that_is_late_anyway():
    costs = known(linear(32), 32)
    assert costs.in_time(32, [*[INF] * 20, 102.7, *[INF] * 11], 100.0) == 32
    assert costs.in_time(32, [100.5, *[INF] * 31], 100.0) == 32
    assert BatchCosts(32).in_time(32, [100.5], 100.0) == 32
