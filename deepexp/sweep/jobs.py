"""The jobs of a sweep: which points are run, skipped or resumed, and what is recorded about each."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from deepexp.errors import Interrupted
from deepexp.run.saved_config import began_with
from deepexp.sweep import pool, server, shapes
from deepexp.sweep.directory import LEDGER, LOGS, SweepDirectory, can_go_on, finished, result_of
from deepexp.sweep.display import Display
from deepexp.sweep.halving import WORST, Halving
from deepexp.sweep.ledger import Entry, Ledger, read
from deepexp.sweep.points import (
    Checked,
    Point,
    check_points,
    check_pretrained,
    choose_data_mode,
    choose_pretrained,
    settled,
    warn,
)
from deepexp.sweep.search import Search
from deepexp.sweep.settings import LauncherConfig
from deepexp.sweep.shared_data import SharedData
from deepexp.sweep.slots import Slot, make_slots, threads_of_a_job
from deepexp.sweep.table import Row
from deepexp.sweep.trials import ENDED, Trials
from deepexp.sweep.watcher import JobWatcher
from deepexp.sweep.worker import Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Handed:
    """What a launcher is handed with a batch of points."""

    config: LauncherConfig
    fixed: Collection[str]
    """Keys that do not vary."""
    needs_objective: bool
    """Whether the sweeper, or the launcher, chooses by the results of jobs."""

    @property
    def needs_validation(self) -> bool:
        """Whether these results are errors on validation data."""
        return self.needs_objective and self.config.objective == "val_error_rate"


class Sweep:
    """The sweep that this process runs, in a directory that it has locked; `launch` is called for each batch."""

    def __init__(self, directory: SweepDirectory, display: Display) -> None:
        self.directory = directory
        self.display = display
        self.points: list[Point] = []
        """Every point that a sweeper or search has given, once each."""
        self.trials: Trials | None = None
        """The settings of a search, if there is one."""
        self.halving = Halving(LauncherConfig(), 1, [], directory.path)
        """When runs are compared before their end."""
        self.left_behind: set[str] = set()
        """The names of jobs that halving has stopped since this process began."""
        self._ledger: Ledger | None = None
        self._data = SharedData()
        self._slots: Sequence[Slot] = ()
        self._fixed: Collection[str] = ()

    @property
    def ledger(self) -> Ledger:
        """The ledger; it is made with the first batch that has passed all checks."""
        if self._ledger is None:
            self.directory.save()
            self._ledger = Ledger(self.directory.path / LEDGER)
        return self._ledger

    def launch(self, points: Sequence[Sequence[str]], handed: Handed) -> list[Row]:
        """Check the points, run those that have no result yet, and return a row for each, in order.

        Raises `InputError` before anything has started if a point is impossible or its data cannot be loaded,
        `Interrupted` if a signal came.
        """
        server.start()  # it gets ready while the points are checked
        checked = check_points(points, handed.fixed, needs_validation=handed.needs_validation)
        once = list({repr(point.config): point for point in checked}.values())
        if len(once) < len(checked):
            log.warning("%d of %d points are the same as others, and run once", len(checked) - len(once), len(checked))
        warn(checked)
        self._slots = _slots(handed, once, len(once))
        batch = self._ready(checked)
        self._enter(batch)
        settings = len({shapes.but_for_seed(point.varying) for point in batch})
        self.halving = Halving(handed.config, settings, batch, self.directory.path)
        jobs = {point.config_hash: point for point in batch}
        has_failed = {name: self.ledger.entries[name].state in ("failed", "killed") for name in jobs}
        # What has failed before comes last: with on_failure=stop it would keep the others from ever being run.
        self._run(sorted(jobs.values(), key=lambda point: has_failed[point.config_hash]), handed.config)
        return [self.row(point) for point in batch]

    def search(self, search: Search, handed: Handed) -> list[Row]:
        """Run the jobs of settings that a search chooses, each when a slot is free; a row for each job.

        Settings of that search in the ledger count as tried, and their unfinished jobs come first. Raises as `launch`
        does; a setting that turns out to be impossible later is left out, and the search goes on.
        """
        server.start()
        corners = check_points(
            shapes.corners(search.space.axes), handed.fixed, needs_validation=handed.needs_validation
        )
        warn(corners)
        self._slots = _slots(handed, corners, search.count * len(search.space.seeds))
        self._fixed = handed.fixed
        self.directory.search = search.described() | {"objective": handed.config.objective}
        self.halving = Halving(handed.config, search.count, self._ready(corners), self.directory.path)
        entries, impossible = self.ledger.entries.values(), self.directory.impossible
        self.trials = Trials(search, handed.config.objective, entries, impossible, self)
        self._run([], handed.config, self.trials)
        return self.rows()

    def enter(self, points: Sequence[Sequence[str]]) -> list[Point]:
        """Check jobs of a search, and write them into the ledger; `InputError` if one is impossible."""
        batch = self._ready(check_points(points, self._fixed, needs_validation=False))
        self._enter(batch)
        return batch

    def leave_out(self, place: int, setting: Sequence[str]) -> None:
        """Record an impossible setting of a search, with `place` settings before it, for when the search is resumed."""
        self.directory.impossible.append((place, list(setting)))
        self.directory.save()

    def is_waiting(self, point: Point) -> bool:
        """Whether a job has still to be trained: to the present look, or to its end."""
        return self.halving.is_waiting(point, self.ledger.entries[point.config_hash])

    def error(self, point: Point) -> float | None:
        """The objective of a job, at the first look if there is one, else at its end; None while it is not known."""
        for share in self.halving.shares[:1]:
            if (score := self.halving.score(point, self.ledger.entries[point.config_hash], share)) is not None:
                return score.error
        row = self.row(point)
        if row.state not in ENDED:
            return None
        return WORST if row.summary is None else float(row.summary[self.halving.objective])

    def has_come_far(self, entry: Entry) -> bool:
        """Whether a job has a result, or was paused at a look before the sweep was resumed."""
        is_paused = entry.state == "paused" and can_go_on(self.directory.path / str(entry.directory))
        return self._is_done(entry) or (is_paused and bool(self.halving.shares))

    def latest(self, entry: Entry) -> dict[str, Any] | None:
        """The latest evaluation of a job that has paused, if there is one."""
        return self.halving.latest(entry)

    def rows(self) -> list[Row]:
        """A row for every point."""
        return [self.row(point) for point in self.points]

    def row(self, point: Point) -> Row:
        """The row of a point; it has failed if its result cannot be read, whatever the ledger says."""
        entry = self.ledger.entries[point.config_hash]
        summary = latest = None
        if entry.directory and entry.state == "paused":
            latest = self.latest(entry)
        if entry.directory and entry.state == "done":
            summary, trouble = result_of(self.directory.path / entry.directory)
            if trouble is not None:
                entry = replace(entry, state="failed", reason=trouble)
        return Row(
            name=point.name,
            varying=point.varying,
            state=entry.state,
            summary=summary,
            reason=entry.reason,
            log=entry.log,
            directory=entry.directory,
            tries=entry.tries,
            latest=latest,
        )

    def close(self) -> None:
        """Close the ledger, and give up the shared pictures."""
        self._data.close()
        if self._ledger is not None:
            self._ledger.close()

    def _ready(self, checked: Sequence[Checked]) -> list[Point]:
        """The points with the hashes by which the ledger knows them; data of points without a result are loaded.

        Nothing is written.
        """
        entries = self._ledger.entries if self._ledger is not None else read(self.directory.path / LEDGER)
        batch = [_as_entered(point, entries) for point in self._settle(checked)]
        unfinished = self._without_result(batch, entries)
        check_pretrained([point for point in unfinished if not self._has_checkpoint(entries.get(point.config_hash))])
        self._data.load(unfinished)
        return batch

    def _settle(self, checked: Sequence[Checked]) -> list[Point]:
        """The points with the sweep's choices, which are made when first needed and kept from then on."""
        choices = self.directory.choices
        before = replace(choices)
        if choices.pretrained is None:
            choices.pretrained = choose_pretrained(checked)
        if choices.threads is None:
            choices.threads = threads_of_a_job(len(self._slots))
        if choices.data_mode is None:
            choices.data_mode = choose_data_mode(checked, self._slots)
        if self._ledger is not None and choices != before:
            self.directory.save()
        return [settled(point, choices) for point in checked]

    def _without_result(self, batch: Sequence[Point], entries: Mapping[str, Entry]) -> list[Point]:
        """The points that will be run, once each; nothing is written."""
        once = {point.config_hash: point for point in batch}
        return [point for name, point in once.items() if name not in entries or not self._is_done(entries[name])]

    def _has_checkpoint(self, entry: Entry | None) -> bool:
        """Whether a job will go on from a checkpoint, and so no longer needs pretrained weights."""
        run = self.directory.path / entry.directory if entry and entry.directory else None
        return run is not None and can_go_on(run) and any((run / "checkpoints").glob("*.pt"))

    def _is_done(self, entry: Entry) -> bool:
        """Whether the run of a job has finished, whatever the entry says."""
        return entry.directory is not None and finished(self.directory.path / entry.directory)

    def _enter(self, batch: Sequence[Point]) -> None:
        """Write new points into the ledger, and correct what it says of runs that have finished, or are gone."""
        known = {point.config_hash for point in self.points}
        news = {}
        for point in batch:
            if point.config_hash not in known:
                known.add(point.config_hash)
                self.points.append(point)
            entry = self.ledger.entries.get(point.config_hash)
            if entry is None:
                run = self._unknown_run(point)
                entry = Entry(point.name, point.config_hash, point.overrides, state="queued", directory=run)
                news[point.config_hash] = entry
            is_done = self._is_done(entry)
            if is_done and entry.state != "done":  # the sweep was killed before it could record that
                news[point.config_hash] = replace(entry, state="done", reason=None, log=None)
            elif entry.state == "done" and not is_done:
                news[point.config_hash] = replace(entry, state="queued", directory=None)
        self.ledger.record(*news.values())

    def _unknown_run(self, point: Point) -> str | None:
        """The directory of a run that began with this job's overrides but is missing from a damaged ledger."""
        if began_with(self.directory.path / point.name) != point.overrides:
            return None
        log.warning("%s: a run of this job is here that the ledger does not list; it is used", point.name)
        return point.name

    def _run(self, batch: Sequence[Point], config: LauncherConfig, trials: Trials | None = None) -> None:
        """Run these jobs, or those of a search, from look to look: only the best go on from one to the next."""
        more = trials.more if trials is not None else list
        watcher = JobWatcher(config, self.directory.path, self.ledger, self.display, self, more)
        limit = None if config.time_limit_minutes is None else 60 * config.time_limit_minutes
        threads = self.directory.choices.threads or 1
        for number, share in enumerate(self.halving.looks()):
            able = [point for point in batch if point.config_hash not in watcher.failed]
            if number > 0 and not able:
                return
            self._show_look(number, able, trials)
            try:
                signal_number = pool.run(watcher.tasks(batch), self._slots, threads, watcher, limit)
            finally:
                self.display.end()
            if signal_number is not None:
                raise Interrupted(signal_number, "the sweep was stopped; what its jobs had done was saved")
            if share is None or not watcher.wants_more():
                return
            looked_at = batch if number > 0 else self.points
            batch, watcher.more_points = self.halving.best(looked_at, self.ledger.entries), list
            self.left_behind |= {point.name for point in looked_at} - {point.name for point in batch}

    def _show_look(self, number: int, points: Sequence[Point], trials: Trials | None) -> None:
        """Show how far jobs are trained now, how many they are, and how many of them had been trained so far before."""
        done = sum(not self.is_waiting(point) for point in points)
        how_far = self.halving.in_words(points)
        if number > 0:
            self.display.look(len(points), done, how_far)
        elif trials is not None:
            how = ", ".join(filter(None, [trials.in_words, how_far]))
            self.display.begin(self.directory.path, trials.jobs, trials.jobs_done, len(self._slots), how)
        else:
            self.display.begin(self.directory.path, len(points), done, len(self._slots), how_far)

    def task(self, point: Point, entry: Entry, *, anew: bool = False) -> Task:
        """A try of a job: from its last checkpoint if there is one, else anew, beside what earlier tries have left."""
        run = self.directory.path / entry.directory if entry.directory else None
        goes_on = run is not None and can_go_on(run) and not anew
        return Task(
            name=point.name,
            config_hash=point.config_hash,
            overrides=point.overrides,
            directory=run if run is not None and goes_on else self.directory.free_directory(point.name),
            resumes=goes_on,
            log=self.directory.path / LOGS / f"{point.name}.log",
            until=self.halving.until(point),
            data=self._data.of(point.config),
        )


def _slots(handed: Handed, points: Sequence[Checked], jobs: int) -> list[Slot]:
    """Slots for so many jobs on the devices of these points."""
    devices = [points[index % len(points)].device for index in range(jobs)]
    any_gpu = all(point.config.device in ("auto", "cuda", "cpu") for point in points)
    return make_slots(handed.config, devices, any_gpu=any_gpu)


def _as_entered(point: Point, entries: Mapping[str, Entry]) -> Point:
    """The point under the hash by which the ledger knows it."""
    known = [name for name in (point.config_hash, *point.former_hashes) if name in entries]
    return replace(point, config_hash=known[0]) if known else point
