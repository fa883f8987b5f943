"""What a row's last bits hang on besides the model, told without any engine: versions, threads and the CPU.

Pure but for reading /proc and the environment; any thread.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

TENSORFLOW, OPENVINO = "tensorflow", "openvino"
# The instruction sets that kernels are chosen by; the rest of the flags changes with every kernel update.
SIMD = ("sse", "ssse", "avx", "fma", "f16c", "amx", "asimd", "sve", "bf16", "i8mm", "neon")
# What else selects kernels or arithmetic.
SWITCHES = ("DNNL_", "ONEDNN_", "TF_ENABLE_ONEDNN", "TF_ONEDNN", "TF_XLA_FLAGS", "XLA_FLAGS")


def engine_version(engine: str) -> str:
    """The installed version, read from its metadata."""
    for distribution in (engine, f"{engine}-cpu", f"{engine}_cpu"):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return "none"


def schedulable_cores() -> int:
    """The cores this process may run on, which is what TensorFlow takes unless told."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def cpu() -> str:
    """The processor's name and its vector instruction sets."""
    fields: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            fields.setdefault(name.strip().lower(), value.strip())
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    flags = fields.get("flags") or fields.get("features", "")
    vector = sorted(flag for flag in flags.split() if flag.startswith(SIMD))
    return " ".join([platform.machine(), fields.get("model name", ""), *vector])


def switches() -> str:
    """The environment variables that choose kernels or arithmetic. oneDNN is on unless told otherwise."""
    found = {name: value for name, value in os.environ.items() if name.startswith(SWITCHES)}
    found.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    return " ".join(f"{name}={value}" for name, value in sorted(found.items()))


def exact_facts(engine: str, op_threads: int) -> dict[str, str]:
    """All that a row's bytes hang on in exact mode, but for what the load itself decides (sizes, frozen or
    not).
    """
    return {
        engine: engine_version(engine),
        "switches": switches(),
        "op_threads": str(op_threads),
        "cpu": cpu(),
    }


def sizes_setting(signature: str) -> str:
    """The setting that names exact mode's sizes of a signature."""
    return f"sizes of {signature}"


def execution(
    *,
    engine: str = TENSORFLOW,
    precision: str = "",
    exact: bool,
    op_threads: int,
    loader: str,
    frozen: bool,
    sizes: Mapping[str, tuple[int, ...]],
) -> dict[str, str]:
    """The execution settings that belong into every key of a model's rows; `sizes` are exact mode's."""
    settings = {"engine": engine, "precision": precision or "as saved"}
    if engine != TENSORFLOW:
        # Each version converts a graph in its own way.
        settings["version"] = engine_version(engine)
    if exact:
        settings |= {"mode": "exact", "graph": f"{loader}, {'frozen' if frozen else 'not frozen'}"}
        settings |= exact_facts(engine, op_threads)
        for signature, allowed in sizes.items():
            settings[sizes_setting(signature)] = " ".join(map(str, allowed))
    return settings
