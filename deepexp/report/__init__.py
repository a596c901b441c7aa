"""What many runs came to, compared: their files are read, varied parts found, tables, tests and plots made.

`runs.py` reads, `variation.py` finds what varies, `statistics.py` has the tests, `comparison.py`, `steps_to.py`,
`table.py` and `diff.py` apply them; `model.py` is what comes of it, which `document.py`, `plots/` and `text.py` show.
"""
