"""Benchmarks that a signal to their main process ends, as `kill` sends it: the others end too, and no file is left."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from ..processes import ends_soon

pytestmark = pytest.mark.slow
SMALL = "data=synthetic data.train_samples=60 data.test_samples=20 batch_size=20 threads=1 device=cpu".split()


@contextlib.contextmanager
def bench(words, files) -> Iterator[subprocess.Popen[str]]:
    """The benchmark, with its temporary files in a folder of the test's own."""
    started = subprocess.Popen(
        [sys.executable, "-m", "deepexp", "bench", *words],
        env={**os.environ, "TMPDIR": str(files)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)


def wait_for(pattern, files, started):
    deadline = time.monotonic() + 60
    while not (found := list(files.glob(pattern))):
        assert started.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    return found[0]


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_the_commands_of_a_sweep_end(name, status, tmp_path, default_signals):
    with bench(["sweep", *SMALL, "epochs=1000000", "seed=0,1"], tmp_path) as started:
        trained = wait_for("deepexp-bench-*/*/*/*/metrics.jsonl", tmp_path, started)
        pid = json.loads(trained.with_name("status.json").read_text())["pid"]
        started.send_signal(getattr(signal, name))
        _, err = started.communicate(timeout=30)
        assert started.returncode == status
        assert err.splitlines()[1:] == ["deepexp: interrupted"]
        assert ends_soon(pid) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_the_contenders_of_a_step_end(name, status, tmp_path, default_signals):
    with bench(["step", *SMALL, "rounds=100000", "seconds=0.1", "against=bare"], tmp_path) as started:
        status_of_run = wait_for("deepexp-bench-*/*/*/status.json", tmp_path, started)
        pid = json.loads(status_of_run.read_text())["pid"]
        started.send_signal(getattr(signal, name))
        _, err = started.communicate(timeout=30)
        assert started.returncode == status
        assert err.splitlines()[-1] == "deepexp: interrupted" and "Traceback" not in err
        assert ends_soon(pid) and not list(tmp_path.iterdir())
