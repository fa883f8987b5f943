"""Draws a latency histogram as SVG. Main thread."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape

from rowserve.tools.bench_histogram import Histogram

WIDTH, HEIGHT = 720, 320
LEFT, RIGHT, TOP, BOTTOM = 20, 20, 46, 44
FONT = 'font-family="sans-serif" font-size="12"'
MARKS = (("p50", 0.5), ("p99", 0.99))
TICKS = [digit * 10**power for power in range(-6, 4) for digit in (1, 2, 5)]


def latency_svg(histogram: Histogram, title: str) -> str:
    """A picture of it: latency on a logarithmic axis, the share of requests as bars, p50 and p99 marked."""
    bars = list(histogram.bars())
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {FONT}>',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
            f'<text x="{LEFT}" y="22" font-size="14">{escape(title)}</text>',
            *(drawn(histogram, bars) if bars else ["<!-- no answers -->"]),
            "</svg>\n",
        ]
    )


def drawn(histogram: Histogram, bars: list[tuple[float, float, int]]) -> Iterator[str]:
    """Bars, axis and marks."""
    low, high = math.log(bars[0][0]), math.log(bars[-1][1])
    floor = HEIGHT - BOTTOM
    tallest = max(count for _, _, count in bars)

    def x(seconds: float) -> float:
        return LEFT + (math.log(seconds) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    for begin, end, count in bars:
        tall = count / tallest * (floor - TOP)
        wide = max(0.5, x(end) - x(begin) - 0.5)
        yield f'<rect x="{x(begin):.1f}" y="{floor - tall:.1f}" width="{wide:.1f}" height="{tall:.1f}" fill="#4878a8"/>'
    yield f'<path d="M{LEFT} {floor}H{WIDTH - RIGHT}" stroke="#444"/>'
    for tick in TICKS:
        if bars[0][0] <= tick <= bars[-1][1]:
            yield f'<path d="M{x(tick):.1f} {floor}v4" stroke="#444"/>'
            yield f'<text x="{x(tick):.1f}" y="{floor + 17}" text-anchor="middle">{tick * 1e3:g}</text>'
    told = f"latency in ms, {histogram.total:,} requests"
    yield f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">{told}</text>'
    for row, (name, share) in enumerate(MARKS):
        at = histogram.quantile(share)
        place = min(max(x(at), LEFT), WIDTH - RIGHT)
        anchor = "end" if place > WIDTH / 2 else "start"
        yield f'<path d="M{place:.1f} {TOP - 8}V{floor}" stroke="#b03030" stroke-dasharray="3 3"/>'
        text = f"{name} {at * 1e3:.3g} ms"
        yield f'<text x="{place:.1f}" y="{TOP - 12 + 14 * row}" fill="#b03030" text-anchor="{anchor}">{text}</text>'
