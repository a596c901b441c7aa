"""Ctrl-C in the first tenths of a second of a command, before anybody could tell of it. Standard library only.

Imported before anything else of deepexp is. A program that imports deepexp keeps its own ways: they are changed only
where the command line is about to start, which takes over in `startup.ending_at_ctrl_c`.
"""

import os
import signal
import sys
from types import FrameType


def end(number: int, _: FrameType | None) -> None:
    """End the process then and there, for a signal."""
    os.write(2, b"deepexp: interrupted\n")
    os._exit(128 + number)


def _is_command() -> bool:
    """Whether this process was started as `deepexp …` or `python -m deepexp …`, and not by such a one."""
    words, script = sys.orig_argv, sys.argv[0] if sys.argv else ""
    if script == "-m":  # so it is until the module that is meant has been found
        return "-m" in words and words[words.index("-m") + 1] == "deepexp"
    return script in words and os.path.splitext(os.path.basename(script))[0] == "deepexp"


if _is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, end)
