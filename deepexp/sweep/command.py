"""`deepexp train -m …` and `deepexp train resume=SWEEP_DIR`: from words to a sweep, its table and its exit status.

The points come from Hydra's own multirun, so that any sweeper can be used; `jobs.py` runs them.
"""

import contextlib
import itertools
import logging
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.errors import HydraException

from deepexp.config import compose, hydra_keys, overrides
from deepexp.config.composer import Composed
from deepexp.config.conf_files import first_line
from deepexp.disk.storage import place_that_stays
from deepexp.errors import FAILURE, InputError, Interrupted, RunFailed
from deepexp.run import mixed_code, resuming, same_command
from deepexp.run.rundir import RunDirectory
from deepexp.sweep import shapes, table
from deepexp.sweep.directory import SweepDirectory, is_sweep, read_description
from deepexp.sweep.display import Display
from deepexp.sweep.foreign import check_sweep, said_again
from deepexp.sweep.jobs import Sweep
from deepexp.sweep.launcher import JobFailed
from deepexp.sweep.table import Row
from deepexp.sweep.trials import Trials
from deepexp.text.console import Console, short_path
from deepexp.text.terminal import printable
from deepexp.text.units import counted, first_few, percent

log = logging.getLogger(__name__)

OUR_LAUNCHER = "hydra_plugins.deepexp_plugins.ProcessLauncher"


@dataclass(frozen=True)
class SweepResult:
    """The result of a sweep."""

    directory: Path
    rows: list[Row]
    """One for each job, in the order of the points."""

    @property
    def failures(self) -> list[Row]:
        """The jobs without a result, except those that halving has paused."""
        return [row for row in self.rows if row.state not in ("done", "paused")]


def sweep(words: Sequence[str], console: Console) -> int:
    """Run a sweep to its end and show its table; 1 if any job has failed, else 0."""
    return FAILURE if run_sweep(words, console).failures else 0


def run_sweep(words: Sequence[str], console: Console) -> SweepResult:
    """Begin a sweep, or go on with one (`resume=SWEEP_DIR`), and show how it ends.

    `resume=auto` stands for the sweep that the same words began. Raises `InputError` before any job has started,
    `Interrupted` after a signal, `RunFailed` if nothing can be written.
    """
    if any(overrides.split(word)[1:] == ("dry_run", "true") for word in words):
        raise InputError("dry_run: shows one run, and -m makes many; leave out -m and the values with commas")
    hydra_keys.check_effect(words)
    shapes.check_settings(words)
    begun = resuming.place_in(words)
    asked = overrides.quote_paths([word for word in words if not resuming.names_place(word)])
    directory = None if begun is None else _opened(begun, asked)
    if directory is not None:
        asked = directory.words
    with console:
        try:
            first = _first(asked)
            if directory is None and resuming.wants_same_command(words):
                directory = _of_same_command(first, asked)
            if directory is None:
                directory = SweepDirectory.create(str(first.config.output_dir), first.run_name, asked)
            with place_that_stays():  # with the output_dir that errors suggest, the sweep would begin anew
                return _run(Sweep(directory, Display(console)), asked, console)
        except InputError as error:
            if directory is None or directory.ran_in in (None, os.getcwd()):
                raise
            raise InputError(
                f"{error}\nthe sweep ran in {directory.ran_in}; resume it there if it has relative paths or a ./conf"
            ) from error
        finally:
            if directory is not None:
                directory.close()


def _opened(begun: Path, asked: Sequence[str]) -> SweepDirectory:
    """The directory of the sweep to go on with, its words with those that are asked for now among them."""
    if not os.path.lexists(begun):
        raise InputError(f"{begun}: is no sweep: there is nothing of that name")
    if not is_sweep(begun):
        raise InputError(f"{begun}: is no sweep (it has no sweep.json); leave out -m to go on with a single run")
    check_sweep(begun, asked)
    new = [word for word in asked if not _names_its_place(word, begun)]
    directory = SweepDirectory.open(begun)
    directory.words = merged(directory.words, new)
    return directory


def _of_same_command(first: Composed, asked: Sequence[str]) -> SweepDirectory | None:
    """The newest sweep that was begun with the same words."""
    for path in filter(is_sweep, same_command.newest_first(first)):
        try:
            words = read_description(path)["overrides"]
        except InputError as error:
            log.warning("%s; what this command began may be there, and that sweep is passed over", error)
            continue
        if same_command.are_same(asked, words):
            return _opened(path, asked)
    return None


def _names_its_place(word: str, begun: Path) -> bool:
    """Whether a word gives `output_dir`, as the place where the sweep is; `InputError` if it gives another place."""
    _, key, value = overrides.split(word)
    if key != "output_dir" or not value:
        return False
    resuming.check_output_dir(begun, overrides.unquote(value))
    return True


def _first(words: Sequence[str]) -> Composed:
    """Check all words, and return the first point, composed."""
    points = shapes.one_at_a_time(words)
    compose.check_jobs(points)
    first = compose.compose(points[0])
    if first.hydra.launcher["_target_"] != OUR_LAUNCHER:
        raise InputError("hydra/launcher: a sweep of deepexp runs its jobs itself; leave hydra/launcher=deepexp")
    return first


