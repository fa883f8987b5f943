from __future__ import annotations

from rowserve.graphs.errors import one_line


def test_an_error_is_one_readable_line():
    raw = "indices[0,0] = 43 is not\n in [0, 3)\n\t [[{{node Gather}}]]\n\nOriginal stack trace for 'Gather':\n  File x"
    assert one_line(raw) == "indices[0,0] = 43 is not in [0, 3)"
    eager = (
        "Graph execution error:\n\nDetected at node x defined at (most recent call last):\n<stack traces unavailable>\n"
    )
    assert one_line(eager + raw) == "indices[0,0] = 43 is not in [0, 3)"
    assert one_line(ValueError()) == "ValueError"
    assert len(one_line("x" * 10_000)) == 300
