"""Sizes and durations as people write them. Any thread."""

from __future__ import annotations

import re

SIZES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
SIZES |= {"KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}
SIZES |= {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
DURATIONS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
NUMBER_AND_UNIT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")


class Bytes:
    """Sizes: "4GiB", "500 MB", "1048576"."""

    @staticmethod
    def parse(text: str) -> int:
        """The number of bytes. Raises ValueError."""
        found = NUMBER_AND_UNIT.fullmatch(text)
        if found is None or found[2].upper() not in SIZES:
            raise ValueError(f"{text!r} is not a size such as 4GiB or 500MB")
        return int(float(found[1]) * SIZES[found[2].upper()])

    @staticmethod
    def text(number: float) -> str:
        """The size for people: 1.5 GiB."""
        for unit in ("B", "KiB", "MiB", "GiB"):
            if number < 1024:
                return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
            number /= 1024
        return f"{number:.1f} TiB"


class Seconds:
    """Durations: "30d", "1.5 s", "20ms"."""

    @staticmethod
    def parse(text: str) -> float:
        """The number of seconds. Raises ValueError."""
        found = NUMBER_AND_UNIT.fullmatch(text)
        if found is None or found[2].lower() not in DURATIONS:
            raise ValueError(f"{text!r} is not a duration such as 30d, 12h or 20ms")
        return float(found[1]) * DURATIONS[found[2].lower()]
