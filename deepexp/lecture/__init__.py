"""The lecture's figures, one file each, to be run, read and changed.

A file `NAME.py` has one function `demonstrate` with explicit keyword arguments, which `deepexp lecture NAME KEY=VALUE`
sets, and returns a `Demonstration`: some sentences, tables, pictures, and the facts that its tests check. Training runs
are presets in `conf/experiment/`, not files here; `chapters.py` has both in the order of the slides.

Comments are of two kinds in this folder. A block that begins with `# ──` teaches: it says what the lines below it show
about deep learning, and can be read alone from top to bottom. All other comments are about the code, as elsewhere.
"""
