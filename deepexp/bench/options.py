"""The options of the benchmarks themselves, beside the config keys of what they measure."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from deepexp.config import options
from deepexp.errors import InputError
from deepexp.schema import TrainConfig, key
from deepexp.text.suggest import nearest


@dataclass
class StepOptions:
    """Options of `bench step`; none has the name of a config key."""

    rounds: int = key(7, "turns that each contender has at the step", minimum=1)
    seconds: float = key(1.0, "length of a turn at the step", above=0.0)
    epoch_rounds: int | None = key(None, "turns at a whole epoch; null: 3 unless they would take minutes", minimum=0)
    profile: bool = key(False, "also where deepexp's step spends its time, operation by operation")
    against: str = key("plain", "plain, bare, lightning, keras, with commas between; all: those that are installed")
    json: bool = key(False, "print JSON instead of a table")
    plot: str | None = key(None, "a picture of it, a .png or .svg file")


@dataclass
class EpochOptions:
    """Options of `bench epoch`; none has the name of a config key."""

    rounds: int = key(3, "turns that each contender has", minimum=1)
    warm_up: bool = key(True, "an epoch of each beforehand that does not count")
    against: str = key("all", "plain, bare, lightning, keras, with commas between; all: those that are installed")
    json: bool = key(False, "print JSON instead of a table")
    plot: str | None = key(None, "a picture of it, a .png or .svg file")


@dataclass
class SweepOptions:
    """Options of `bench sweep`; none has the name of a config key."""

    rounds: int = key(1, "how often all of it is done", minimum=1)
    at_a_time: int = key(2, "commands at a time, of those that are not a sweep", minimum=2)
    json: bool = key(False, "print JSON instead of a table")
    plot: str | None = key(None, "a picture of it, a .png or .svg file")


@dataclass
class StartOptions:
    """Options of `bench start`; none has the name of a config key."""

    rounds: int = key(5, "turns that each contender has", minimum=1)
    against: str = key("plain", "plain, lightning, keras, with commas between; all: those that are installed")
    json: bool = key(False, "print JSON instead of a table")
    plot: str | None = key(None, "a picture of it, a .png or .svg file")


BENCHMARKS: dict[str, type] = {"step": StepOptions, "epoch": EpochOptions, "sweep": SweepOptions, "start": StartOptions}
"""Benchmark → its options. `NAME.py` beside this file has its `run(options, overrides)`, which returns a report."""

Options = TypeVar("Options", StepOptions, EpochOptions, SweepOptions, StartOptions)


def parse(words: Sequence[str], kind: type[Options]) -> tuple[Options, list[str]]:
    """(options, the other words: overrides of the config); `InputError` with a line for each option that is wrong."""
    names = options.names_of(kind)
    return options.parse(words, kind, lambda word: _misspelt(word.partition("=")[0], names))


def check_own_runs(benchmark: str, overrides: Sequence[str]) -> None:
    """`InputError` for a word that chooses a run directory, or makes no run: this benchmark makes runs of its own."""
    for word in overrides:
        if word.partition("=")[0].lstrip("+~") in ("resume", "output_dir", "dry_run"):
            raise InputError(f"{word}: bench {benchmark} makes runs of its own, in a temporary directory; leave it out")


def _misspelt(name: str, names: Sequence[str]) -> str | None:
    """The error for a word that is nearer to an option's name than to a config key; None if it is not."""
    keys = [item.name for item in dataclasses.fields(TrainConfig)] + ["experiment", "scale"]
    if name in keys or "." in name or (meant := nearest(name, [*keys, *names])) not in names:
        return None
    return f"{name}: there is no such key (did you mean '{meant}'?)"
