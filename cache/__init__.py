"""The content-hashed cache of finished rows: read on the reactor thread, written on the cache writer thread.

Keys and records are pure; a look-up reads a mapped file for microseconds; whatever writes runs on the one
writer thread. It may import `graphs.rows` and `graphs.signature`, and nothing else of rowserve; never Twisted
or TensorFlow, and LMDB only in `lmdb_store`.
"""
