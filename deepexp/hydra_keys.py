"""Hydra's own keys: those that do something here, and what there is instead of the others."""

from collections.abc import Sequence

from deepexp.errors import InputError
from deepexp.overrides import split

OF_SWEEPS = ("hydra.sweeper", "hydra.launcher", "hydra.callbacks", "hydra/sweeper", "hydra/launcher")

_INSTEAD = {
    ("hydra.run", "hydra.sweep", "hydra.output_subdir"): "output_dir and name say where runs lie",
    ("hydra.job.chdir",): "a run stays in the folder that it was started in",
    ("hydra.verbose", "hydra.job_logging", "hydra.hydra_logging"): "the whole log of a run is in its run.log",
    ("hydra.searchpath",): "options of your own lie in ./conf",
    ("hydra",): "of Hydra's own keys, those of hydra.sweeper and hydra.launcher have one, with -m",
}


def check_effect(words: Sequence[str]) -> None:
    """Raise `InputError` with a line for each of Hydra's own keys that would change nothing."""
    keys = [split(word)[1] for word in words]
    lines = [
        f"{key}: has no effect; {_instead(key)}"
        for key in keys
        if key.startswith(("hydra.", "hydra/")) and not key.startswith(OF_SWEEPS)
    ]
    if lines:
        raise InputError("\n".join(dict.fromkeys(lines)))


def _instead(key: str) -> str:
    dotted = f"{key.replace('/', '.')}."
    return next(text for starts, text in _INSTEAD.items() if any(dotted.startswith(f"{start}.") for start in starts))
