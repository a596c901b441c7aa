"""Idle threads sleep while other processes want the cores, and spin again afterwards.

Idle OpenMP threads stop spinning as soon as there are more threads than cores; `Guests` adds threads for that.
"""

import logging
import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest
import torch

from deepexp import runtime
from deepexp.process import startup, waiting

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


class Guests:
    """Stands in for OpenMP's threads."""

    def __init__(self):
        self.are_here = False
        self.history = []

    def invite(self):
        self.are_here = True
        self.history.append("invited")

    def send_away(self):
        self.are_here = False
        self.history.append("sent away")


def watch_through(shares):
    """(what was done, whether guests are there at the end) for the shares of time without a core, period by period."""
    period, waited, left = 0.005, [0.0], list(shares)
    over = threading.Event()

    def read():
        waited[0] += period * (left.pop(0) if left else 0.0)
        if not left:
            over.set()
        return waited[0]

    guests = Guests()
    watch = waiting.Watch(guests, read, period)
    assert over.wait(10)
    time.sleep(3 * period)
    here = guests.are_here
    watch.close()
    return guests.history, here


def test_no_guests_while_cores_are_free():
    assert watch_through([0, 0.05, 0.1, 0, 0.1]) == (["sent away"], False)  # at the end, to be sure


def test_guests_come_when_cores_are_wanted_and_stay_meanwhile():
    history, here = watch_through([0, 0, 0.5, 0.6, 0, 0, 0.5, 0])
    assert here
    assert history == ["invited", "sent away"]


def test_guests_go_after_a_while_of_calm_and_come_again():
    history, here = watch_through([0, 0.5, *[0] * 12, 0.9, 0.9])
    assert here
    assert history == ["invited", "sent away", "invited", "sent away"]


def test_sharing_cores_is_logged_once(caplog):
    with caplog.at_level(logging.INFO):
        watch_through([0, 0.5, *[0] * 12, 0.9, *[0] * 12])
    assert [record.message for record in caplog.records].count(
        "others want the cores as well: while they do, idle threads sleep instead of spin"
    ) == 1


@linux
def test_time_without_a_core_is_measured():
    """Two threads' worth of work on one core: each waits half of the time."""
    code = """
        import os, subprocess, sys, time
        from deepexp.process import waiting
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        began, before = time.perf_counter(), waiting.seconds_without_a_core()
        while time.perf_counter() - began < 1.5:
            pass
        other.kill()
        print((waiting.seconds_without_a_core() - before) / (time.perf_counter() - began))
    """
    assert float(python(code)) > waiting._CONTENDED * 1.5


@linux
def test_guests_add_threads_beyond_the_cores_and_end_them():
    code = """
        import os, torch
        from deepexp.process import waiting
        torch.set_num_threads(2)
        def count(): return len(os.listdir("/proc/self/task"))
        torch.zeros(1 << 18).add_(1)
        before = count()
        for cores in (1, 2, 5):
            guests = waiting.Guests(2, cores)
            guests.invite()
            while count() < before + 2 * max(1, cores - 1):  # a first thread each, and the one that counts
                pass
            guests.send_away()
            while count() > before:
                pass
        print("done")
    """
    assert python(code) == "done"


@linux
@pytest.mark.skipif(runtime.available_cores() < 2, reason="with one core nothing is shared")
def test_a_session_notices_other_processes_on_its_cores(monkeypatch, caplog):
    monkeypatch.setenv(startup.MARK, "1")
    others = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * runtime.available_cores())
    ]
    try:
        session = runtime.session(torch.device("cpu"), threads=2, deterministic=False, tf32=False)
        with caplog.at_level(logging.INFO), session:
            deadline = time.monotonic() + 30
            while "openmp guests" not in {thread.name for thread in threading.enumerate()}:
                sum(range(10_000))
                assert time.monotonic() < deadline
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert not {"openmp guests", "openmp watch"} & {thread.name for thread in threading.enumerate()}
    assert "others want the cores" in caplog.text


@pytest.mark.parametrize("threads", [1, 2])
def test_nothing_is_watched_with_one_thread_or_the_users_setting(monkeypatch, threads):
    if threads == 1:
        monkeypatch.setenv(startup.MARK, "1")
    else:
        monkeypatch.delenv(startup.MARK, raising=False)
    with waiting.considerate(threads, 2):
        assert "openmp watch" not in {thread.name for thread in threading.enumerate()}


def python(code):
    environment = {**os.environ, "GOMP_SPINCOUNT": "10000", "OMP_WAIT_POLICY": "passive"}
    environment.pop("OMP_NUM_THREADS", None)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
