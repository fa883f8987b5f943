"""The wire formats, free of transport, on the reactor thread or, for large bodies and pictures, the decode pool.

Bytes and headers in, items and options out; an answer in, status, headers and bytes out; one file a format. It may
import `graphs.rows` and `graphs.signature`, and nothing else of rowserve; never Twisted, TensorFlow or LMDB.
"""
