"""The server that the processes of jobs are forked from: it has imported what they need, so each begins at once.

A sweep starts it before this process itself imports torch, so that both do that at the same time. Standard library
only.
"""

import contextlib
import multiprocessing
import os
import platform
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext, SpawnContext

PRELOADED = (
    "deepexp.sweep.in_server",  # has to be the first
    "deepexp.sweep.worker",
    "hydra._internal.core_plugins",
    "hydra.core.plugins",
    "hydra_plugins.deepexp_plugins",
    "tensorboard.compat.tensorflow_stub",
    "tensorboard.summary.writer.record_writer",
)
"""What the server imports, so that no job has to: itself, and what is imported late elsewhere."""


def context() -> ForkServerContext | SpawnContext:
    """How processes of jobs are made. Forking from a server that has frameworks running is safe on Linux only."""
    if platform.system() == "Linux":
        return multiprocessing.get_context("forkserver")
    return multiprocessing.get_context("spawn")


def start() -> None:
    """Start the server if it does not run: it gets ready while this process goes on."""
    if context().get_start_method() != "forkserver":
        return
    from multiprocessing import forkserver

    forkserver.set_forkserver_preload(list(PRELOADED))
    # OpenMP reads this when torch is loaded; jobs set their number of threads themselves beyond that.
    with _environment({"OMP_NUM_THREADS": "1"}):
        forkserver.ensure_running()


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
