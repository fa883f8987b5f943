"""A model's statistics in the form of the Open Inference Protocol's extension: every count is of rows.

Pure values, safe on any thread. A duration is the sum of what each of its rows took, so that ns / count is what one row
did; durations that are not measured stay 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """So many rows, and the seconds that they took together."""

    rows: int = 0
    seconds: float = 0.0

    def duration(self) -> dict[str, int]:
        """A StatisticDuration."""
        return {"count": self.rows, "ns": round(self.seconds * 1e9)}


NOTHING = Figure().duration()


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """What one version of a model has done since it was loaded.

    `success` holds all rows that were answered, `hits` those of them that were in the cache, `misses` all that were
    not. `queue` and `graph` hold the rows that ran, `sizes` the batches by their size: how many, and their seconds.
    `last` is when a batch ran, in seconds since 1970.
    """

    name: str
    version: int
    success: Figure = field(default_factory=Figure)
    fail: Figure = field(default_factory=Figure)
    hits: Figure = field(default_factory=Figure)
    misses: Figure = field(default_factory=Figure)
    queue: Figure = field(default_factory=Figure)
    graph: Figure = field(default_factory=Figure)
    sizes: Mapping[int, Figure] = field(default_factory=dict)
    last: float = 0.0


def statistics_document(models: Sequence[ModelFigures]) -> dict[str, Any]:
    """A ModelStatisticsResponse."""
    return {"model_stats": [model_statistics(model) for model in models]}


def model_statistics(model: ModelFigures) -> dict[str, Any]:
    """ModelStatistics. `inference_count` holds the rows that ran, `execution_count` the batches."""
    return {
        "name": model.name,
        "version": str(model.version),
        "last_inference": round(model.last * 1000),
        "inference_count": model.graph.rows,
        "execution_count": sum(size.rows for size in model.sizes.values()),
        "inference_stats": {
            "success": model.success.duration(),
            "fail": model.fail.duration(),
            "queue": model.queue.duration(),
            "compute_input": NOTHING,
            "compute_infer": model.graph.duration(),
            "compute_output": NOTHING,
            "cache_hit": model.hits.duration(),
            "cache_miss": model.misses.duration(),
        },
        "response_stats": {},
        "batch_stats": [
            {
                "batch_size": size,
                "compute_input": NOTHING,
                "compute_infer": figure.duration(),
                "compute_output": NOTHING,
            }
            for size, figure in sorted(model.sizes.items())
        ],
        "memory_usage": [],
    }
