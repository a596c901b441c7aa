"""How a process of deepexp's own begins and ends: quickly, and at Ctrl-C at once. Standard library only.

What is set here is read by torch as it is imported, or holds for its import, so this module comes before it.
"""

import atexit
import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence

from deepexp.process import early

_OPENMP = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "10000"}
MARK = "DEEPEXP_SET_OMP_WAIT_POLICY"
"""In the environment when the policy is deepexp's choice and not the user's."""


def prepare() -> None:
    """Let idle OpenMP threads spin for some 50 microseconds and then sleep, unless the user has chosen otherwise.

    That is long enough for the pauses within a training step, where falling asleep and waking up cost a third of it.
    While others want the cores, threads sleep at once (see `waiting.py`). Other OpenMP libraries than GNU's know only
    the policy, and sleep always.
    """
    end_quickly()
    if not _OPENMP.keys() & os.environ.keys():
        os.environ.update({**_OPENMP, MARK: "1"})


def end_quickly() -> None:
    """Skip Python's last garbage collection, which with torch loaded takes half a second or more.

    Not where Triton is loaded, as torch's compiler does: it reports what was not collected as leaked.
    """
    atexit.register(lambda: None if "triton" in sys.modules else gc.freeze())


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """For the imports of a process of ours: no garbage collection meanwhile, nor of what they have made later.

    It would take half a second of the imports, and half a second more before the first update.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()


@contextlib.contextmanager
def ending_at_ctrl_c() -> Iterator[None]:
    """For the imports of a process of ours: Ctrl-C ends it then and there, with nothing begun that could be lost.

    As an exception, it could be swallowed while torch is loaded, and leave NumPy half imported.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) not in (signal.default_int_handler, early.end):
        yield  # another handler is set, or it is ignored as behind nohup
        return
    signal.signal(signal.SIGINT, early.end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def end_at_ctrl_c(status: int) -> None:
    """From here on a Ctrl-C ends the process then and there, with the status that it ends with anyway.

    All is done, and Python takes some tenths of a second to end, in which it would show a traceback.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: os._exit(status))


def users_environment() -> dict[str, str]:
    """The environment without what `prepare` has put into it, for programs that deepexp is compared with."""
    environment = dict(os.environ)
    if environment.pop(MARK, None):
        for name in _OPENMP:
            environment.pop(name, None)
    return environment


def runs_jobs(command: str, words: Sequence[str]) -> bool:
    """Whether a command is a sweep, guessed from its words: a wrong guess costs only time."""
    swept = {"-m", "--multirun"}.intersection(words)
    resumed = [word.removeprefix("resume=") for word in words if word.startswith("resume=")]
    begun = any(os.path.isfile(os.path.join(os.path.expanduser(path), "sweep.json")) for path in resumed)
    return command == "train" and (bool(swept) or begun)
