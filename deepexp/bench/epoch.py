"""`bench epoch`: an epoch of a config with its test, against the plain loop and the frameworks that are installed."""

from collections.abc import Sequence

from deepexp.bench import contest
from deepexp.bench.options import EpochOptions
from deepexp.bench.report import Report


def run(options: EpochOptions, overrides: Sequence[str]) -> Report:
    """Compose, check, and compare. Raises `InputError` as `deepexp train` would for the same overrides."""
    errors: dict[str, float] = {}
    with contest.opened(overrides, options.against) as opened:
        if options.warm_up:
            opened.epochs(1, {})
        figures = {"epoch": opened.epochs(options.rounds, errors)}
        memory = opened.peak_memory()
        return Report("epoch", opened.setting, figures, errors, memory, opened.limit.limit(), opened.left_out)
