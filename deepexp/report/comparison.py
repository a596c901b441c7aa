"""Is A better than B? Tests between groups of runs, corrected for their number, in plain sentences.

If two groups have several seeds in common, a paired t test compares their settings; if each has several, but not two in
common, Welch's t test does. If there is only one training run of one of them, McNemar's test compares two trained nets,
and says nothing about settings. Which pairs are tested never depends on test figures.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean

import numpy as np

from deepexp.errors import InputError
from deepexp.report import statistics
from deepexp.report.baseline import Baseline
from deepexp.report.runs import Run
from deepexp.report.variation import NOT_OF_THE_RESULT, Group
from deepexp.text.units import percent

PAIRED_T, WELCH_T, MCNEMAR = "paired t", "Welch t", "McNemar"
SIGNIFICANT = 0.05
ALL_PAIRS = 5
"""Up to so many groups, each is compared with each; if there are more, each with one of them."""

_TEST_DATA = "test_data_fingerprint"

ONE_NET = "From one training run of each, nothing follows about other runs of the same settings."
ONE_TEST_SET = "Over seeds the training varied and not the test samples: nothing follows about other test samples."


@dataclass(frozen=True)
class Comparison:
    """One test between two groups, or between a run of each. Rates are fractions."""

    test: str
    """`PAIRED_T`, `WELCH_T` or `MCNEMAR`."""
    labels: tuple[str, str]
    rates: tuple[float, float]
    interval: tuple[float, float] | None
    """95 % interval of the second rate minus the first; None for McNemar, and where all rates are the same."""
    alone_wrong: tuple[int, int] | None
    """McNemar: the test samples on which only the first and only the second is wrong."""
    size: int
    """Paired t: seeds that are compared; Welch t: seeds of the first group; McNemar: test samples."""
    seeds: int
    """Paired t: seeds of all runs in the two groups, also of runs without a result or a partner; Welch t: those of the
    second group; McNemar: those of the group that has more."""
    p: float
    corrected_p: float
    """After Holm, over all tests of the report."""

    @property
    def is_significant(self) -> bool:
        """Whether a difference is shown, at 5 % over the whole report."""
        return self.corrected_p < SIGNIFICANT

    def sentence(self, tests: int) -> str:
        """The result in words; `tests` is the number that was corrected for."""
        swap = self.rates[1] < self.rates[0]  # the better one comes first
        labels, rates = (self.labels[::-1], self.rates[::-1]) if swap else (self.labels, self.rates)
        against = f"{percent(rates[0])} against {percent(rates[1])}"
        runs = ("the run of ", "that of ") if self.test == MCNEMAR else ("", "")
        if self.is_significant:
            claim = f"{runs[0].capitalize()}{labels[0]} makes fewer test errors than {runs[1]}{labels[1]}: {against}"
        else:
            claim = f"No difference shown between {runs[0]}{labels[0]} and {runs[1]}{labels[1]}: {against}"
        correction = f" (Holm, {tests} comparisons)" if tests > 1 else ""
        return f"{claim}, {self._how(swap)}, {self.p_in_words}{correction}"

    @property
    def p_in_words(self) -> str:
        """The corrected p value."""
        if self.corrected_p < 0.001:
            return "p < 0.001"
        digits = next(d for d in range(3, 17) if (round(self.corrected_p, d) < SIGNIFICANT) == self.is_significant)
        return f"p = {self.corrected_p:.{digits}f}"

    def _how(self, swap: bool) -> str:
        if self.alone_wrong is not None:
            first, second = self.alone_wrong[::-1] if swap else self.alone_wrong
            of_many = " (no two seeds have a result in both)" if self.seeds > 1 else ""
            return (
                f"alone wrong on {first:,} and {second:,} of the same {self.size:,} test samples, "
                f"exact McNemar test{of_many}"
            )
        if self.interval is None:
            return f"the same with each of {self._over_seeds(swap)}"
        low, high = (-self.interval[1], -self.interval[0]) if swap else self.interval
        difference = abs(self.rates[1] - self.rates[0])
        return (
            f"mean difference {100 * difference:.2f} points (95% interval {100 * low:.2f} to {100 * high:.2f}), "
            f"{self.test} over {self._over_seeds(swap)}"
        )

    def _over_seeds(self, swap: bool) -> str:
        if self.test == WELCH_T:
            sizes = (self.seeds, self.size) if swap else (self.size, self.seeds)
            return f"{sizes[0]} and {sizes[1]} seeds, of which no two have a result in both"
        if self.size == self.seeds:
            return f"{self.size} seeds"
        return f"{self.size} of {self.seeds} seeds, those with a result in both"


@dataclass(frozen=True)
class Comparisons:
    """All tests of a report."""

    made: Sequence[Comparison] = ()
    not_made: Sequence[str] = ()
    """Why two groups were not compared, a line each."""
    note: str | None = None
    """Which pairs were tested, where that is not all of them."""

    def sentences(self) -> list[str]:
        """Each result in words, and what does not follow from them."""
        found = [comparison.sentence(len(self.made)) for comparison in self.made]
        used = {ONE_NET if comparison.test == MCNEMAR else ONE_TEST_SET for comparison in self.made}
        return [*found, *(limit for limit in (ONE_NET, ONE_TEST_SET) if limit in used)]


def compare(groups: Sequence[Group], predictions: "Predictions", baseline: Baseline | None = None) -> Comparisons:
    """Test the groups against each other; only against `baseline`, or one of them, if it is given or they are many."""
    lacking = _lacking(groups, baseline)
    with_results = [group for group in groups if group.done]
    if len(with_results) == 1 < len(groups):  # its own runs are not to be compared
        return Comparisons(not_made=lacking)
    pairs, note = _pairs(with_results, baseline)
    if not pairs and lacking:
        return Comparisons(not_made=lacking)
    made: list[Comparison] = []
    refused: dict[tuple[str, str], list[str]] = {}
    for first, second in pairs:
        result = _compare(first, second, predictions)
        if isinstance(result, str):
            refused.setdefault((first.label, result), []).append(second.label)
        else:
            made.append(result)
    corrected = statistics.holm([comparison.p for comparison in made])
    made = [replace(comparison, corrected_p=p) for comparison, p in zip(made, corrected, strict=True)]
    not_made = [f"Not compared with {first}: {'; '.join(those)}: {why}" for (first, why), those in refused.items()]
    return Comparisons(made, [*not_made, *lacking], note)


def best_by_validation(groups: Sequence[Group]) -> Group | None:
    """The group with the lowest mean validation error; None unless every run with a result has one."""
    done = [group for group in groups if group.done]
    if not all(group.has_validation for group in done):
        return None
    return min(done, key=lambda group: group.mean("val_error_rate") or 0.0, default=None)


def share_data(groups: Sequence[Group]) -> bool:
    """Whether all groups with results have one data set and number of test samples; else none is best by its errors."""
    firsts = [group.done[0] for group in groups if group.done]
    kinds = {(run.choices.get("data"), run.summary["test_samples"]) for run in firsts if run.summary}
    return len(kinds) <= 1 or _are_known_to_be_one({run.provenance.get(_TEST_DATA) for run in firsts})


def _are_known_to_be_one(fingerprints: Collection[object]) -> bool:
    return len(fingerprints) == 1 and None not in fingerprints


def _lacking(groups: Sequence[Group], baseline: Baseline | None) -> list[str]:
    """Why groups are compared with no baseline at all, a line each."""
    if baseline is None:
        return []
    empty = [one.label for one in baseline.groups if not one.done]
    found = [f"Nothing is compared with the baseline, {label}: it has no result." for label in empty]
    alone = baseline.without([group for group in groups if group.done])
    return found if alone is None else [*found, alone]


def _pairs(groups: Sequence[Group], baseline: Baseline | None) -> tuple[list[tuple[Group, Group]], str | None]:
    """(pairs to be tested, why it is those), of groups with results."""
    if len(groups) == 1:
        return list(combinations(_single_runs(groups[0]), 2)), None
    if baseline is not None:
        pairs = ((baseline.of(group), group) for group in groups)
        return [(one, group) for one, group in pairs if one is not None and one.done], baseline.note
    if len(groups) <= ALL_PAIRS:
        return list(combinations(groups, 2)), None
    if not share_data(groups):
        first = groups[0]
        note = (
            f"Each group is compared with {first.label}, the first of the grid, since errors on different data are "
            "nothing to choose by; baseline=LABEL names another."
        )
    elif (best := best_by_validation(groups)) is not None:
        first = best
        note = f"Each group is compared with {first.label}, which has the lowest validation error."
    else:
        first = groups[0]
        note = (
            f"Each group is compared with {first.label}, the first of the grid, since there is no validation error "
            "to choose by; baseline=LABEL names another."
        )
    return [(first, group) for group in groups if group is not first], note


def _single_runs(group: Group) -> list[Group]:
    """The two runs of the only group as groups of their own, so that they are compared; nothing if it has not two."""
    return [Group(run.name, {}, [run]) for run in group.done] if len(group.done) == 2 else []


def _compare(first: Group, second: Group, predictions: "Predictions") -> Comparison | str:
    """The test, or why there is none."""
    if reason := predictions.why_not_comparable(first, second):
        return reason
    seeds, runs = _pairs_of_runs(first, second)
    if len(seeds) > 1:
        return _paired_t(first, second, seeds)
    if _have_several_each(first, second):
        return _welch_t(first, second)
    labels = [_named(group, run) for group, run in zip((first, second), runs[0], strict=True)]
    wrong = [predictions.wrong(run) for run in runs[0]]
    return _mcnemar((labels[0], labels[1]), wrong[0], wrong[1], max(_seeds(first.runs), _seeds(second.runs)))


def _named(group: Group, run: Run) -> str:
    """The label of a run's group and, if the group has several, which of them it is: by its seed or its name."""
    if len(group.done) == 1:
        return group.label
    is_only = sum(other.seed == run.seed for other in group.done) == 1
    return f"{group.label}, seed={run.seed}" if is_only else f"{group.label}, {run.name}"


