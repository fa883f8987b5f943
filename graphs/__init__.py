"""The models: rows and signatures, fingerprints, the look before loading, the TensorFlow session and the graph thread.

`rows`, `signature` and `fingerprint` are plain data and run on any thread; whatever touches a loaded model runs on the graph
thread only. It imports nothing else of rowserve, and TensorFlow only inside the functions that need it.
"""
