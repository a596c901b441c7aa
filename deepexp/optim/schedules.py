"""Learning-rate schedules: pure functions of the number of the update.

`schedule(step, total_steps)` is what the base learning rate is multiplied by at update `step`,
counted from 0, of a run of `total_steps`. There is no state, so a resumed run has none to restore.
All take `warmup`, a number of updates or a share of the run, over which the learning rate grows
linearly to what the schedule starts with (Goyal et al. 2017, section 2.2).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


class Schedule(Protocol):
    """What a run needs of a schedule; constructors raise `ValueError` for impossible arguments."""

    def __call__(self, step: int, total_steps: int) -> float:
        """The multiplier of the base learning rate at update `step` (from 0)."""

    def depends_on_horizon(self) -> bool:
        """Whether the multiplier at a given step differs between runs of different length."""

    def check(self, total_steps: int) -> None:
        """Raise `ValueError` if the schedule does not fit into a run of that length."""


class _WithWarmup:
    """What the schedules here have in common."""

    warmup: int | float

    def check(self, total_steps: int) -> None:
        if _steps(self.warmup, total_steps) > total_steps:
            raise ValueError(
                f"warmup: {self.warmup} is more than all updates of the run, {total_steps:,};"
                " take fewer, or a share of the run such as 0.1"
            )


@dataclass(frozen=True)
class Constant(_WithWarmup):
    """The base learning rate throughout."""

    warmup: int | float = 0

    def __post_init__(self) -> None:
        _check_warmup(self.warmup)

    def __call__(self, step: int, total_steps: int) -> float:
        return _ramp(step, _steps(self.warmup, total_steps))

    def depends_on_horizon(self) -> bool:
        return _is_share(self.warmup)


@dataclass(frozen=True)
class Step(_WithWarmup):
    """Times `gamma` at each milestone (at 0.5 and 0.75 of the run in He et al. 2015).

    Milestones are updates (whole numbers) or shares of the run, warm-up included; none is before the first update.
    """

    milestones: Sequence[int | float] = (0.5, 0.75)
    gamma: float = 0.1
    warmup: int | float = 0

    def __post_init__(self) -> None:
        _check_warmup(self.warmup)
        _check_number("gamma", self.gamma)
        if isinstance(self.milestones, (int, float, str)):
            raise ValueError(f"milestones: {self.milestones!r} is no list, as [0.5, 0.75] or [1000, 2000]")
        for milestone in self.milestones:
            if not (_is_share(milestone) or (isinstance(milestone, int) and milestone > 0)):
                raise ValueError(
                    f"milestones: {milestone!r} is neither an update (a whole number > 0)"
                    " nor a share of the run (between 0 and 1)"
                )

    def __call__(self, step: int, total_steps: int) -> float:
        passed = sum(step >= max(1, _steps(milestone, total_steps)) for milestone in self.milestones)
        return _ramp(step, _steps(self.warmup, total_steps)) * self.gamma**passed

    def depends_on_horizon(self) -> bool:
        return any(map(_is_share, (self.warmup, *self.milestones)))


@dataclass(frozen=True)
class _Falling(_WithWarmup):
    """After the warm-up, a curve from 1 to `final`.

    The run ends one update before `final` is reached, so that no update is without effect.
    """

    final: float = 0.0
    warmup: int | float = 0

    def __post_init__(self) -> None:
        _check_warmup(self.warmup)
        _check_number("final", self.final)

    def __call__(self, step: int, total_steps: int) -> float:
        warmup = _steps(self.warmup, total_steps)
        return _ramp(step, warmup) * self._curve(1.0, self.final, _progress(step, warmup, total_steps))

    def depends_on_horizon(self) -> bool:
        return True

    def _curve(self, start: float, end: float, progress: float) -> float:
        raise NotImplementedError


@dataclass(frozen=True)
class Cosine(_Falling):
    """After the warm-up, half a cosine from 1 to `final` (Loshchilov and Hutter 2017, equation 5)."""

    def _curve(self, start: float, end: float, progress: float) -> float:
        return _cosine(start, end, progress)


@dataclass(frozen=True)
class Linear(_Falling):
    """After the warm-up, a straight line from 1 to `final`."""

    def _curve(self, start: float, end: float, progress: float) -> float:
        return _line(start, end, progress)


@dataclass(frozen=True)
class OneCycle(_WithWarmup):
    """Up to the base learning rate and down to almost nothing (Smith and Topin 2018).

    It starts at 1/`start_division`, rises over the warm-up, and falls to
    1/(`start_division` · `final_division`) at the last update, as in torch's `OneCycleLR`, but
    leaves the momentum alone. Where there is no room to rise, it starts at the top.
    """

    warmup: int | float = 0.3
    start_division: float = 25.0
    final_division: float = 1e4
    anneal: Literal["cosine", "linear"] = "cosine"

    def __post_init__(self) -> None:
        _check_warmup(self.warmup)
        for name in ("start_division", "final_division"):
            _check_number(name, getattr(self, name), minimum=1)
        if self.anneal not in ("cosine", "linear"):
            raise ValueError(f"anneal: {self.anneal!r} is not allowed; 'cosine' or 'linear'")

    def __call__(self, step: int, total_steps: int) -> float:
        curve = _cosine if self.anneal == "cosine" else _line
        start = 1.0 / self.start_division
        top = max(_steps(self.warmup, total_steps) - 1, 0)  # the update at which the multiplier is 1
        if step < top:
            return curve(start, 1.0, step / top)
        return curve(1.0, start / self.final_division, _progress(step, top, total_steps - 1))

    def depends_on_horizon(self) -> bool:
        return True


def _steps(length: int | float, total_steps: int) -> int:
    """A length in updates, given as such or as a share of the run."""
    return length if isinstance(length, int) else round(length * total_steps)


def _is_share(length: int | float) -> bool:
    return isinstance(length, float) and 0 < length < 1


def _ramp(step: int, warmup: int) -> float:
    """1/warmup at the first update, 1 from the last one of the warm-up on."""
    return min(1.0, (step + 1) / warmup) if warmup else 1.0


def _progress(step: int, start: int, end: int) -> float:
    """0 until update `start`, 1 from update `end` on, linear in between."""
    return min(max(step - start, 0) / max(end - start, 1), 1.0)


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def _line(start: float, end: float, progress: float) -> float:
    return start + (end - start) * progress


def _check_warmup(warmup: int | float) -> None:
    if not (_is_share(warmup) or warmup == 0 or (isinstance(warmup, int) and warmup > 0)):
        raise ValueError(
            f"warmup: {warmup!r} is neither a number of updates (a whole number ≥ 0)"
            " nor a share of the run (between 0 and 1)"
        )


def _check_number(name: str, value: float, minimum: float = 0) -> None:
    if not isinstance(value, int | float) or not minimum <= value < math.inf:
        raise ValueError(f"{name}: {value!r} is not allowed; a number ≥ {minimum}")