def _seeds(runs: Sequence[Run]) -> int:
    return len({str(run.seed) for run in runs})


def _pairs_of_runs(first: Group, second: Group) -> tuple[list[str], list[tuple[Run, Run]]]:
    """(the seeds that both have, the pairs of runs that must have the same test samples): a pair for each such seed.

    If each has several seeds, but not two in common, each run is paired with the first of the other group. Otherwise,
    if they have no seed in common, it is one pair.
    """
    seeds = sorted(_rates_of(first).keys() & _rates_of(second).keys())
    if len(seeds) < 2 and _have_several_each(first, second):
        ours, theirs = first.done, second.done
        return seeds, [*((ours[0], run) for run in theirs), *((run, theirs[0]) for run in ours[1:])]
    runs = [(_of_seed(first, seed), _of_seed(second, seed)) for seed in seeds]
    return seeds, runs or [(first.done[0], second.done[0])]


def _have_several_each(first: Group, second: Group) -> bool:
    return min(len(_rates_of(group)) for group in (first, second)) > 1


def _rates_of(group: Group) -> dict[str, float]:
    """Seed → test error rate."""
    return {str(seed): rate for seed, rate in group.by_seed("test_error_rate").items()}


def _of_seed(group: Group, seed: str) -> Run:
    return next(run for run in group.done if str(run.seed) == seed)


