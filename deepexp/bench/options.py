"""What a benchmark itself can be told, beside the config keys of what it measures."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import yaml

from deepexp.errors import InputError
from deepexp.schema import Problems, TrainConfig, key, section
from deepexp.suggest import nearest


@dataclass
class StepOptions:
    """Options of `bench step`; none has the name of a config key."""

    rounds: int = key(7, "turns that each contender has at the step", minimum=1)
    seconds: float = key(1.0, "length of a turn at the step", above=0.0)
    epoch_rounds: int | None = key(None, "turns at a whole epoch; null: 3 unless they would take minutes", minimum=0)
    against: str = key("plain", "plain, lightning, keras, with commas between; all: those that are installed")
    json: bool = key(False, "print JSON instead of a table")


@dataclass
class EpochOptions:
    """Options of `bench epoch`; none has the name of a config key."""

    rounds: int = key(3, "turns that each contender has", minimum=1)
    warm_up: bool = key(True, "an epoch of each beforehand that does not count")
    against: str = key("all", "plain, lightning, keras, with commas between; all: those that are installed")
    json: bool = key(False, "print JSON instead of a table")


@dataclass
class SweepOptions:
    """Options of `bench sweep`; none has the name of a config key."""

    rounds: int = key(1, "how often all of it is done", minimum=1)
    at_a_time: int = key(2, "commands at a time, of those that are not a sweep", minimum=2)
    json: bool = key(False, "print JSON instead of a table")


Options = TypeVar("Options", StepOptions, EpochOptions, SweepOptions)


def parse(words: Sequence[str], kind: type[Options]) -> tuple[Options, list[str]]:
    """(options, the other words: overrides of the config); `InputError` with a line for each option that is wrong."""
    names = [item.name for item in dataclasses.fields(kind)]
    problems = Problems()
    given: dict[str, Any] = {}
    overrides = []
    for word in words:
        name, equals, value = word.partition("=")
        if word.startswith("-"):
            problems.add(f"{word}: there is no such flag; allowed: --help")
        elif equals and name in names:
            given[name] = _value(value)
        elif _is_meant_as(name, names):
            problems.add(f"{name}: there is no such key (did you mean '{nearest(name, names)}'?)")
        else:
            overrides.append(word)
    options: Options = section(kind, given, "", problems)
    problems.raise_any()
    return options, overrides


def _is_meant_as(name: str, names: Sequence[str]) -> bool:
    """Whether an unknown key is nearer to one of ours than to any of the config, which tells about its own."""
    keys = [item.name for item in dataclasses.fields(TrainConfig)] + ["experiment"]
    return name not in keys and "." not in name and nearest(name, [*keys, *names]) in names


def _value(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{text!r} cannot be read as a value") from error