def merged(before: Sequence[str], new: Sequence[str]) -> list[str]:
    """The words of a resumed sweep: new ones replace those of the same key, or are added.

    A replaced word keeps its position, since random samples are drawn in the order of the words.
    """
    return list(itertools.chain(*(_by_key(before) | _by_key(new)).values()))


def _by_key(words: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for word in words:
        found.setdefault(overrides.split(word)[1], []).append(word)
    return found


def _run(going_on: Sweep, words: Sequence[str], console: Console) -> SweepResult:
    directory = going_on.directory.path
    again = shlex.join(["deepexp", "train", f"resume={short_path(directory)}", *said_again(words)])
    try:
        _multirun(going_on, words)
    except (Interrupted, KeyboardInterrupt, RunFailed):
        if is_sweep(directory):  # else it has not begun
            _show_end(going_on, console)
            console.print(f"go on with: {again}")
        raise
    else:
        result = SweepResult(directory, _show_end(going_on, console))
        if result.failures:
            console.print(f"try them again with: {again}")
        return result
    finally:
        going_on.close()


def _multirun(going_on: Sweep, words: Sequence[str]) -> None:
    """Let Hydra's sweeper hand its points to our launcher."""
    inside = f"hydra.sweep.dir={overrides.quote(str(going_on.directory.path))}"
    try:
        compose.multirun(going_on, [*words, inside])
    except HydraException as error:
        raise InputError(first_line(error)) from error
    except JobFailed:
        log.info("the sweeper stopped at a job without a result")  # the table shows why


def _show_end(going_on: Sweep, console: Console) -> list[Row]:
    """The table, on the console and in `table.csv`, every failure with its reason and log, and what is left to do."""
    rows = going_on.rows()
    if not rows:
        return rows
    shown, directory = table.ordered(rows), going_on.directory.path
    try:
        table.write_csv(directory / "table.csv", shown)
    except RunFailed as error:  # the table can still be shown, and written once there is room again
        console.warn(str(error))
    for number, line in enumerate(table.lines(shown, console.width)):
        console.print(line, style="" if number else "bold")
    for number, line in enumerate(table.lines_over_seeds(rows)):
        console.print(line if number else f"\n{line}", style="" if number else "bold")
    for line in _best(going_on.trials):
        console.print(line)
    for line in _other_code(rows, directory):
        console.warn(line)
    for line in table.failures(rows, short_path(directory)):
        console.print(line, style="bad")
    for line in _left_to_do(going_on, rows):
        console.print(line)
    return rows


def _left_to_do(going_on: Sweep, rows: Sequence[Row]) -> Iterator[str]:
    """Lines about jobs that are not finished, settings that were not tried, and jobs that are no longer asked for."""
    behind, directory = going_on.left_behind, short_path(going_on.directory.path)
    yield from filter(None, [table.unfinished(rows, behind), table.paused(table.ordered(rows), behind, directory)])
    if going_on.trials is not None and (missing := going_on.trials.left):
        count = counted(going_on.trials.search.count, "setting")
        yield f"{missing} of {count} {'was' if missing == 1 else 'were'} not tried"
    yield from _not_asked_for(going_on)


def _not_asked_for(going_on: Sweep) -> Iterator[str]:
    """Lines about jobs that the sweep had before, and that the words given now leave out."""
    asked = {point.config_hash for point in going_on.points}
    others = [entry for name, entry in going_on.ledger.entries.items() if name not in asked]
    if others:
        path = shlex.quote(short_path(going_on.directory.path))
        yield f"{counted(len(others), 'other job')}, no longer asked for, left as before: deepexp report {path}"
    if unfinished := [printable(entry.job) for entry in others if entry.state != "done"]:
        yield f"without a result: {first_few(unfinished, most=1)} (to go on, give these values again)"


def _other_code(rows: Sequence[Row], directory: Path) -> list[str]:
    """Lines about code of the user's own that was not the same in all jobs that are done or paused."""
    found = []
    for row in rows:
        if row.state in ("done", "paused") and row.directory is not None:
            with contextlib.suppress(InputError):  # the file is damaged or lost
                provenance = RunDirectory.open(directory / row.directory).read_json("provenance.json")
                found.append((printable(row.name), provenance))
    return mixed_code.told(found)


def _best(trials: Trials | None) -> list[str]:
    """Lines about the best setting of a search, if there is one, and the command that trains it alone."""
    if trials is None or (best := trials.best()) is None:
        return []
    points = trials.search.space.points(best.setting)
    words = {shapes.key_of(word): overrides.as_typed(word) for word in points[0]}
    chosen = ", ".join(words[key] for key in trials.search.keys)
    rates = ", ".join(f"{table.RATES[name]} {percent(rate)}" for name, rate in best.rates.items())
    mean = f", the means of {len(points)} seeds" if len(points) > 1 else ""
    return [
        f"best of {counted(best.tried, 'setting')} by {table.RATES[trials.objective]}: {chosen}: {rates}{mean}",
        f"train it alone with: {shlex.join(['deepexp', 'train', *words.values()])}",
    ]
