"""`bench step`: one training step of a config, and an epoch with its test, against the plain loop and others."""

from collections.abc import Sequence

from deepexp.bench import compare, contest
from deepexp.bench.contest import Contest
from deepexp.bench.options import StepOptions
from deepexp.bench.report import OURS, Report
from deepexp.errors import InputError
from deepexp.text.console import progress
from deepexp.text.units import duration

_WARM_UP_STEPS = 5
_STEPS = (3, 200)  # the fewest in a turn, so that the mean says something, and the most
_PATIENCE_SECONDS = 240.0  # that whole epochs may take if nobody asked for them
_EPOCH_ROUNDS = 3


def run(options: StepOptions, overrides: Sequence[str]) -> Report:
    """Compose, check, and compare. Raises `InputError` as `deepexp train` would for the same overrides."""
    with contest.opened(overrides, options.against) as opened:
        if options.profile and opened.plan.device.type == "mps":
            raise InputError("profile: true is not allowed on mps, which torch's profiler does not see; device=cpu")
        steps = _steps(opened, options)
        figures = {"step": _steps_in_turns(opened, options, steps)}
        share = opened.trainers[OURS].kernel_share(steps)
        epoch_seconds = sum(compare.medians(figures["step"]).values()) * len(opened.plan.updates)
        count = _epoch_rounds(options, epoch_seconds)
        notes = list(opened.left_out)
        if count:
            figures["epoch"] = opened.epochs(count, {})  # test errors are no comparison: steps before differ
        elif options.epoch_rounds is None:
            notes.append(f"an epoch of all takes about {duration(epoch_seconds)}; epoch_rounds=1 measures it")
        limit, memory = opened.limit.limit(), opened.peak_memory()
        breakdown = opened.trainers[OURS].breakdown(steps) if options.profile else None  # last, as it takes memory
        return Report("step", opened.setting, figures, {}, memory, limit, notes, share, breakdown)


def _steps_in_turns(opened: Contest, options: StepOptions, steps: int) -> compare.Measured:
    contenders = opened.trainers
    with progress("measuring the step", options.rounds * len(contenders), "turns") as shown:
        return compare.rounds(contenders, lambda one: one.step_seconds(steps), options.rounds, lambda: shown.advance(1))


def _steps(opened: Contest, options: StepOptions) -> int:
    """How many steps a turn has: as many as the slowest contender makes in the time asked for."""
    for contender in opened.trainers.values():
        contender.step_seconds(_WARM_UP_STEPS)
    slowest = max(contender.step_seconds(_STEPS[0]) for contender in opened.trainers.values())
    return max(_STEPS[0], min(_STEPS[1], round(options.seconds / slowest)))


def _epoch_rounds(options: StepOptions, seconds: float) -> int:
    if options.epoch_rounds is not None:
        return options.epoch_rounds
    return _EPOCH_ROUNDS if _EPOCH_ROUNDS * seconds <= _PATIENCE_SECONDS else 0
