"""The server around the graph, on the reactor thread: settings, assembly, pipeline, batcher, site, metrics.

`batcher` and `pipeline` hand work to the graph thread, the cache writer thread and the decode pool, and say
so in their first line. It may import `handlers`, `cache` and `graphs`, never `tools`, and never the global
reactor: reactors, clocks and threads are handed in.
"""
