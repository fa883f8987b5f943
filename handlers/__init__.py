"""The wire formats, free of transport, on the reactor thread or the decode pool (large bodies, pictures).

Bytes and headers in, items and options out; an answer in, status, headers and bytes out; one file a format.
It may import `graphs.rows` and `graphs.signature`, and nothing else of rowserve; never Twisted, TensorFlow or
LMDB.
"""
