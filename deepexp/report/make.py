"""From paths to a report: read, find what varies, make tables, compare. Nothing is written or shown here."""

from collections.abc import Sequence
from pathlib import Path

from deepexp.errors import InputError
from deepexp.report import baseline as baselines
from deepexp.report import comparison, table, variation
from deepexp.report.diff import difference
from deepexp.report.model import Report
from deepexp.report.runs import DONE, PAUSED, Reading, Run, read
from deepexp.report.steps_to import StepsTo, steps_to
from deepexp.run import mixed_code
from deepexp.text.units import counted


def make(paths: Sequence[Path], *, baseline: str | None = None, diff: bool = False) -> Report:
    """The report over all runs in `paths`. Raises `InputError` for a path without runs, or an impossible option.

    `baseline`: the label of the group to compare with, or a part of it (see `baseline.find`). `diff`: also what
    differs between the runs, which must be two.
    """
    reading = read(paths)
    if not reading.runs:
        raise InputError("\n".join([*reading.damaged, "no run could be read"]))
    if diff and len(reading.runs) != 2:
        count = len(reading.runs)
        what = f"diff: compares two runs, and {count} {'was' if count == 1 else 'were'} found"
        raise InputError("\n".join([*reading.damaged, what]))
    runs, keys = reading.runs, variation.varying(reading.runs)
    groups = variation.groups(runs)
    chosen = None if baseline is None else baselines.find(groups, baseline)
    predictions = comparison.Predictions()
    runs, shown_groups = table.ordered(runs), table.ordered_groups(groups)
    return Report(
        title=_title(runs, keys),
        paths=paths,
        runs=runs,
        damaged=reading.damaged,
        varying=keys,
        constant=variation.constant(runs),
        groups=groups,
        naming=variation.naming(groups),
        run_table=table.run_table(runs, keys),
        group_table=table.group_table(shown_groups, keys),
        best=table.best(groups),
        comparisons=comparison.compare(groups, predictions, chosen),
        steps_to=[] if chosen is None else _steps_to(groups, chosen, predictions),
        difference=difference(*reading.runs) if diff else None,
        notes=_notes(runs, groups, reading),
    )


def _steps_to(
    groups: Sequence[variation.Group], baseline: baselines.Baseline, predictions: comparison.Predictions
) -> list[StepsTo]:
    """For each baseline that has a result, and the groups that are compared with it."""
    made = (steps_to(members, one, predictions) for one, members in baseline.with_others(groups))
    return [found for found in made if found is not None]


def _title(runs: Sequence[Run], keys: Sequence[str]) -> str:
    if len(runs) == 1:
        return runs[0].name
    more = len(keys) - variation.MOST_NAMED
    what = [*keys[: variation.MOST_NAMED], f"{more} more"] if more > 0 else keys
    return f"{' × '.join(what) or 'seed'}, {counted(len(runs), 'run')}"


def _notes(runs: Sequence[Run], groups: Sequence[variation.Group], reading: Reading) -> list[str]:
    notes = [f"Damaged and left out: {line}" for line in reading.damaged]
    missing = table.failures(runs)
    if missing:
        have = "has" if len(missing) == 1 else "have"
        notes += [
            f"{len(missing):,} of {counted(len(runs), 'run')} {have} no result:",
            *(f"  {line}" for line in missing),
        ]
    if paused := sum(run.status == PAUSED for run in runs):
        were = "was" if paused == 1 else "were"
        those = f"{paused:,} of {counted(len(runs), 'run')} {were} paused"
        notes.append(f"{those}, at a comparison after which only the best go on.")
    if reading.not_started:
        have = "has" if len(reading.not_started) == 1 else "have"
        notes += [
            f"{counted(len(reading.not_started), 'job')} {have} no run:",
            *(f"  {line}" for line in reading.not_started),
        ]
    notes += mixed_code.told([(run.name, run.provenance) for run in runs if run.status in (DONE, PAUSED)])
    short = [group.label for group in groups if group.done and len(group.done) < len(group.runs)]
    if short:
        notes.append(f"Means are over the seeds that have a result, not all of them, for {'; '.join(short)}.")
    repeated = [group.label for group in groups if len({run.seed for run in group.done}) < len(group.done)]
    if repeated:
        notes.append(f"Runs with the same seed count as one, by their mean, for {'; '.join(repeated)}.")
    if any(run.balance.is_uneven for run in runs):
        notes.append(
            f"{table.BALANCED_TEST}: the mean of the classes' error rates; those of the test set differ much in size. "
            "What is compared are test errors."
        )
    if any(map(table.has_earlier_best, runs)):
        notes.append(
            f"{table.TEST_AT_BEST}: the test error after the epoch that was best in validation, whose weights are "
            "best.pt; everything else is about the weights after the last epoch."
        )
    if any(
        variation.varies(runs, key) for key in {key for run in runs for key in run.config if key.startswith("loss.")}
    ):
        notes.append("loss: runs with different ones have training and test losses that cannot be compared.")
    if own := variation.own_seeds(runs):
        notes.append(f"{', '.join(own)}: the run's own seed in each, so that over seeds what it draws varies too.")
    if any(run.summary and run.summary["pretrained"] == "random" for run in runs if run.status == DONE):
        notes.append(
            "pretrained: random: the first layer, for which there are ImageNet's weights, began with random ones."
        )
    return notes
