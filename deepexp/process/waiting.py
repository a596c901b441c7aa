"""How idle OpenMP threads wait: spinning while the cores are free, asleep while other processes want them.

A training step on a CPU has dozens of short parallel pieces. Threads that spin between them save a third of the step;
where another process wants the same cores, they keep its threads and each other from working, and a step takes several
times as long. GNU's OpenMP decides anew at each wait: its threads spin as long as `GOMP_SPINCOUNT` says, unless it has
more threads than there are cores; then, under `OMP_WAIT_POLICY=passive`, they sleep at once. So threads that exist, and
do nothing, make the others sleep, and their end makes them spin again. `startup.prepare` sets both variables.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator

import torch

from deepexp.process import startup

log = logging.getLogger(__name__)

_SCHEDSTAT = "/proc/self/task/{}/schedstat"
_PERIOD_SECONDS = 0.25
_CONTENDED = 0.15
"""Seconds per second that our threads, added up, wait for a core: 0.5 for each if two threads want each core."""
_CALM_PERIODS = 8
_PARALLEL_ELEMENTS = 1 << 18  # torch shares the work on so many among threads


@contextlib.contextmanager
def considerate(threads: int, cores: int) -> Iterator[None]:
    """While this lasts, let idle threads sleep whenever others want the cores.

    Linux only; elsewhere, and where the user has said how threads are to wait, it does nothing.
    `threads`: that torch computes with here; a single one never waits for others.
    """
    if threads == 1 or startup.MARK not in os.environ or not os.path.exists(_SCHEDSTAT.format(os.getpid())):
        yield
        return
    watch = Watch(Guests(threads, cores), seconds_without_a_core)
    try:
        yield
    finally:
        watch.close()


def seconds_without_a_core() -> float:
    """How long the threads of this process, all together, have been ready to run and had to wait for a core."""
    nanoseconds = 0  # a thread that ends meanwhile is left out
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError), open(_SCHEDSTAT.format(thread), encoding="ascii") as file:
            nanoseconds += int(file.read().split()[1])
    return nanoseconds / 1e9


class Guests:
    """OpenMP threads with nothing to do: as many as it takes to have more of them than there are cores."""

    def __init__(self, threads: int, cores: int) -> None:
        missing = max(cores - threads, 0) + 1
        self._teams = -(-missing // (threads - 1))  # a team has its own first thread, which does not count
        self._leave: threading.Event | None = None
        self._hosts: list[threading.Thread] = []

    @property
    def are_here(self) -> bool:
        """Whether idle threads sleep at present."""
        return bool(self._hosts)

    def invite(self) -> None:
        """Let idle threads sleep from now on."""
        self._leave = threading.Event()
        for _ in range(self._teams):
            host = threading.Thread(target=_host, args=(self._leave,), daemon=True, name="openmp guests")
            host.start()
            self._hosts.append(host)

    def send_away(self) -> None:
        """Let idle threads spin again."""
        if self._leave is not None:
            self._leave.set()
        for host in self._hosts:
            host.join()
        self._hosts.clear()


def _host(leave: threading.Event) -> None:
    """Have a team of OpenMP threads, which lives as long as the thread that this runs in."""
    torch.zeros(_PARALLEL_ELEMENTS).add_(1)
    leave.wait()


class Watch:
    """Looks several times a second whether this process has to wait for cores, and has guests while it does."""

    def __init__(self, guests: Guests, waited: Callable[[], float], period: float = _PERIOD_SECONDS) -> None:
        self._guests = guests
        self._waited = waited
        self._period = period
        self._closed = threading.Event()
        self._told = False
        self._thread = threading.Thread(target=self._run, daemon=True, name="openmp watch")
        self._thread.start()

    def close(self) -> None:
        """Stop looking, and send the guests away."""
        self._closed.set()
        self._thread.join()
        self._guests.send_away()

    def _run(self) -> None:
        before, calm = self._waited(), 0
        while not self._closed.wait(self._period):
            now = self._waited()
            calm = 0 if (now - before) / self._period > _CONTENDED else calm + 1
            before = now
            if calm == 0 and not self._guests.are_here:
                self._guests.invite()
                self._tell()
            elif calm == _CALM_PERIODS and self._guests.are_here:
                self._guests.send_away()

    def _tell(self) -> None:
        if not self._told:
            log.info("others want the cores as well: while they do, idle threads sleep instead of spin")
            self._told = True