def _paired_t(first: Group, second: Group, seeds: Sequence[str]) -> Comparison | str:
    rates = [[_rates_of(group)[seed] for seed in seeds] for group in (first, second)]
    result = statistics.paired_t(rates[0], rates[1])
    if result is None:
        return f"their difference is the same with each of {len(seeds)} seeds, for which there is no t test"
    return _over_seeds(PAIRED_T, (first, second), rates, result, _seeds([*first.runs, *second.runs]))


def _welch_t(first: Group, second: Group) -> Comparison | str:
    rates = [list(_rates_of(group).values()) for group in (first, second)]
    result = statistics.welch_t(rates[0], rates[1])
    if result is None:
        return "each has one and the same rate with all its seeds, for which there is no t test"
    return _over_seeds(WELCH_T, (first, second), rates, result, len(rates[1]))


def _over_seeds(
    test: str,
    groups: tuple[Group, Group],
    rates: Sequence[Sequence[float]],
    result: statistics.MeanDifference,
    seeds: int,
) -> Comparison:
    return Comparison(
        test=test,
        labels=(groups[0].label, groups[1].label),
        rates=(fmean(rates[0]), fmean(rates[1])),
        interval=None if result.low == result.high else (result.low, result.high),
        alone_wrong=None,
        size=len(rates[0]),
        seeds=seeds,
        p=result.p,
        corrected_p=result.p,
    )


def _mcnemar(
    labels: tuple[str, str], first: np.ndarray | None, second: np.ndarray | None, seeds: int
) -> Comparison | str:
    """`first`, `second`: (samples,) bool, whether each was misclassified."""
    if first is None or second is None:
        return "there is one run of each, and one of them has no predictions.npz to compare sample by sample"
    alone = int((first & ~second).sum()), int((second & ~first).sum())
    p = statistics.mcnemar(*alone)
    return Comparison(
        test=MCNEMAR,
        labels=labels,
        rates=(float(first.mean()), float(second.mean())),
        interval=None,
        alone_wrong=alone,
        size=len(first),
        seeds=seeds,
        p=p,
        corrected_p=p,
    )


