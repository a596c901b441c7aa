"""Sweeps: many runs from one command, each in a process of its own, that finish and can be gone on with.

`command.py` reads the words and shows the end; `shapes.py` makes points of them, `points.py` checks these, `jobs.py`
decides which of them run, `pool.py` runs them, `watcher.py` writes down what becomes of them, and `worker.py` is what
goes on in the process of one of them.
"""
