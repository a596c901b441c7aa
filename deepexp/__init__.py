"""deepexp: image-classification experiments described by YAML.

    import deepexp
    result = deepexp.train(["model=resnet", "optim=adam"])
    result.test_error_rate, result.directory, result.model

Nothing heavy is imported before it is used, so that the command line can show its help without waiting for torch.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepexp import startup
from deepexp.errors import InputError, Interrupted, RunFailed

if TYPE_CHECKING:
    from deepexp.result import Result

__version__ = "0.1.0"
__all__ = ["InputError", "Interrupted", "Result", "RunFailed", "__version__", "load_run", "train"]


def train(overrides: Sequence[str] = (), *, quiet: bool = False) -> "Result | None":
    """Run one experiment, as `deepexp train` does with the same words; None from a dry run, which has no result.

    It may be called again and again in one process. `quiet`: print nothing.
    Raises `InputError` (what was given cannot be used; a line for each problem), `RunFailed` (the run ended badly; its
    directory says how) or `Interrupted` (a signal ended it after it was saved).
    """
    startup.prepare()
    from deepexp.commands.train import train as run_experiment
    from deepexp.console import Console

    return run_experiment(overrides, Console("quiet" if quiet else "auto"))


def load_run(directory: str | Path) -> "Result":
    """The result of a run that has finished, from its directory; `InputError` if there is none."""
    from deepexp.result import load_run as load

    return load(directory)


def __getattr__(name: str) -> Any:
    if name == "Result":
        from deepexp.result import Result

        return Result
    raise AttributeError(f"module 'deepexp' has no attribute {name!r}")
