"""Benchmarks: how fast deepexp is here and now, against the plain loop that one would otherwise write.

A module for each benchmark (`step.py`), and what they share: contenders in processes of their own (`worker.py`,
`process.py`), taking turns (`compare.py`), and the report (`report.py`). Nothing that trains a run belongs here.
"""
