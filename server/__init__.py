"""The server around the graph: settings, assembly, the row pipeline, the batcher, the HTTP site and its metrics.

Everything here runs on the reactor thread; `batcher` and `pipeline` hand work to the graph thread, the cache writer thread
and the decode pool, and say so in their first line. It may import `handlers`, `cache` and `graphs`, never `tools`, and
never the global reactor: reactors, clocks and threads are handed in.
"""
