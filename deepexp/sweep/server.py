"""The server that the processes of jobs are forked from: it has imported what they need, so each begins at once.

A sweep starts it before this process itself imports torch, so that both import it at the same time. Standard library
only.
"""

import contextlib
import json
import multiprocessing
import os
import platform
from collections.abc import Iterator, Sequence
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path

PRELOADED = (
    "deepexp.sweep.in_server",  # has to be the first
    "deepexp.sweep.worker",
    "hydra._internal.core_plugins",
    "hydra.core.plugins",
    "hydra_plugins.deepexp_plugins",
    "tensorboard.compat.tensorflow_stub",
)
"""What the server imports so that no job has to, with modules that are otherwise imported late."""

_PRELOADED_IF_ASKED_FOR = {
    ("model=", "torchvision"): "deepexp.models.torchvision_model",
    ("model=", "timm"): "timm",
    ("compile=", "true"): "torch._dynamo.config",  # not `torch._dynamo`, for which there is a stand-in
    ("deterministic=", "true"): "torch._inductor.config",
}
"""(beginning of a word, what else it contains) → a module that such jobs need, and that takes seconds to import."""


def context() -> ForkServerContext | SpawnContext:
    """How processes of jobs are made. Forking from a server that has frameworks running is safe on Linux only."""
    if platform.system() == "Linux":
        return multiprocessing.get_context("forkserver")
    return multiprocessing.get_context("spawn")


def start(words: Sequence[str] = ()) -> None:
    """Start the server if it does not run: it gets ready while this process goes on.

    What else jobs will import is guessed from the `words` of the command line; a wrong guess costs only time.
    """
    if context().get_start_method() != "forkserver":
        return
    from multiprocessing import forkserver

    forkserver.set_forkserver_preload([*PRELOADED, *_asked_for(words)])
    # OpenMP reads this when torch is loaded; each job sets its own number of threads later.
    with _environment({"OMP_NUM_THREADS": "1"}):
        forkserver.ensure_running()


def _asked_for(words: Sequence[str]) -> list[str]:
    all_words = [*words, *_words_before(words)]
    return [
        module
        for (key, value), module in _PRELOADED_IF_ASKED_FOR.items()
        if any(word.startswith(key) and value in word.lower() for word in all_words)
    ]


def _words_before(words: Sequence[str]) -> list[str]:
    """The words of the sweep that is resumed; none if its file cannot be read, which is reported later."""
    for word in words:
        if word.startswith("resume="):
            path = Path(os.path.expanduser(word.removeprefix("resume=").strip("'\""))) / "sweep.json"
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                return [str(before) for before in json.loads(path.read_bytes())["overrides"]]
    return []


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
