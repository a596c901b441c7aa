"""Keeps a process from outliving the one that it works for. Standard library only."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing.process import BaseProcess

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent() -> None:
    """End this process as soon as the one that made it ends: on Linux the very thread that forked it.

    Elsewhere that is noticed for processes of multiprocessing only, and by a thread, which needs the interpreter.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    elif (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True, name="parent's end").start()


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
