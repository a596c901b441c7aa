"""The first thing that the server of the jobs imports, and nobody else does: the only hook that such a server has.

Until it has imported all the rest, which takes seconds, it would notice neither that its sweep is gone nor, without a
traceback, a Ctrl-C that is meant for that. It outlives a terminal that is closed, too: its sweep then has the jobs save
what they have.
"""

import gc
import signal

from deepexp import late_dynamo
from deepexp.orphans import die_with_parent

die_with_parent()
late_dynamo.install()
gc.disable()  # what it imports stays
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
