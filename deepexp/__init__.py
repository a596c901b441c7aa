"""deepexp: image-classification experiments described by YAML.

    import deepexp
    result = deepexp.train(["model=resnet", "optim=adam"])
    result.test_error_rate, result.directory, result.model

Nothing heavy is imported before it is used, so that the command line can show its help without waiting for torch.
"""

from deepexp.process import early  # noqa: F401 - first, to handle Ctrl-C during the other imports

# isort: split

import os
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepexp.errors import InputError, Interrupted, RunFailed
from deepexp.process import startup

if TYPE_CHECKING:
    from deepexp.result import Result

__version__ = "0.1.0"
__all__ = ["InputError", "Interrupted", "Result", "RunFailed", "__version__", "load_run", "load_runs", "train"]


def train(overrides: Iterable[str] = (), *, quiet: bool = False) -> "Result | None":
    """Run one experiment, as `deepexp train` does with the same words; None from a dry run, which has no result.

    It may be called again and again in one process; calls from several threads wait for each other. For a sweep there
    is `deepexp train -m` or, here, a loop. `quiet`: print nothing.
    Raises `InputError` (what was given cannot be used; a line for each problem), `RunFailed` (the run ended badly; its
    directory, `error.directory`, says how) or `Interrupted` (a signal ended it after it was saved there). Tracebacks of
    the first and the last end here, since their messages say it all; HYDRA_FULL_ERROR=1 in the environment shows more.
    """
    words = _words(overrides)
    flags = [word for word in words if word.startswith("-")]
    if flags:
        raise InputError(f"{flags[0]}: flags are for the command line; here a sweep is a loop over deepexp.train")
    startup.prepare()
    from deepexp.commands.train import train as run_experiment
    from deepexp.process import alone
    from deepexp.text.console import Console

    with alone.LOCK:
        try:
            return run_experiment(words, Console("quiet" if quiet else "auto"))
        except (InputError, Interrupted) as error:
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            raise error.with_traceback(None) from None


def _words(overrides: Iterable[str]) -> list[str]:
    """The words as a list, since an iterator gives them once; `InputError` for anything else."""
    has_order = isinstance(overrides, Iterable) and not isinstance(overrides, str | bytes | Mapping | Set)
    words = list(overrides) if has_order else []
    if not has_order or not all(isinstance(word, str) for word in words):
        raise InputError(f"overrides: {overrides!r} is not allowed; a list of words, as ['model=resnet', 'epochs=3']")
    return words


def load_run(directory: str | Path) -> "Result":
    """The result of a run that has finished, from its directory; `InputError` if there is none."""
    from deepexp.result import load_run as load

    return load(directory)


def load_runs(*paths: str | Path) -> "list[Result]":
    """The results of all finished runs in these sweeps or folders; `InputError` for a path in which there is no run."""
    from deepexp.result import load_runs as load

    return load(*paths)


def __getattr__(name: str) -> Any:
    if name == "Result":
        from deepexp.result import Result

        return Result
    raise AttributeError(f"module 'deepexp' has no attribute {name!r}")
