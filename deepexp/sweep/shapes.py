"""From the words of a sweep to its points: every combination, pairs, random samples, repeated seeds.

Words are overrides; a point is a list of overrides without a swept value. Nothing is composed here.
"""

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override

from deepexp.config.compose import expand_sweep
from deepexp.config.hydra_keys import OF_SWEEPS
from deepexp.config.overrides import split
from deepexp.disk.yaml_words import yaml_word
from deepexp.errors import InputError, raise_any

Point = list[str]

REPEATED = "seed"
"""The key that repeats an experiment: samples are drawn of the other keys, and the table has means over its values."""

_NO_PAIRS = "; for every combination: hydra.sweeper.zip=[]"


@dataclass(frozen=True)
class Axis:
    """A word with all its values; the values of an interval are drawn when they are needed."""

    key: str
    values: list[str]
    """An override for each value; none for an interval."""
    interval: IntervalSweep | None = None

    @property
    def is_swept(self) -> bool:
        """Whether it has several values, or could have."""
        return self.interval is not None or len(self.values) > 1

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the largest value of an interval."""
        assert self.interval is not None
        start, end = self.interval.start, self.interval.end
        assert start is not None and end is not None
        return (start, end - 1) if self.is_whole else (start, end)

    @property
    def is_whole(self) -> bool:
        """Whether an interval is one of whole numbers, whose end is excluded."""
        interval = self.interval
        return interval is not None and all(isinstance(end, int) for end in (interval.start, interval.end))

    @property
    def is_log(self) -> bool:
        """Whether an interval is to be drawn from on a logarithmic scale."""
        return self.interval is not None and "log" in self.interval.tags

    @property
    def size(self) -> float:
        """How many values an interval has; infinite if it is not one of whole numbers."""
        first, last = self.ends
        return last - first + 1 if self.is_whole else math.inf

    @property
    def outermost(self) -> list[str]:
        """All its overrides; for an interval, those of its two ends."""
        return self.values or [self.override(end) for end in self.ends]

    def draw(self, numbers: random.Random) -> str:
        """An override with a random value of the interval."""
        first, last = self.ends
        if self.is_whole and not self.is_log:
            return self.override(numbers.randint(int(first), int(last)))
        if not self.is_log:
            return self.override(numbers.uniform(first, last))
        value = math.exp(numbers.uniform(math.log(first), math.log(last + self.is_whole)))
        return self.override(min(max(value, first), last))  # rounding can lead beyond the ends

    def override(self, value: float) -> str:
        """The override that sets this value of the interval."""
        return f"{self.key}={int(value)}" if self.is_whole else f"{self.key}={value:.6g}"

    def number(self, override: str) -> float | None:
        """The value in an override; None if the interval cannot have given it."""
        first, last = self.ends
        try:
            value = min(max(float(override.partition("=")[2]), first), last)  # six digits can lie beyond an end
            return value if self.override(value) == override and first <= value <= last else None
        except ValueError:
            return None


@dataclass(frozen=True)
class Space:
    """The settings that words describe, each to be repeated with every seed that is given."""

    axes: list[Axis]
    """All words, in their order."""
    blocks: list[list[tuple[str, ...]]]
    """Lists of alternatives, each a tuple of overrides. Blocks are combined freely; zipped keys are one block."""
    intervals: list[Axis]
    repeated: list[Axis]
    """The axis of the config key `seed`, if it is among the words."""

    @property
    def seeds(self) -> list[tuple[str, ...]]:
        """The overrides of `seed` that each setting is repeated with; one empty tuple if there are none."""
        return list(itertools.product(*(dict.fromkeys(axis.values) for axis in self.repeated)))

    @classmethod
    def of(cls, words: Sequence[str], zipped: Sequence[str] = ()) -> "Space":
        """Raises `InputError` for values that cannot be paired and intervals without a value."""
        given = axes(words)
        for axis in given:
            _check_interval(axis)
        repeated = [axis for axis in given if axis.key == REPEATED and axis.interval is None]
        discrete = [axis for axis in given if axis not in repeated and axis.interval is None]
        intervals = [axis for axis in given if axis.interval is not None]
        return cls(given, _blocks(discrete, zipped), intervals, repeated)

    def points(self, setting: Sequence[str]) -> list[Point]:
        """The jobs of a setting, which has an override of every key but `seed`: one for each seed."""
        return [_in_order(self.axes, [tuple(setting), seed]) for seed in self.seeds]


def axes(words: Sequence[str]) -> list[Axis]:
    """The words with their values; a later word replaces an earlier one of the same key. Raises `InputError`."""
    found: dict[str, Axis] = {}
    for word in words:
        axis = _axis(word)
        found[axis.key] = axis
    return list(found.values())


def grid(words: Sequence[str], zipped: Sequence[str] = ()) -> list[Point]:
    """Every combination, the last word varying fastest; the `zipped` keys take their values side by side."""
    given = axes(words)
    for axis in given:
        if axis.interval is not None:
            raise InputError(f"{axis.key}: an interval has no grid; draw from it with hydra.sweeper.samples=N")
    return [_in_order(given, parts) for parts in itertools.product(*_blocks(given, zipped))]


def samples(words: Sequence[str], count: int, seed: int, zipped: Sequence[str] = ()) -> list[Point]:
    """`count` settings drawn with this `seed`, each repeated with every value of the config key `seed`."""
    space = Space.of(words, zipped)
    numbers = random.Random(seed)
    points = []
    for _ in range(count):
        points += space.points(drawn(space.blocks, space.intervals, numbers))
    return points


def drawn(
    blocks: Sequence[Sequence[tuple[str, ...]]], intervals: Sequence[Axis], numbers: random.Random
) -> tuple[str, ...]:
    """A random setting: one of the alternatives of each block, and a value of each interval.

    A block with one alternative takes no random number, so that adding `epochs=20` to a sweep draws the same points.
    """
    chosen = [block[0] if len(block) == 1 else numbers.choice(block) for block in blocks]
    return (*itertools.chain(*chosen), *(axis.draw(numbers) for axis in intervals))


def one_at_a_time(words: Sequence[str]) -> list[Point]:
    """The first point, and for each other value of each word the first point with that value: enough to check all."""
    return corners(axes(words))


def corners(given: Sequence[Axis]) -> list[Point]:
    """`one_at_a_time`, from axes."""
    outermost = [axis.outermost for axis in given]
    first = [values[0] for values in outermost]
    points = [first]
    for position, values in enumerate(outermost):
        points += [[*first[:position], value, *first[position + 1 :]] for value in values[1:]]
    return points


def but_for_seed(varying: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The setting of a job: the keys that vary, except `seed`, with their values."""
    return tuple((key, value) for key, value in varying.items() if key != REPEATED)


