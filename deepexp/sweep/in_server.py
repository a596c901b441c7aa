"""Sets up the server that jobs are forked from. The server imports this module first: it offers no other hook.

Its other imports take seconds. Without this module it would not notice meanwhile that its sweep is gone, and Ctrl-C
would print a traceback. It ignores every signal that asks for a stop: clusters, `timeout` and a closed terminal send
those to all processes at once, and jobs, which die with the server, could not save what they have.
"""

import gc
import os
import signal

from deepexp.process import late_dynamo
from deepexp.process.orphans import die_with_parent

die_with_parent()
late_dynamo.install()
gc.disable()  # what the server imports is never garbage
for _number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(_number, signal.SIG_IGN)
_server = os.getpid()


def _listen_again() -> None:
    """In a job: let SIGTERM, by which its sweep stops it, and SIGUSR1 end it until `StopRequest` catches them."""
    if os.getppid() == _server:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)


os.register_at_fork(after_in_child=_listen_again)
