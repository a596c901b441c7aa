"""The baseline that groups are compared with: one group, or one at each level of what it leaves open."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from deepexp.errors import InputError
from deepexp.report.variation import Group, same_value
from deepexp.text.suggest import did_you_mean
from deepexp.text.terminal import printable


@dataclass(frozen=True)
class Baseline:
    """One or several groups that others are compared with."""

    named: str
    """The label of the only one; of several what they have in common (`batch_norm=false`), as it was asked for."""
    groups: Sequence[Group]
    open_keys: Sequence[str] = ()
    """The keys that vary among several; each is the baseline of the groups that have its values of these."""

    @property
    def note(self) -> str:
        """What is compared with what."""
        if self.open_keys:
            return f"Each group is compared with {self.named} of the same {_listed(self.open_keys)}."
        return f"Each group is compared with the baseline, {self.named}."

    def of(self, group: Group) -> Group | None:
        """The one to compare a group with; None for a baseline itself, and where there is none at its level."""
        if any(group is one for one in self.groups):
            return None
        return next((one for one in self.groups if self._is_at_level_of(one, group)), None)

    def with_others(self, groups: Sequence[Group]) -> Iterator[tuple[Group, list[Group]]]:
        """Each of the baselines, with itself and those of the groups that are compared with it, in their order."""
        for one in self.groups:
            yield one, [group for group in groups if group is one or self.of(group) is one]

    def without(self, groups: Sequence[Group]) -> str | None:
        """A sentence that names the groups at whose level there is no baseline; None if there are none."""
        alone = [
            group.label for group in groups if self.of(group) is None and not any(group is one for one in self.groups)
        ]
        if not alone:
            return None
        return f"Not compared: {'; '.join(alone)}: there is no {self.named} of the same {_listed(self.open_keys)}"

    def _is_at_level_of(self, one: Group, group: Group) -> bool:
        return all(same_value(one.values[key], group.values[key]) for key in self.open_keys)


def find(groups: Sequence[Group], wanted: str) -> Baseline:
    """The baseline that a label names, or as much of it as there is to say (`optim.lr=0.1`).

    What fits several groups names all of them, one at each level of the other keys. `InputError` if nothing fits.
    """
    wanted = printable(wanted)  # as labels are
    found = [group for group in groups if group.label == wanted] or [
        group for group in groups if _keys_named(wanted, group) is not None
    ]
    if not found:
        labels = [group.label for group in groups]
        raise InputError(f"baseline: {wanted!r} is no group{did_you_mean(wanted, labels)}; one of {'; '.join(labels)}")
    if len(found) == 1:
        return Baseline(found[0].label, found)
    named = _keys_named(wanted, found[0]) or set()
    return Baseline(wanted, found, [key for key in found[0].values if key not in named])


def _keys_named(wanted: str, group: Group) -> set[str] | None:
    """The keys of the settings of a group that `wanted` consists of; None if there is anything else in it."""
    rest, keys = f",{_closed_up(wanted)},", set()
    for key, setting in zip(group.values, group.settings, strict=True):  # whole, as a list has commas of its own
        without = rest.replace(f",{_closed_up(setting)},", ",", 1)
        if without != rest:
            keys.add(key)
        rest = without
    return keys if rest == "," else None


def _closed_up(settings: str) -> str:
    return ",".join(part.strip() for part in settings.split(","))


def _listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
