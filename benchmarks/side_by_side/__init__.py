"""rowserve and its rivals under the same load, in turns; `python -m benchmarks side_by_side --help`."""
