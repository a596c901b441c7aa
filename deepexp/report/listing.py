"""Choosing runs by conditions on their settings and results, and putting them in order."""

import fnmatch
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deepexp.disk.yaml_file import read_value
from deepexp.errors import InputError
from deepexp.report.runs import STATUSES, Run
from deepexp.report.variation import GROUPS, text, value_of
from deepexp.text.suggest import did_you_mean

_CONDITION = re.compile(r"([\w.]+)\s*(<=|>=|!=|=|<|>)\s*(.*)", re.DOTALL)
_ORDERINGS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Condition:
    """`KEY=VALUE`, `KEY!=VALUE` or `KEY<NUMBER`; a value can be several with commas, and have `*` in it."""

    key: str
    sign: str
    value: str

    def holds(self, run: Run) -> bool:
        """Whether a run meets it; one without that key, or with another kind of value, does not."""
        if not has(run, self.key):
            return False
        found = figure(run, self.key)
        if self.sign in _ORDERINGS:
            known = isinstance(found, (int, float)) and not isinstance(found, bool)
            return known and _ORDERINGS[self.sign](found, float(self.value))  # type: ignore[arg-type]
        equal = any(_equals(found, wanted) for wanted in (self.value, *self.value.split(",")))
        return equal if self.sign == "=" else not equal


def parse_condition(word: str) -> Condition | None:
    """The condition in a word of a command line, or None if it is none; `InputError` for `<` without a number."""
    found = _CONDITION.fullmatch(word)
    if found is None:
        return None
    condition = Condition(*found.groups())
    if condition.sign in _ORDERINGS:
        try:
            float(condition.value)
        except ValueError:
            raise InputError(f"{word}: {condition.sign} needs a number, not {condition.value!r}") from None
    return condition


def chosen(runs: Sequence[Run], conditions: Sequence[Condition], options: Sequence[str]) -> list[Run]:
    """The runs that meet all conditions. `InputError` for a key that no run has; `options` are those of the command."""
    for condition in conditions:
        check_key(condition.key, runs, options)
        value = condition.value.replace("-", " ").replace("_", " ")
        if condition.key == "status" and "*" not in value and not set(value.split(",")) <= set(STATUSES):
            typed = [status.replace(" ", "-") for status in STATUSES]
            meant = did_you_mean(condition.value, typed)
            raise InputError(f"status: there is no {condition.value!r}{meant}; one of {', '.join(typed)}")
    return [run for run in runs if all(condition.holds(run) for condition in conditions)]


def near_misses(runs: Sequence[Run], conditions: Sequence[Condition]) -> list[str]:
    """A line for each word of a condition that no run has, if a run has a similar one."""
    lines = []
    for condition in conditions:
        found = {figure(run, condition.key) for run in runs if isinstance(figure(run, condition.key), str)}
        if condition.sign in _ORDERINGS or condition.value in found:
            continue
        for word in condition.value.split(","):
            meant = did_you_mean(word, sorted(map(str, found)))
            if meant and not any(_equals(value, word) for value in found):
                lines.append(f"{condition.key}: no run here has {word!r}{meant}")
    return lines


def in_order(
    runs: Sequence[Run], key: str, options: Sequence[str], special: Callable[[Run], object] | None
) -> list[Run]:
    """The runs sorted by a key, numbers before texts, those without it last; `-KEY`: the other way round.

    `special` gives the values of a key that runs do not have themselves.
    """
    name = key.removeprefix("-")
    if special is None:
        check_key(name, runs, options)
    values = {id(run): special(run) if special else figure(run, name) for run in runs}
    known = [run for run in runs if values[id(run)] is not None]
    missing = [run for run in runs if values[id(run)] is None]
    return [*sorted(known, key=lambda run: _rank(values[id(run)]), reverse=key.startswith("-")), *missing]


def figure(run: Run, key: str) -> object:
    """A value of a run by its name: `status`, `path`, a choice, a config key, a figure of the summary."""
    if key in ("status", "path"):
        return str(getattr(run, key))
    if run.summary is not None and key in run.summary and key not in run.choices:
        return run.summary[key]
    return value_of(run, key)


def has(run: Run, key: str) -> bool:
    """Whether a run has such a key at all, whatever its value: null in its config, or no choice in a usual group."""
    is_figure = run.summary is not None and key in run.summary
    return key in ("status", "path", *GROUPS) or key in run.choices or key in run.config or is_figure


def check_key(key: str, runs: Sequence[Run], options: Sequence[str]) -> None:
    """`InputError` for a key that none of the runs has."""
    known = {"status", "path", *GROUPS}
    for run in runs:
        known |= {*run.choices, *run.config, *(run.summary or {})}
    if runs and key not in known:
        raise InputError(f"{key}: no run here has such a key{did_you_mean(key, [*options, *sorted(known)])}")


def _equals(found: object, wanted: str) -> bool:
    if isinstance(found, str) or found is None:
        shown = text(found)
        plain = wanted.replace("-", " ").replace("_", " ") if shown in STATUSES else wanted
        return fnmatch.fnmatchcase(shown, wanted) or shown == plain
    try:
        value = read_value(wanted)
    except ValueError:
        return False
    if isinstance(value, str):  # YAML takes 1e-3 for a text
        try:
            value = float(value)
        except ValueError:
            return False
    return isinstance(value, bool) == isinstance(found, bool) and value == found


def _rank(value: object) -> tuple[int, float, str]:
    if isinstance(value, (int, float)):
        return 0, float(value), ""
    return 1, 0.0, text(value)
