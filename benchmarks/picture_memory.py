"""What decoding a large flat picture takes at its peak, by format: bytes a pixel above the process before, and after;
and as how much it counts in `limits.decoding`.

Each picture is decoded in a process of its own. VmHWM is the kernel's own record of the peak; writing 5 to
/proc/self/clear_refs sets it back (proc(5)).
"""

from __future__ import annotations

import gc
import io
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.table import Figure, emit

SIDE, QUICK_SIDE = 7000, 3000
ROW = (224, 224, 3)
MIB = 1 << 20
# EXIF that says: orientation 6.
SIDEWAYS = bytes.fromhex("457869660000 4d4d002a00000008 0001 0112 0003 00000001 00060000 00000000")
STRIPS = 4 << 20  # bytes that a picture takes for its strips, and for its row, however large it is
# How each is saved, and what it may take beside STRIPS, in bytes a pixel; None where nothing is promised.
FORMATS: dict[str, tuple[str, dict[str, Any], float | None]] = {
    "PNG, RGB": ("RGB", {"format": "PNG", "compress_level": 1}, 4.0),
    "PNG, RGBA": ("RGBA", {"format": "PNG", "compress_level": 1}, 4.0),
    "PNG, grey and alpha": ("LA", {"format": "PNG", "compress_level": 1}, 4.0),
    "PNG, palette": ("P", {"format": "PNG", "compress_level": 1}, 4.0),
    "PNG, grey": ("L", {"format": "PNG", "compress_level": 1}, 4.0),
    "PNG, grey of 16 bits": ("I;16", {"format": "PNG", "compress_level": 1}, 4.0),
    "PNG, RGB, on its side": ("RGB", {"format": "PNG", "compress_level": 1, "exif": SIDEWAYS}, 4.0),
    "JPEG": ("RGB", {"format": "JPEG"}, 4.0),
    "JPEG, CMYK": ("CMYK", {"format": "JPEG"}, 4.0),
    "JPEG, progressive, 4:2:0": ("RGB", {"format": "JPEG", "progressive": True, "subsampling": 2}, 4.0),
    "JPEG, progressive, 4:4:4": ("RGB", {"format": "JPEG", "progressive": True, "subsampling": 0}, None),
    "JPEG, progressive, CMYK": ("CMYK", {"format": "JPEG", "progressive": True, "subsampling": 0}, None),
    "GIF": ("P", {"format": "GIF"}, 4.0),
    "BMP, RGB": ("RGB", {"format": "BMP"}, 4.0),
    "BMP, palette": ("P", {"format": "BMP"}, 4.0),
    "WebP": ("RGB", {"format": "WEBP", "method": 0}, None),
    "WebP, RGBA": ("RGBA", {"format": "WEBP", "method": 0}, None),
    "WebP, lossless": ("RGBA", {"format": "WEBP", "method": 0, "lossless": True, "quality": 0}, None),
}


def figures(quick: bool) -> Iterator[Figure]:
    """One a format."""
    side = QUICK_SIDE if quick else SIDE
    with tempfile.TemporaryDirectory() as folder:
        for name, (mode, how, wanted) in FORMATS.items():
            small, large = Path(folder, "small"), Path(folder, "large")
            small.write_bytes(picture(64, mode, how))
            large.write_bytes(picture(side, mode, how))
            command = [sys.executable, "-m", "benchmarks.picture_memory", str(small), str(large)]
            told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            pixels = side * side
            what = f"decoding a flat {name} of {pixels / 1e6:.0f} Mpixel: peak"
            peak, after, counted = (max(told[name], 0) / MIB for name in ("peak", "after", "counted"))
            detail = f"{peak:,.0f} MiB at the peak, {after:,.0f} MiB afterwards; counted as {counted:,.0f} MiB"
            yield Figure(what, told["peak"] / pixels, " B a pixel", wanted and wanted + STRIPS / pixels, detail)


def picture(side: int, mode: str, how: dict[str, Any]) -> bytes:
    """A file."""
    from PIL import Image

    made = io.BytesIO()
    colour: Any = (90, 120, 30, 128)[: len(mode)] if mode in ("LA", "RGB", "RGBA", "CMYK") else 1
    Image.new(mode, (side, side), colour).save(made, **how)
    return made.getvalue()


def decoded(small: Path, large: Path) -> dict[str, int]:
    """In the child: what the large one takes, in bytes. The small one comes first, so that all is imported."""
    from rowserve.graphs.signature import Signature, TensorSpec
    from rowserve.handlers.picture_settings import PictureCard
    from rowserve.handlers.pictures import picture_decoders
    from rowserve.tools.allocator import keep_freed_memory

    spec = TensorSpec("images", "uint8", ROW)
    decoder: Any = picture_decoders(PictureCard(), {"": Signature("", (spec,), ())}, 50_000_000)[""]
    keep_freed_memory()
    on_a_thread(lambda: decoder.decode(small.read_bytes()))
    upload = large.read_bytes()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = status("VmRSS")
    on_a_thread(lambda: decoder.decode(upload))
    peak = status("VmHWM")
    gc.collect()
    return {"peak": peak - before, "after": status("VmRSS") - before, "counted": decoder.peak_bytes(upload)}


def on_a_thread(call: Callable[[], object]) -> None:
    """As the server decodes: memory freed by threads does not go back as that of the main one does."""
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


def status(name: str) -> int:
    """A line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    if sys.argv[1:2] and not sys.argv[1].startswith("--"):
        print(json.dumps(decoded(*map(Path, sys.argv[1:]))))
    else:
        emit(figures)
