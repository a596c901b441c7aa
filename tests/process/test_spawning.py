"""Processes that are spawned, as on macOS, while somebody asks for a stop."""

import multiprocessing
import os
import signal
import time

import pytest

from deepexp.process import spawning

NUMBERS = [getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name)]

needs_masks = pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="needs POSIX signals")

SLOW_TO_IMPORT = """
import os, pathlib, signal, time
from deepexp.process import spawning
spawning._HOLDS = True  # as elsewhere than on Linux
folder = pathlib.Path(__file__).parent
(folder / "imports").touch()
time.sleep(0.5)

def work():
    spawning.drop_held_signals()
    (folder / "ready").touch()
    time.sleep(30)
"""


@pytest.fixture(autouse=True)
def heard():
    """Signals are heard here, and so in what is spawned, even if the tests run in the background or under `nohup`."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in NUMBERS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def wait_for(path):
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@needs_masks
@pytest.mark.parametrize("number", NUMBERS)
def test_a_spawned_process_is_not_stopped_while_it_imports_and_listens_afterwards(tmp_path, monkeypatch, number):
    (tmp_path / "slow_to_import.py").write_text(SLOW_TO_IMPORT)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(spawning, "_HOLDS", True)
    import slow_to_import

    (tmp_path / "imports").unlink()
    process = multiprocessing.get_context("spawn").Process(target=slow_to_import.work)
    with spawning.signals_held_back():
        process.start()
    try:
        wait_for(tmp_path / "imports")
        os.kill(process.pid, number)
        wait_for(tmp_path / "ready")
        assert process.is_alive()
        os.kill(process.pid, number)
        process.join(timeout=10)
        assert process.exitcode not in (None, 0)
    finally:
        process.kill()
        process.join()


@needs_masks
def test_a_signal_that_comes_meanwhile_arrives_here_afterwards(monkeypatch):
    monkeypatch.setattr(spawning, "_HOLDS", True)
    came = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        with spawning.signals_held_back():
            signal.raise_signal(signal.SIGINT)  # for this thread, which alone holds it back
            assert not came
        assert came == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)
