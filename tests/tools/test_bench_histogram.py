"""Quantiles of latencies, and their picture."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowserve.tools.bench_histogram import Histogram
from rowserve.tools.bench_plot import latency_svg

SECONDS = st.floats(1e-6, 1e3)


def filled(latencies: list[float]) -> Histogram:
    histogram = Histogram()
    for seconds in latencies:
        histogram.add(seconds)
    return histogram


@given(st.lists(SECONDS, min_size=1), st.floats(0, 1))
def test_a_quantile_is_right_within_a_hundredth(latencies, share):
    exact = sorted(latencies)[max(1, math.ceil(share * len(latencies))) - 1]
    found = filled(latencies).quantile(share)
    assert exact * (1 - 1e-9) <= found <= exact * 1.0101


@given(st.lists(SECONDS, min_size=1), st.integers(1, 50))
def test_the_bars_hold_every_latency_once(latencies, width):
    bars = list(filled(latencies).bars(width))
    assert sum(count for _, _, count in bars) == len(latencies)
    assert all(end == begin for (_, end, _), (begin, _, _) in pairwise(bars))
    assert bars[0][0] <= min(latencies) * 1.0001
    assert bars[-1][1] >= max(latencies) * 0.9999


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e-9, 1e9])
def test_what_lies_outside_counts_too(seconds):
    histogram = filled([seconds])
    assert histogram.total == 1
    assert histogram.quantile(0.5) <= max(0.0, seconds)


def test_nothing_has_no_quantile():
    assert Histogram().quantile(0.5) == 0.0
    assert list(Histogram().bars()) == []


@given(st.lists(SECONDS))
def test_the_picture_is_well_formed_and_shows_each_bar(latencies):
    histogram = filled(latencies)
    picture = ET.fromstring(latency_svg(histogram, "a <title> & more"))
    bars = [each for each in picture.iter() if each.get("fill") == "#4878a8"]
    assert len(bars) == len(list(histogram.bars()))
    assert all(float(each.get("height", "-1")) >= 0 for each in bars)
    assert "a <title> & more" in {each.text for each in picture.iter()}
