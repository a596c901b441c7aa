"""One run at a time: threads, numeric modes and random numbers belong to the whole process."""

import threading

LOCK = threading.RLock()
"""Held by each run that is called from Python, and by what else computes with a run's model there."""