def words_of(params: Mapping[str, object]) -> list[str]:
    """`hydra.sweeper.params` as words."""
    return [f"{key}={yaml_word(value)}" for key, value in params.items()]


def check_settings(words: Sequence[str]) -> None:
    """Raise `InputError` with a line for each of Hydra's own keys (`hydra.sweeper.zip`) that is swept itself."""
    lines = []
    for word in words:
        _, key, value = split(word)
        override = _parse(word) if key.startswith(OF_SWEEPS) else None
        if override is not None and override.is_sweep_override():
            listed = "a,b" if "(" in str(value) else value
            lines.append(f"{key}: {value} is several values, and it takes one; a list is written {key}=[{listed}]")
    raise_any(lines)


def key_of(override: str) -> str:
    """The key of an override, with its prefix (`+`) if it has one."""
    return override.partition("=")[0]


def _axis(word: str) -> Axis:
    override = _parse(word)
    if override is not None and override.is_sweep_override() and not override.is_discrete_sweep():
        value = override.value()
        assert isinstance(value, IntervalSweep)
        return Axis(override.get_key_element(), [], value)
    values = [point[0] for point in expand_sweep([word])]
    if not values:
        raise InputError(f"{word}: has no values")
    return Axis(key_of(word), values)


def _parse(word: str) -> Override | None:
    """The override, or None if it cannot be parsed; `expand_sweep` then reports the error."""
    try:
        return OverridesParser.create().parse_override(word)
    except Exception:  # the grammar raises errors of many kinds
        return None


def _blocks(given: Sequence[Axis], zipped: Sequence[str]) -> list[list[tuple[str, ...]]]:
    """See `Space.blocks`."""
    together = [axis for axis in given if axis.key in zipped]
    missing = [key for key in zipped if key not in [axis.key for axis in together if axis.is_swept]]
    if missing:
        raise InputError(f"hydra.sweeper.zip: {', '.join(missing)}: has no values to be paired{_NO_PAIRS}")
    lengths = {axis.key: len(axis.values) for axis in together}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{key} has {length}" for key, length in lengths.items())
        raise InputError(f"hydra.sweeper.zip: the keys need equally many values; {found}{_NO_PAIRS}")
    pairs = [list(zip(*(axis.values for axis in together), strict=True))] if together else []
    return [[(value,) for value in axis.values] for axis in given if axis.key not in zipped] + pairs


def _in_order(given: Sequence[Axis], parts: Sequence[Sequence[str]]) -> Point:
    """One override of each word, in the order of the words."""
    chosen = {key_of(override): override for part in parts for override in part}
    return [chosen[axis.key] for axis in given]


def _check_interval(axis: Axis) -> None:
    if axis.interval is None:
        return
    start, end = axis.interval.start, axis.interval.end
    assert start is not None and end is not None
    if end <= start or (axis.is_log and start <= 0):
        raise InputError(f"{axis.key}: interval({start}, {end}) needs a start below its end, above 0 with tag(log, …)")
