"""Keeps signals that ask for a stop from processes that are being spawned. Standard library only."""

import contextlib
import platform
import signal
from collections.abc import Iterator
from multiprocessing import resource_tracker

_ASKING = {number for name in ("SIGINT", "SIGUSR1", "SIGHUP") if (number := getattr(signal, name, None)) is not None}
_HOLDS = platform.system() != "Linux" and hasattr(signal, "pthread_sigmask")


@contextlib.contextmanager
def signals_held_back() -> Iterator[None]:
    """Let signals that ask for a stop wait: for this thread until the block ends, in what it spawns longer.

    There they wait until it calls `drop_held_signals`.
    A spawned process imports torch first, which takes seconds. Ctrl-C, which a terminal sends to it too, would end it
    with a traceback. On Linux processes are forked, and begin with the handlers that they need; Windows holds nothing.
    """
    if not _HOLDS:
        yield
        return
    resource_tracker.ensure_running()  # if it were started within the block, it would let SIGINT through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ASKING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def drop_held_signals() -> None:
    """In a process that was spawned so: forget what has come meanwhile, and hold nothing back from now on."""
    if not _HOLDS:
        return
    for number in _ASKING & signal.pthread_sigmask(signal.SIG_BLOCK, ()):
        handler = signal.signal(number, signal.SIG_IGN)  # a signal that is ignored no longer waits
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        signal.signal(number, handler)
