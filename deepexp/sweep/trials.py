"""The jobs of a search: which are next when a slot is free, and the errors of the settings so far."""

import logging
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from deepexp.errors import InputError
from deepexp.sweep.halving import WORST
from deepexp.sweep.ledger import Entry
from deepexp.sweep.points import NOTHING_STARTED, Point
from deepexp.sweep.search import Search, Setting, Trial
from deepexp.sweep.shapes import key_of
from deepexp.sweep.table import RATES, Row

log = logging.getLogger(__name__)

ENDED = ("done", "failed", "killed")


@dataclass(frozen=True)
class Best:
    """What a search has found: the setting with the least objective."""

    setting: Setting
    rates: dict[str, float]
    """Its error rates, the means over its seeds."""
    tried: int
    """Out of how many settings."""


class Jobs(Protocol):
    """What a search asks of the sweep that runs its jobs."""

    def enter(self, points: Sequence[Sequence[str]]) -> list[Point]:
        """Write jobs into the ledger; `InputError` if one is impossible."""

    def leave_out(self, place: int, setting: Sequence[str]) -> None:
        """Record that a setting, with `place` settings before it, is impossible."""

    def row(self, point: Point) -> Row:
        """The row of a job, with its result if it has one."""

    def is_waiting(self, point: Point) -> bool:
        """Whether a job has still to be trained: to the present look, or to its end."""

    def error(self, point: Point) -> float | None:
        """The error rate that the search minimises; None while it is not known."""

    def has_come_far(self, entry: Entry) -> bool:
        """Whether a job has a result, or was paused at a look before the sweep was resumed."""


class Trials:
    """The settings that a search has tried, in their order."""

    def __init__(
        self,
        search: Search,
        objective: str,
        entries: Iterable[Entry],
        impossible: Sequence[tuple[int, Sequence[str]]],
        jobs: Jobs,
    ) -> None:
        """`entries`: of the ledger. `impossible`: see `SweepDirectory`; these settings have no entries."""
        self.search = search
        self.objective = objective
        self._jobs = jobs
        entries = list(entries)
        known = [(search.setting_of(entry.overrides), jobs.has_come_far(entry)) for entry in entries]
        self.jobs_done = sum(setting is not None and done for setting, done in known)
        """How many jobs of the search had a result before it was resumed."""
        noted = [(place, setting) for place, words in impossible if (setting := search.setting_of(words)) is not None]
        self._noted = {setting for _, setting in noted}
        """The settings that turned out to be impossible before the search was resumed."""
        self._known = _in_their_order([setting for setting, _ in known if setting is not None], noted)
        """All settings that were tried before that."""
        self.jobs = max(search.count, len(self._known)) * len(search.space.seeds)
        """How many jobs there will be; more than asked for now if more settings were tried before."""
        self._points: dict[Setting, list[Point]] = {}
        self._handed: set[str] = set()
        """The hashes of the jobs that `more` has returned."""
        self._values: dict[Setting, float] = {}
        self._failed_before = {entry.config_hash for entry in entries if entry.state in ("failed", "killed")}
        self._put_off: list[Point] = []
        """Jobs that had failed before the search was resumed."""

    def more(self) -> list[Point]:
        """The jobs of the next setting; when there are enough settings, the jobs that had failed before; then none.

        Jobs that had failed come last since, with on_failure=stop, they would keep all others from being run. Until
        they are run again they count as failed.
        """
        while (setting := self._next()) is not None:
            self._points[setting] = []
            try:
                self._points[setting] = self._jobs.enter(self.search.space.points(setting))
            except InputError as error:
                swept = [word for word in setting if key_of(word) in self.search.keys]
                lines = [line for line in str(error).splitlines() if line != NOTHING_STARTED]
                log.warning(
                    "%s: is not possible, and counts as wrong in every picture: %s", ",".join(swept), "; ".join(lines)
                )
                self._values[setting] = WORST
                if setting not in self._noted:
                    self._jobs.leave_out(len(self._points) - 1, self.search.space.points(setting)[0])
            points = self._points[setting]
            missing = [p for p in points if p.config_hash not in self._handed and self._jobs.is_waiting(p)]
            self._handed.update(point.config_hash for point in missing)
            self._put_off += [point for point in missing if point.config_hash in self._failed_before]
            if fresh := [point for point in missing if point.config_hash not in self._failed_before]:
                return fresh
        failed, self._put_off = self._put_off, []
        return failed

    @property
    def in_words(self) -> str:
        """How the settings are chosen."""
        return f"chosen by {self.search.method} over {', '.join(self.search.keys)} for the least {self.objective}"

    @property
    def left(self) -> int:
        """How many settings were not tried, since the search was stopped or found no new one."""
        return max(self.search.count - len(self._points), 0)

    def best(self) -> Best | None:
        """What the search has found among the settings that came to their end; None if nothing has a result."""
        rows = {setting: [self._jobs.row(point) for point in points] for setting, points in self._points.items()}
        ended = {setting: jobs for setting, jobs in rows.items() if jobs and all(row.state in ENDED for row in jobs)}
        setting = min(ended, key=lambda setting: _mean(ended[setting], self.objective), default=None)
        if setting is None or all(row.summary is None for row in ended[setting]):
            return None
        best = ended[setting]
        known = [name for name in RATES if all(row.summary is None or row.summary[name] is not None for row in best)]
        tried = sum(trial.value is not None for trial in self._trials())
        return Best(setting, {name: _mean(best, name) for name in known}, tried)

    def _next(self) -> Setting | None:
        for setting in self._known:
            if setting not in self._points:
                return setting
        return self.search.next(self._trials())

    def _trials(self) -> list[Trial]:
        return [Trial(setting, self._value(setting)) for setting in self._points]

    def _value(self, setting: Setting) -> float | None:
        """The mean over the seeds, once all of its jobs have ended."""
        if setting not in self._values:
            errors = [self._jobs.error(point) for point in self._points[setting]]
            known = [error for error in errors if error is not None]
            if len(known) < len(errors):
                return None
            self._values[setting] = statistics.fmean(known)
        return self._values[setting]


def _in_their_order(entered: Sequence[Setting], noted: Sequence[tuple[int, Setting]]) -> list[Setting]:
    """Each setting once: those of the ledger, and impossible ones at their places, since a choice depends on the order.

    `noted`: (how many settings come before it, an impossible setting).
    """
    refused = {setting for _, setting in noted}
    found = [setting for setting in dict.fromkeys(entered) if setting not in refused]
    for place, setting in noted:
        found.insert(place, setting)
    return found


def _mean(rows: Sequence[Row], name: str) -> float:
    return statistics.fmean(WORST if row.summary is None else row.summary[name] for row in rows)
