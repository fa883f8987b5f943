"""The commands that a person starts, on their process's main thread, and the builders of the demo models.

The main thread is also the reactor thread where a reactor runs. It may import every other folder, and nothing
imports it.
"""
