"""The commands that a person starts, and the builders of the demo models: thin shells over the same pipeline.

Each command runs on its process's main thread, which is also the reactor thread where a reactor runs. It may import every
other folder, and nothing imports it.
"""
