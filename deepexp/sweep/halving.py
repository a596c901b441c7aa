"""Successive halving: all settings are trained a little, and at each look only the best of them go on.

Jamieson and Talwalkar 2016, https://arxiv.org/abs/1502.07943. Which settings go on depends on the errors of their runs
alone, not on which run was faster.
"""

import logging
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepexp.sweep.directory import evaluations, result_of
from deepexp.sweep.ledger import Entry
from deepexp.sweep.points import Point
from deepexp.sweep.settings import LauncherConfig
from deepexp.sweep.shapes import but_for_seed
from deepexp.text.units import counted

log = logging.getLogger(__name__)


@dataclass(frozen=True, order=True)
class Score:
    """How good a run was at a look; the smaller the better."""

    error: float
    """The objective, a fraction."""
    loss: float
    """On the same samples; it decides between equal error rates."""


WORST = 1.0
"""The error rate of a job without a result, as after divergence: every picture counts as wrong."""

NOTHING = Score(WORST, math.inf)
"""The score of a job without a result."""


class Halving:
    """The looks of a sweep, at which its runs are compared before their end; without halving there are none."""

    def __init__(self, config: LauncherConfig, settings: int, points: Sequence[Point], sweep: Path) -> None:
        """Plan the looks for so many `settings`; `points` tell how long runs are trained, and how often evaluated.

        Each look is after `config.halving` times as many epochs as the one before, and there are as many as leave at
        least one setting for the end. A look is left out if the next one sees the same evaluation of each run.
        """
        self.factor = config.halving or 1
        self.objective = config.objective
        self._sweep = sweep
        self.shares: list[float] = []
        """For each look, the fraction of its epochs that a run is trained for before."""
        self.share: float | None = None
        """The fraction for the look that jobs are trained to now; None: they are trained to their end."""
        if config.halving is None:
            return
        epochs = min(point.epochs for point in points)
        while self.factor ** (len(self.shares) + 1) <= min(settings, epochs / config.halving_from):
            self.shares.insert(0, self.factor ** -(len(self.shares) + 1))
        later = [*self.shares, 1.0][1:]
        self.shares = [
            share
            for share, next_share in zip(self.shares, later, strict=True)
            if any(_look_after(point, share) < _look_after(point, next_share) for point in points)
        ]
        if not self.shares:
            every = min(point.config.evaluate_every for point in points)
            what = f"{counted(settings, 'setting')} of {counted(epochs, 'epoch')}"
            what += f", evaluate_every={every}" if every > 1 else ""
            what += f", halving_from={config.halving_from}" if config.halving_from > 1 else ""
            log.warning("hydra.launcher.halving=%d: too few for a look on the way: %s", self.factor, what)

    def looks(self) -> Iterator[float | None]:
        """Yield the share of the epochs of each look, and None for the end; meanwhile `share` has the same value."""
        for share in [*self.shares, None]:
            self.share = share
            yield share

    def until(self, point: Point) -> int | None:
        """The epoch after which a run is to pause now; None: it goes on to its end."""
        epoch = point.epochs if self.share is None else _look_after(point, self.share)
        return epoch if epoch < point.epochs else None

    def is_waiting(self, point: Point, entry: Entry) -> bool:
        """Whether a job has still to be trained: to the present look, or to its end."""
        return entry.state != "done" and (self.share is None or self.score(point, entry, self.share) is None)

    def score(self, point: Point, entry: Entry, share: float) -> Score | None:
        """The score of a run at a look; None if it has not been trained so far."""
        if entry.directory is None:
            return None
        loss = self.objective.replace("error_rate", "loss")
        lines = self._evaluated(entry)
        epoch = _look_after(point, share)
        is_saved = entry.state in ("done", "paused") or (bool(lines) and lines[-1]["epoch"] > epoch)
        if not is_saved:  # the evaluation was logged, but the run may have been killed before its checkpoint
            return None
        reached = [line for line in lines if line["epoch"] >= epoch]
        if entry.state == "done":  # it may have stopped early, or lost its metrics.jsonl since
            reached = reached or lines[-1:] or [result_of(self._sweep / entry.directory)[0] or {}]
        return Score(reached[0].get(self.objective, WORST), reached[0].get(loss, math.inf)) if reached else None

    def latest(self, entry: Entry) -> dict[str, Any] | None:
        """The latest evaluation of a run, with the figures of a line of `metrics.jsonl`; None if there is none."""
        lines = self._evaluated(entry)
        return lines[-1] if lines else None

    def _evaluated(self, entry: Entry) -> list[dict[str, Any]]:
        lines = [] if entry.directory is None else evaluations(self._sweep / entry.directory)
        return [line for line in lines if line.get(self.objective) is not None]

    def best(self, points: Sequence[Point], entries: Mapping[str, Entry]) -> list[Point]:
        """The jobs of the settings that go on from the present look; a setting counts by the mean over its seeds."""
        assert self.share is not None
        scores: dict[tuple[tuple[str, str], ...], list[Score]] = {}
        for point in points:
            score = self.score(point, entries[point.config_hash], self.share)
            scores.setdefault(but_for_seed(point.varying), []).append(score or NOTHING)
        ranked = sorted(scores, key=lambda setting: _mean(scores[setting]))
        kept = set(ranked[: math.ceil(len(ranked) / self.factor)])
        return [point for point in points if but_for_seed(point.varying) in kept]

    def in_words(self, points: Sequence[Point]) -> str:
        """How far these jobs are trained now, as `to epoch 9 of 27`; nothing where there are no looks."""
        if self.share is None:
            return "to the end" if self.shares else ""
        if len({(point.epochs, point.config.evaluate_every) for point in points}) != 1:
            return f"to {self.share:.0%} of their epochs"
        return f"to epoch {_look_after(points[0], self.share)} of {points[0].epochs}"


def _look_after(point: Point, share: float) -> int:
    """The epoch after which a run is looked at: the first from its share on that is evaluated, or its last."""
    every = point.config.evaluate_every
    return min(every * math.ceil(max(round(share * point.epochs), 1) / every), point.epochs)


def _mean(scores: Sequence[Score]) -> Score:
    return Score(statistics.fmean(score.error for score in scores), statistics.fmean(score.loss for score in scores))
