"""The content-hashed cache of finished rows: keys, records, the stores, the writer, eviction, and the front the server asks.

Keys, records and look-ups are pure or read a file for microseconds, so they run on the reactor thread; everything that
writes runs on the cache writer thread. It may import `graphs.rows` and `graphs.signature`, and nothing else of rowserve; never
Twisted or TensorFlow, and LMDB only in `lmdb_store`.
"""
