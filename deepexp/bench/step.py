"""`bench step`: one training step, and an epoch with its test, of a config against the plain loop."""

import os
from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from deepexp import build, check, startup
from deepexp.bench import compare
from deepexp.bench.options import StepOptions
from deepexp.bench.process import ContenderProcess, running
from deepexp.bench.report import Report, Setting
from deepexp.compose import Composed, compose
from deepexp.console import progress
from deepexp.schema import TrainConfig

_WARM_UP_STEPS = 5
_STEPS = (3, 200)  # of a turn: fewest, so that the mean says something, and most
_PATIENCE_SECONDS = 240.0  # what whole epochs may take if nobody asked for them
_EPOCH_ROUNDS = 3


def run(options: StepOptions, overrides: Sequence[str]) -> Report:
    """Compose, check, and compare. Raises `InputError` as `deepexp train` would for the same overrides."""
    composed = compose("train", overrides)
    config, plan = check.typed_and_planned(OmegaConf.to_container(composed.config, resolve=True))
    build.resolve_pretrained(config)
    environments = {"deepexp": dict(os.environ), "plain": startup.users_environment()}
    with running(environments, _as_sent(composed, config)) as contenders:
        steps = _steps(options, contenders)
        figures = {"step": _steps_in_turns(contenders, steps, options.rounds)}
        epoch_seconds = sum(compare.medians(figures["step"]).values()) * len(plan.updates)
        count = _epoch_rounds(options, epoch_seconds)
        errors: dict[str, float] = {}
        if count:
            figures["epoch"] = _epochs_in_turns(contenders, count, errors)
        setting = _setting(composed, config, contenders, steps)
        memory = {name: contender.peak_memory_bytes() for name, contender in contenders.items()}
    left_out = None if count or options.epoch_rounds == 0 else epoch_seconds
    return Report(setting, figures, errors, memory, left_out)


def _as_sent(composed: Composed, config: TrainConfig) -> dict[str, Any]:
    """The resolved config, in which `pretrained=auto` is settled for all contenders."""
    resolved = OmegaConf.to_container(composed.config, resolve=True)
    assert isinstance(resolved, dict)
    return {**resolved, "model": {**resolved["model"], **config.model.component.arguments}}


def _steps(options: StepOptions, contenders: dict[str, ContenderProcess]) -> int:
    """How many steps a turn has: as many as the slower contender makes in the time asked for."""
    for contender in contenders.values():
        contender.step_seconds(_WARM_UP_STEPS)
    slowest = max(contender.step_seconds(_STEPS[0]) for contender in contenders.values())
    return max(_STEPS[0], min(_STEPS[1], round(options.seconds / slowest)))


def _steps_in_turns(contenders: dict[str, ContenderProcess], steps: int, rounds: int) -> compare.Measured:
    with progress("measuring the step", rounds * len(contenders), "turns") as shown:
        return compare.rounds(contenders, lambda one: one.step_seconds(steps), rounds, lambda: shown.advance(1))


def _epoch_rounds(options: StepOptions, seconds: float) -> int:
    if options.epoch_rounds is not None:
        return options.epoch_rounds
    return _EPOCH_ROUNDS if _EPOCH_ROUNDS * seconds <= _PATIENCE_SECONDS else 0


def _epochs_in_turns(
    contenders: dict[str, ContenderProcess], rounds: int, errors: dict[str, float]
) -> compare.Measured:
    """Seconds of an epoch with its test; the error rates of the last go into `errors`."""
    names = {id(contender): name for name, contender in contenders.items()}

    def measure(one: ContenderProcess) -> float:
        result = one.epoch()
        errors[names[id(one)]] = result["test_error_rate"]
        return result["seconds"]

    with progress("measuring epochs", rounds * len(contenders), "turns") as shown:
        return compare.rounds(contenders, measure, rounds, lambda: shown.advance(1))


def _setting(composed: Composed, config: TrainConfig, contenders: dict[str, ContenderProcess], steps: int) -> Setting:
    return Setting(
        model=str(composed.choices["model"]),
        data=str(composed.choices["data"]),
        optim=str(composed.choices["optim"]),
        batch_size=config.batch_size,
        precision=config.precision,
        device=str(contenders["deepexp"].facts["device"]),
        threads={name: int(one.facts["threads"]) for name, one in contenders.items()},
        steps_per_round=steps,
        overrides=list(composed.overrides),
    )
