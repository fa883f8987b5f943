"""The wire formats, free of transport: bytes and headers in, items and options out; an answer in, status, headers and bytes out.

One file a format. All of it is pure: it runs on the reactor thread, or on the decode pool's threads where a body is large or a
picture is decoded. It may import `graphs.rows` and `graphs.signature`, and nothing else of rowserve; never Twisted,
TensorFlow or LMDB.
"""
