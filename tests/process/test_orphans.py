"""Processes whose parent is killed."""

import os
import signal
import subprocess
import sys

import pytest

from ..processes import ends_soon

SPAWNED = """
import multiprocessing, os, signal, sys, time
from deepexp.process import orphans

def work(pipe):
    sys.platform = "darwin"
    orphans.die_with_parent()
    pipe.send(os.getpid())
    time.sleep(60)

if __name__ == "__main__":
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=work, args=(theirs,))
    process.start()
    print(ours.recv(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_spawned_process_ends_with_its_parent_also_where_the_system_does_not_see_to_it(tmp_path):
    (tmp_path / "spawned.py").write_text(SPAWNED)
    # A file, since the process, should it live on, would keep a pipe open.
    with (tmp_path / "pid").open("w+") as answer:
        done = subprocess.run([sys.executable, tmp_path / "spawned.py"], stdout=answer, timeout=60)
    pid = int((tmp_path / "pid").read_text())
    try:
        assert done.returncode == -signal.SIGKILL and ends_soon(pid)
    finally:
        if not ends_soon(pid):
            os.kill(pid, signal.SIGKILL)
