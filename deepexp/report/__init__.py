"""Comparisons of many runs: their files are read, what varies is found, tables, tests and plots are made.

`runs.py` reads, `variation.py` finds what varies, `statistics.py` has the tests, `comparison.py`, `steps_to.py`,
`table.py` and `diff.py` apply them; `model.py` holds the results, which `document.py`, `plots/` and `text.py` show.
"""