def _data_settings(run: Run) -> dict[str, object]:
    """All that determines the fingerprint of a run's data, except the files of the data themselves."""
    keys = [key for key in run.config if key.startswith(("data.", "model.input.")) and key not in NOT_OF_THE_RESULT]
    chosen = {group: run.choices.get(group) for group in ("data", "model")}
    return chosen | {key: run.config.get(key) for key in (*keys, "seed", "val_fraction")}


_OF_TRAINING = {f"data.{name}" for name in ("root", "mode", "workers", "resize", "normalise", "subset", "replicate")}
"""Settings that every data set has: none of them chooses test samples."""


def _own_settings_that_differ(first: Run, second: Run) -> list[str]:
    """Settings of the data source itself that two runs do not share (which pictures it splits off, or generates)."""
    settings = [_data_settings(run) for run in (first, second)]
    keys = sorted(key for key in {*settings[0], *settings[1]} if key.startswith("data.") and key not in _OF_TRAINING)
    return [key for key in keys if settings[0].get(key) != settings[1].get(key)]


class Predictions:
    """Predictions, each read once, and whether two runs were tested on the same samples."""

    def __init__(self) -> None:
        self._read: dict[object, tuple[np.ndarray, np.ndarray] | str | None] = {}

    def wrong(self, run: Run) -> np.ndarray | None:
        """(samples,) bool: whether each test sample was misclassified; None if that is not known."""
        found = self._predictions(run)
        return found[0] != found[1] if isinstance(found, tuple) else None

    def why_not_comparable(self, first: Group, second: Group) -> str | None:
        """Why two groups that have results cannot be compared; None if their runs were tested on the same samples."""
        reasons = (self._why_not_same(*pair) for pair in _pairs_of_runs(first, second)[1])
        return next((reason for reason in reasons if reason is not None), None)

    def _why_not_same(self, first: Run, second: Run) -> str | None:
        """Why two runs cannot be compared; None if they were tested on the same samples, as far as that is known."""
        fingerprints = {run.provenance.get("data_fingerprint") for run in (first, second)}
        if len(fingerprints - {None}) > 1 and _data_settings(first) == _data_settings(second):
            return "their data were changed between the two (the fingerprints in provenance.json differ)"
        if not _are_known_to_be_one({run.provenance.get(_TEST_DATA) for run in (first, second)}) and (
            reason := self._why_not_known_to_be_same(first, second, fingerprints)
        ):
            return reason
        return next(self._differences(first, second), None)

    def _why_not_known_to_be_same(self, first: Run, second: Run, fingerprints: set[object]) -> str | None:
        """Why runs with these fingerprints may have been tested on other samples; None where nothing hints at it."""
        kinds = first.choices.get("data"), second.choices.get("data")
        if kinds[0] != kinds[1]:
            return f"they were tested on different data, {kinds[0]} and {kinds[1]}"
        roots = {run.config.get("data.root") for run in (first, second)}
        if len(fingerprints) > 1 and len(roots) > 1:
            return (
                f"their data lie in different places, {' and '.join(map(str, roots))}, and are not known to be the same"
            )
        if len(fingerprints - {None}) > 1 and (keys := _own_settings_that_differ(first, second)):
            return f"{', '.join(keys)} differs, so that their test samples are not known to be the same"
        return None

    def _differences(self, first: Run, second: Run) -> Iterator[str]:
        found = [self._predictions(run) for run in (first, second)]
        yield from (problem for problem in found if isinstance(problem, str))
        (a, b) = (item[1] if isinstance(item, tuple) else None for item in found)
        if a is not None and b is not None and not np.array_equal(a, b):
            yield "they were not tested on the same samples (the true classes in predictions.npz differ)"
        sizes = [run.summary["test_samples"] for run in (first, second) if run.summary]
        if len(set(sizes)) > 1:
            yield f"they were tested on {sizes[0]:,} and {sizes[1]:,} samples"

    def _predictions(self, run: Run) -> tuple[np.ndarray, np.ndarray] | str | None:
        """What is in a run's file, or what is wrong with it."""
        if run.path not in self._read:
            try:
                self._read[run.path] = run.predictions()
            except InputError as error:
                self._read[run.path] = str(error)
        return self._read[run.path]
