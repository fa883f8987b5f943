"""What rowserve costs, measured against bare limits taken in the same run: `python -m benchmarks`."""
