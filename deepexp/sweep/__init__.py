"""Sweeps: many runs from one command, each in a process of its own; a sweep that was cut off can be resumed.

`command.py` reads the words and shows the end; `shapes.py` makes points of the words, `points.py` checks the points,
`jobs.py` decides which are run, `pool.py` runs them, `watcher.py` records what becomes of each, and `worker.py` is what
the process of one job does.
"""
