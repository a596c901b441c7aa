"""Ctrl-C in the first tenths of a second of a command, before other code can handle it. Standard library only.

This is imported before the rest of deepexp. It sets a handler only in a process that is started as the command line,
which takes over in `startup.ending_at_ctrl_c`; a program that imports deepexp keeps its own handler.
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
    """Whether this process was started as `deepexp …` or `python -m deepexp …`, and not by such a process."""
    words, script = sys.orig_argv, sys.argv[0] if sys.argv else ""
    if script == "-m":  # until Python has found the module
        return "-m" in words and words[words.index("-m") + 1] == "deepexp"
    return script in words and os.path.splitext(os.path.basename(script))[0] == "deepexp"


if _is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, end)
