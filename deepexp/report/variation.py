"""What varies among runs, what is the same in all of them, and which of them differ in nothing but the seed."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

import yaml

from deepexp.config.overrides import split
from deepexp.disk.yaml_words import yaml_word
from deepexp.report.runs import DONE, Run
from deepexp.text.terminal import printable

SEED = "seed"
"""The key that repeats an experiment."""

ROOT = "data.root"

NOT_OF_THE_RESULT = frozenset(
    "name output_dir resume dry_run device threads data.mode data.workers data.cache data.download "
    "log_every checkpoint.every_minutes on_oom cache_frozen cuda_graph compile".split()
)
"""Keys that say where and how a run is done, without changing its result; so does `ROOT`, if the data are the same."""

_PRESET = "experiment"
"""The group whose options set keys anywhere, and choose in other groups; options of others set only their own keys."""
GROUPS = (_PRESET, "model", "data", "optim", "schedule", "augment", "loss")
MOST_NAMED = 4
"""Up to so many keys, the label of a group names them all."""

USUAL = "the usual settings"
"""The label of the group that nothing sets apart."""

_HEADLINE = ("optim.lr", "batch_size", "epochs")


@dataclass(frozen=True)
class Group:
    """Runs that differ in the seed only."""

    label: str
    """`optim.lr=0.1, batch_size=10`: what varies; where that is much, only what sets this group apart."""
    values: dict[str, object]
    """What varies among the groups, with the values that this one has."""
    runs: list[Run]

    @property
    def settings(self) -> list[str]:
        """`optim.lr=0.1` and so on, for all that varies."""
        return [setting(key, value) for key, value in self.values.items()]

    @property
    def done(self) -> list[Run]:
        """The runs with a result."""
        return [run for run in self.runs if run.status == DONE]

    @property
    def has_validation(self) -> bool:
        """Whether all of these have a validation error."""
        return all(run.summary and run.summary["val_error_rate"] is not None for run in self.done)

    def by_seed(self, figure: str) -> dict[object, float]:
        """Seed → a figure (see `Run.figure`); where a seed was run more than once, the mean of its runs."""
        found: dict[object, list[float]] = {}
        for run in self.done:
            value = run.figure(figure)
            if value is not None:
                found.setdefault(run.seed, []).append(value)
        return {seed: fmean(values) for seed, values in found.items()}

    def mean(self, figure: str) -> float | None:
        """The mean over its seeds of a figure; None where no run has it."""
        values = self.by_seed(figure).values()
        return fmean(values) if values else None

    def deviation(self, figure: str) -> float | None:
        """The sample standard deviation (n − 1) over its seeds of a figure; None where fewer than two have it."""
        values = self.by_seed(figure).values()
        return stdev(values) if len(values) > 1 else None

    def mean_or(self, figure: str, missing: float) -> float:
        """The `mean`; `missing` where no run has the figure."""
        mean = self.mean(figure)
        return missing if mean is None else mean


def varying(runs: Sequence[Run]) -> list[str]:
    """The keys and groups that tell the runs apart, the seed aside, in the order in which they were asked for.

    Left out is what follows from another choice (`optim.lr` where it differs because `optim` does, and in no other
    way), what merely repeats a key (`model.dropout` is `dropout`) or the seed, and what does not change the result.
    """
    left_out = {*_not_of_the_result(runs), SEED, *own_seeds(runs)}
    keys = [key for key in _all_keys(runs) if key not in left_out and varies(runs, key)]
    choices = [key for key in keys if key in _groups(runs)]
    keys = [key for key in keys if not any(_implies(runs, choice, key) for choice in choices)]
    return [key for key in keys if not _repeats(runs, key, keys)]


def own_seeds(runs: Sequence[Run]) -> list[str]:
    """Seeds of parts that vary with the run's own and have its value everywhere (`noise_seed: ${seed}` of a source).

    Not that of the test samples that `image_folder` draws: a mean over these is not one over runs of one experiment.
    """
    found = []
    for key in _all_keys(runs):
        having = [run for run in runs if key in run.config]
        is_one = key.endswith(SEED) and key not in (SEED, "data.split_seed")
        if is_one and varies(having, key) and all(run.config[key] == run.seed for run in having):
            found.append(key)
    return found


def constant(runs: Sequence[Run]) -> dict[str, object]:
    """What is the same in all runs and worth naming: their choices, what was asked for, and the usual keys."""
    named = [*_groups(runs), *_HEADLINE, *_asked_for(runs)]
    keys = [key for key in dict.fromkeys(named) if key not in NOT_OF_THE_RESULT | {ROOT} and not varies(runs, key)]
    return {key: value for key in keys if (value := value_of(runs[0], key)) is not None}


def groups(runs: Sequence[Run]) -> list[Group]:
    """The runs by what varies, in the order in which each group's first run comes."""
    keys = varying(runs)
    found: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        found.setdefault(tuple(_identity(value_of(run, key)) for key in keys), []).append(run)
    made = [
        Group(label(members[0], keys), {key: value_of(members[0], key) for key in keys}, members)
        for members in found.values()
    ]
    if len(keys) <= MOST_NAMED:
        return made
    most = usual(made)
    return [replace(group, label=_apart(group, most)) for group in made]


