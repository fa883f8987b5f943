"""Our counts under the names that dashboards of other servers ask for, in Prometheus' text form. Reactor thread.

They are read out of the very counts behind `/metrics`, at a scrape. All that they count is rows, and a time is the sum
of what each of its rows took.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from rowserve.server.open_inference_catalog import figures

if TYPE_CHECKING:
    from rowserve.handlers.open_inference_statistics import ModelFigures
    from rowserve.server.metrics import Metrics
    from rowserve.server.models import Models

Read = Callable[["ModelFigures"], float]
Labels = Callable[["ModelFigures"], Mapping[str, str]]


def microseconds(seconds: float) -> int:
    """As all of these servers count time."""
    return round(seconds * 1e6)


def triton_labels(model: ModelFigures) -> dict[str, str]:
    """As Triton names a model."""
    return {"model": model.name, "version": str(model.version)}


def torchserve_labels(model: ModelFigures) -> dict[str, str]:
    """As TorchServe names a model."""
    return {"model_name": model.name, "model_version": str(model.version), "hostname": socket.gethostname()}


def serving_labels(status: str = "") -> Labels:
    """As TensorFlow Serving names a model, with how it answered."""
    return lambda model: {
        "model_name": model.name,
        "version": str(model.version),
        **({"status": status} if status else {}),
    }


# By profile: the name, the labels, and what is read.
NAMES: dict[str, Sequence[tuple[str, Labels, Read]]] = {
    "triton": [
        ("nv_inference_request_success", triton_labels, lambda m: m.success.rows),
        ("nv_inference_request_failure", triton_labels, lambda m: m.fail.rows),
        ("nv_inference_count", triton_labels, lambda m: m.graph.rows),
        ("nv_inference_exec_count", triton_labels, lambda m: sum(size.rows for size in m.sizes.values())),
        ("nv_inference_request_duration_us", triton_labels, lambda m: microseconds(m.success.seconds)),
        ("nv_inference_queue_duration_us", triton_labels, lambda m: microseconds(m.queue.seconds)),
        ("nv_inference_compute_infer_duration_us", triton_labels, lambda m: microseconds(m.graph.seconds)),
        ("nv_cache_num_hits_per_model", triton_labels, lambda m: m.hits.rows),
        ("nv_cache_num_misses_per_model", triton_labels, lambda m: m.misses.rows),
        ("nv_cache_hit_duration_per_model", triton_labels, lambda m: microseconds(m.hits.seconds)),
        ("nv_cache_miss_duration_per_model", triton_labels, lambda m: microseconds(m.misses.seconds)),
    ],
    "tensorflow-serving": [
        (":tensorflow:serving:request_count", serving_labels("OK"), lambda m: m.success.rows),
        (":tensorflow:serving:request_count", serving_labels("ERROR"), lambda m: m.fail.rows),
        (":tensorflow:serving:request_example_count_total", serving_labels(), lambda m: m.success.rows + m.fail.rows),
    ],
    "torchserve": [
        ("ts_inference_requests_total", torchserve_labels, lambda m: m.success.rows + m.fail.rows),
        ("ts_inference_latency_microseconds", torchserve_labels, lambda m: microseconds(m.success.seconds)),
        ("ts_queue_latency_microseconds", torchserve_labels, lambda m: microseconds(m.queue.seconds)),
    ],
}


def exposition(profile: str, models: Models, metrics: Metrics) -> bytes:
    """The profile's figures, and ours behind them."""
    read = figures(models, metrics)
    lines: list[str] = []
    for name, labels, value in NAMES[profile]:
        kind = f"# TYPE {name} counter"
        if kind not in lines:
            lines.append(kind)
        for model in read:
            told = ",".join(f'{label}="{text}"' for label, text in labels(model).items())
            lines.append(f"{name}{{{told}}} {value(model)}")
    return "".join(f"{line}\n" for line in lines).encode() + metrics.exposition()
