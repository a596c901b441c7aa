"""The first thing that the server of the jobs imports, and nobody else does: the only hook that such a server has.

Until it has imported all the rest, which takes seconds, it would notice neither that its sweep is gone nor, without a
traceback, a Ctrl-C that is meant for that. It outlives every signal that asks for a stop, as clusters, `timeout` and a
terminal that is closed send them to all processes there are: its sweep then has the jobs save what they have, and they
would die with it.
"""

import gc
import os
import signal

from deepexp.process import late_dynamo
from deepexp.process.orphans import die_with_parent

die_with_parent()
late_dynamo.install()
gc.disable()  # what it imports stays
for _number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(_number, signal.SIG_IGN)
_server = os.getpid()


def _listen_again() -> None:
    """Let a job, which its sweep stops by SIGTERM, end at once by what it does not yet hold back."""
    if os.getppid() == _server:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)


os.register_at_fork(after_in_child=_listen_again)