def usual(groups: Sequence[Group]) -> dict[str, object]:
    """Key that varies → the value that most of the groups have."""
    found = {}
    for key in groups[0].values:
        counts = Counter(_identity(group.values[key]) for group in groups)
        commonest = counts.most_common(1)[0][0]
        found[key] = next(group.values[key] for group in groups if _identity(group.values[key]) == commonest)
    return found


def naming(groups: Sequence[Group]) -> str | None:
    """A sentence on what the labels leave out, if they do."""
    if not groups or len(groups[0].values) <= MOST_NAMED:
        return None
    most = ", ".join(setting(key, value) for key, value in usual(groups).items())
    return f"Settings are named by what sets them apart from the usual ones, which are {most}."


def _apart(group: Group, usual: Mapping[str, object]) -> str:
    own = [key for key, value in group.values.items() if _identity(value) != _identity(usual[key])]
    return ", ".join(setting(key, group.values[key]) for key in own) or USUAL


def label(run: Run, keys: Sequence[str]) -> str:
    """`optim.lr=0.1, batch_size=10`; the model's name where nothing varies."""
    if not keys:
        return run.choices.get("model", run.name)
    return ", ".join(setting(key, value_of(run, key)) for key in keys)


def setting(key: str, value: object) -> str:
    """`optim.lr=0.1`, as tables and sentences show it, so that it can be copied from there."""
    return f"{key}={printable(text(value))}"


def value_of(run: Run, key: str) -> object:
    """The value of a key, or the option that was chosen in a group; None also where the run has no such key."""
    return run.choices.get(key) if key in run.choices or key in GROUPS else run.config.get(key)


def text(value: object) -> str:
    """A value as it is typed in a config."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return yaml_word(value)
    if isinstance(value, (int, float)):
        return repr(value)
    flow: str = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False)
    return flow.strip()


def same_value(first: object, second: object) -> bool:
    """Whether two values are the same in a config: 1 and 1.0 are, 1 and true are not."""
    return _identity(first) == _identity(second)


def _not_of_the_result(runs: Sequence[Run]) -> frozenset[str]:
    """`NOT_OF_THE_RESULT`, and the folder of the data unless it is known to hold other data in some of the runs.

    Two folders hold the same if a run in one has the fingerprint of a run in the other. A run's fingerprint is that of
    the samples it uses, which with `data.subset` depend on its seed: folders whose runs share none count as different.
    """
    fingerprints: dict[str, set[object]] = {}
    for run in runs:
        found = fingerprints.setdefault(repr((run.choices.get("data"), run.config.get(ROOT))), set())
        found |= {run.provenance.get("data_fingerprint")} - {None}
    known = [found for found in fingerprints.values() if found]
    return NOT_OF_THE_RESULT | ({ROOT} if _connected(known) else frozenset())


def _connected(sets: Sequence[set[object]]) -> bool:
    """Whether a chain of sets, each sharing something with the next, leads from any set to any other."""
    if not sets:
        return True
    whole, rest = set(sets[0]), list(sets[1:])
    while touching := [one for one in rest if one & whole]:
        whole |= set().union(*touching)
        rest = [one for one in rest if not one & whole]
    return not rest


def _groups(runs: Sequence[Run]) -> list[str]:
    return [*GROUPS, *dict.fromkeys(group for run in runs for group in run.choices if group not in GROUPS)]


def _all_keys(runs: Sequence[Run]) -> list[str]:
    """Every group and key: first those that were asked for, in that order."""
    known = dict.fromkeys([*_groups(runs), *(key for run in runs for key in run.config)])
    return list(dict.fromkeys([*(key for key in _asked_for(runs) if key in known), *known]))


def _asked_for(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(split(word)[1] for run in runs for word in run.overrides))


def varies(runs: Sequence[Run], key: str) -> bool:
    """Whether a key or group has more than one value among the runs."""
    return len({_identity(value_of(run, key)) for run in runs}) > 1


def _implies(runs: Sequence[Run], choice: str, key: str) -> bool:
    """Whether a key has one value for each option of a group that may set it."""
    if key == choice or not (key.startswith(f"{choice}.") or choice == _PRESET):
        return False
    options: dict[object, list[Run]] = {}
    for run in runs:
        options.setdefault(value_of(run, choice), []).append(run)
    return not any(varies(members, key) for members in options.values())


def _repeats(runs: Sequence[Run], key: str, keys: Iterable[str]) -> bool:
    """Whether a key of a group is an interpolation of one at the top level, and so has its value everywhere."""
    top = key.rpartition(".")[2]
    return top != key and top in keys and all(run.config.get(key, run.config[top]) == run.config[top] for run in runs)


def _identity(value: object) -> str:
    """Equal for what is equal in a config: 1 and 1.0 are, 1 and true are not; lists have no hash of their own."""
    if isinstance(value, float) and value.is_integer():
        return repr(int(value))
    return repr(value)
