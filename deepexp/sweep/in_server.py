"""Sets up the server that jobs are forked from. It imports this module first, which is the only hook that it offers.

Importing all the rest takes seconds, in which the server would neither notice that its sweep is gone nor end at Ctrl-C
without a traceback. It ignores every signal that asks for a stop. Clusters, `timeout` and a terminal that is closed
send those to all processes at once; the sweep then has the jobs save what they have, and they would die with the
server.
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
    """In a job: let SIGTERM, by which its sweep stops it, and SIGUSR1 end it until `StopRequest` catches them."""
    if os.getppid() == _server:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)


os.register_at_fork(after_in_child=_listen_again)
