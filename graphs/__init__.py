"""The models and their sessions: plain descriptions for any thread, loaded models for the graph thread only.

`rows`, `signature` and `fingerprint` are data; whatever touches a loaded model runs on the graph thread. It
imports nothing else of rowserve, and TensorFlow lazily: only once a model is to be loaded.
"""
