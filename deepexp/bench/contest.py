"""A config and the contenders that train it, ready to be measured in turns."""

import contextlib
import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deepexp import check, weights
from deepexp.bench import compare
from deepexp.bench.process import ContenderProcess, running
from deepexp.bench.report import BARE, OURS, PLAIN, Setting
from deepexp.config import hydra_keys
from deepexp.config.compose import compose
from deepexp.config.composer import Composed
from deepexp.errors import InputError
from deepexp.process import startup
from deepexp.schema import TrainConfig
from deepexp.text.console import progress
from deepexp.text.suggest import did_you_mean

LIMIT = "limit"
PACKAGES = {"lightning": "lightning", "keras": "keras"}
"""Contenders that need a package which deepexp itself does not."""
RIVALS = (PLAIN, BARE, *PACKAGES)


@dataclass(frozen=True)
class Contest:
    """Contenders in their processes, the one that measures the machine's limit among them."""

    composed: Composed
    config: TrainConfig
    plan: check.Plan
    trainers: dict[str, ContenderProcess]
    limit: ContenderProcess
    left_out: list[str]
    """A line for each contender that does not take part: why not."""

    @property
    def setting(self) -> Setting:
        """What is measured, and on what."""
        return Setting(
            model=str(self.composed.choices["model"]),
            data=str(self.composed.choices["data"]),
            optim=str(self.composed.choices["optim"]),
            batch_size=self.config.batch_size,
            precision=self.config.precision,
            device=str(self.trainers[OURS].facts["device"]),
            threads={name: int(one.facts["threads"]) for name, one in self.trainers.items()},
            names={name: str(one.facts["name"]) for name, one in self.trainers.items()},
            overrides=list(self.composed.overrides),
        )

    def epochs(self, rounds: int, errors: dict[str, float]) -> compare.Measured:
        """Seconds of an epoch with its test; the test error rates of the last go into `errors`."""
        names = {id(contender): name for name, contender in self.trainers.items()}

        def measure(one: ContenderProcess) -> float:
            result = one.epoch()
            errors[names[id(one)]] = result["test_error_rate"]
            return result["seconds"]

        with progress("measuring epochs", rounds * len(self.trainers), "turns") as shown:
            return compare.rounds(self.trainers, measure, rounds, lambda: shown.advance(1))

    def peak_memory(self) -> dict[str, dict[str, int | None]]:
        """The most memory that each contender has had so far."""
        return {name: contender.peak_memory_bytes() for name, contender in self.trainers.items()}


@contextlib.contextmanager
def opened(overrides: Sequence[str], against: Sequence[str] | str) -> Iterator[Contest]:
    """Compose, check, and start the contenders. Raises `InputError` as `deepexp train` would for the same overrides."""
    taking_part, left_out = rivals(against)
    hydra_keys.check_effect(overrides)
    composed = compose(overrides)
    config, plan = check.typed_and_planned(composed.resolved())
    for key, is_asked in {"resume": config.resume is not None, "dry_run": config.dry_run}.items():
        if is_asked:
            raise InputError(f"{key}: a benchmark neither resumes a run nor skips training; leave it out")
    weights.resolve(config, plan)
    ours = dict(os.environ)
    rival = startup.users_environment()
    environments = {OURS: ours, **{name: ours if name == BARE else rival for name in taking_part}, LIMIT: ours}
    with running(environments, _as_sent(composed, config)) as processes:
        for name in list(processes):
            reason = processes[name].facts.get("left_out")
            if reason:
                left_out.append(f"{name} is left out: {reason}")
                processes.pop(name).close()
        limit = processes[LIMIT]
        trainers = {name: process for name, process in processes.items() if name != LIMIT}
        yield Contest(composed, config, plan, trainers, limit, left_out)


def rivals(against: Sequence[str] | str) -> tuple[list[str], list[str]]:
    """(the contenders beside deepexp, a line for each that is not installed). Raises `InputError`."""
    if against == "all":
        found = {name: _is_installed(package) for name, package in PACKAGES.items()}
        missing = [f"{name} is left out: it is not installed" for name, is_there in found.items() if not is_there]
        return [PLAIN, BARE, *(name for name, is_there in found.items() if is_there)], missing
    names = against.split(",") if isinstance(against, str) else list(against)
    for name in names:
        if name not in RIVALS:
            raise InputError(f"against: {name!r} is not allowed{did_you_mean(name, RIVALS)}; {', '.join(RIVALS)}, all")
        if name in PACKAGES and not _is_installed(PACKAGES[name]):
            raise InputError(f"against: {name} is not installed; pip install {PACKAGES[name]}")
    return list(dict.fromkeys(names)), []


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _as_sent(composed: Composed, config: TrainConfig) -> Mapping[str, Any]:
    """The resolved config, with `pretrained=auto` replaced by what it comes to, the same for all contenders."""
    resolved = composed.resolved()
    return {**resolved, "model": {**resolved["model"], **config.model.component.arguments}}
