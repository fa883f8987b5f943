"""The picture of the cases that have rivals or a limit: bars, a panel each, as SVG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from benchmarks.side_by_side.result import Result
from benchmarks.table import number

WIDTH, NAMES, FIGURES = 760, 190, 110
BAR, GAP, HEAD = 16, 4, 34
OURS, RIVAL, LIMIT = "#2f6db0", "#b9bec5", "#ffffff"
FONT = 'font-family="sans-serif" font-size="12"'


def bars_svg(results: Sequence[Result], told: str) -> str:
    """A panel for each case, its longest bar as long as there is room."""
    lines, y = [], 30
    for result in results:
        panel = list(panel_of(result, y))
        lines += panel
        y += HEAD + len(result.values) * (BAR + GAP)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 10}" {FONT}>',
            f'<rect width="{WIDTH}" height="{y + 10}" fill="#ffffff"/>',
            f'<text x="10" y="18" fill="#555">{escape(told)}</text>',
            *lines,
            "</svg>\n",
        ]
    )


def panel_of(result: Result, top: int) -> Iterator[str]:
    """Its title, and a bar for each side."""
    better = "less is better" if result.low else "more is better"
    yield f'<text x="10" y="{top + 20}" font-weight="bold">{escape(result.title)} ({result.unit}, {better})</text>'
    room = WIDTH - NAMES - FIGURES
    most = max(result.values.values())
    for index, name in enumerate([*result.ours, *result.rivals, *result.limits]):
        value = result.values[name]
        y = top + HEAD - 6 + index * (BAR + GAP)
        colour = OURS if name in result.ours else LIMIT if name in result.limits else RIVAL
        long = max(1.0, value / most * room)
        yield f'<text x="{NAMES - 8}" y="{y + 12}" text-anchor="end">{escape(name)}</text>'
        yield (
            f'<rect x="{NAMES}" y="{y}" width="{long:.1f}" height="{BAR}" fill="{colour}" stroke="#666" '
            'stroke-width="0.5"/>'
        )
        yield f'<text x="{NAMES + long + 6:.1f}" y="{y + 12}">{number(value)}</text>'
