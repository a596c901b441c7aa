"""`bench sweep`: the runs of a sweep, done by `deepexp train -m` and by separate commands, from start to end.

Whole commands are measured, as a user would type them, so that starting, checking and writing count.
"""

import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepexp.bench import compare, machine
from deepexp.bench.options import SweepOptions, check_own_runs
from deepexp.bench.plot import Bar, Chart
from deepexp.bench.text import short
from deepexp.config.compose import check_jobs, expand_sweep
from deepexp.config.overrides import quote, quote_paths
from deepexp.errors import USAGE_ERROR, InputError, RunFailed
from deepexp.process import startup
from deepexp.run import provenance
from deepexp.text.console import Progress, progress
from deepexp.text.text_table import Table
from deepexp.text.units import counted

SWEEP = "deepexp train -m"
SERIAL = "one after the other"
SPINNING = "idle threads spinning"
_GNU_SPIN_COUNT = "300000"  # libgomp's default, as in a script that uses torch
_TITLE = "measuring a sweep and its runs"
_DEFAULT_SWEEP = "seed=0,1,2,3"


@dataclass(frozen=True)
class Report:
    """Seconds of wall time of every way, in each round."""

    overrides: list[str]
    runs: int
    at_a_time: int
    figures: compare.Measured

    def as_json(self) -> dict[str, Any]:
        """All of it, every round included."""
        return {
            **machine.described("sweep"),
            "overrides": self.overrides,
            "runs": self.runs,
            "seconds": self.figures,
            "median_seconds": compare.medians(self.figures),
            "ratio": {way: dataclasses.asdict(ratio) for way, ratio in compare.ratios(self.figures, SWEEP).items()},
        }

    def lines(self) -> Iterator[str]:
        """For people: a row for each way."""
        yield f"{counted(self.runs, 'run')}: {' '.join(self.overrides)}"
        yield f"{counted(os.cpu_count() or 1, 'core')}, torch {provenance.versions()['torch']}"
        yield ""
        header = ("", "wall time", "a run", "sweep / this", "rounds")
        yield from Table(header, list(self._rows()), numeric=frozenset(range(1, len(header)))).lines()
        yield ""
        yield "medians over the rounds; the ratio is the median of those within a round, with their range"

    def charts(self) -> list[Chart]:
        """The wall time of every way."""
        ratios = compare.ratios(self.figures, SWEEP)
        bars = [Bar(way, seconds, ratios.get(way)) for way, seconds in self.figures.items()]
        return [Chart(f"wall time of {counted(self.runs, 'run')}", bars)]

    def _rows(self) -> Iterator[tuple[str, ...]]:
        ratios = compare.ratios(self.figures, SWEEP)
        for way, seconds in self.figures.items():
            median = statistics.median(seconds)
            ratio = ratios[way].shown() if way in ratios else ""
            yield way, short(median), short(median / self.runs), ratio, str(len(seconds))


def run(options: SweepOptions, overrides: Sequence[str]) -> Report:
    """Run the sweep in every way. Raises `InputError` as `deepexp train -m` would, `RunFailed` if a command fails."""
    words, points = _points(overrides)
    pairs = f"{options.at_a_time} at a time"
    spinning = {**startup.users_environment(), "GOMP_SPINCOUNT": _GNU_SPIN_COUNT}
    total = options.rounds * (1 + 3 * len(points))
    with tempfile.TemporaryDirectory(prefix="deepexp-bench-") as folder, progress(_TITLE, total, "commands") as shown:
        commands = _Commands(Path(folder), shown)
        ways: dict[str, Callable[[], float]] = {
            SWEEP: lambda: commands.seconds([["-m", *words]], 1, os.environ),
            SERIAL: lambda: commands.seconds(points, 1, os.environ),
            pairs: lambda: commands.seconds(points, options.at_a_time, os.environ),
            f"{pairs}, {SPINNING}": lambda: commands.seconds(points, options.at_a_time, spinning),
        }
        figures = compare.rounds(ways, lambda way: way(), options.rounds, lambda: None)
    return Report(list(words), len(points), options.at_a_time, figures)


def _points(overrides: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """(the words of the sweep, the words of each of its runs); four seeds where nothing varies."""
    check_own_runs("sweep", overrides)
    words = quote_paths(list(overrides))
    points = expand_sweep(words)
    if len(points) == 1:
        words = [*words, _DEFAULT_SWEEP]
        points = expand_sweep(words)
    check_jobs(points)
    return words, points


class _Commands:
    """Runs `deepexp train …` commands, which all write into one temporary folder."""

    def __init__(self, folder: Path, shown: Progress) -> None:
        self._folder = folder
        self._shown = shown
        self._running: set[subprocess.Popen[str]] = set()
        self._is_over = False

    def seconds(self, commands: Sequence[Sequence[str]], at_a_time: int, environment: Mapping[str, str]) -> float:
        """Wall time until all are done, `at_a_time` of them at once."""
        began = time.perf_counter()
        pool = ThreadPoolExecutor(at_a_time)
        try:
            for future in [pool.submit(self._command, words, environment) for words in commands]:
                future.result()
        except BaseException:  # one that fails ends the comparison, as a signal does
            self._is_over = True
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(self._running):
                process.terminate()
            raise
        finally:
            pool.shutdown()
        return time.perf_counter() - began

    def _command(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        command = [sys.executable, "-m", "deepexp", "train", *words, f"output_dir={quote(str(self._folder))}"]
        process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        self._running.add(process)
        if self._is_over:  # it began just as the others were ended
            process.terminate()
        out, err = process.communicate()
        self._running.discard(process)
        self._shown.advance(1)
        if process.returncode:
            said = (err.strip() or out.strip() or "nothing was said").replace("deepexp: ", "")
            error = InputError if process.returncode == USAGE_ERROR else RunFailed
            raise error(f"bench: deepexp train {' '.join(words)} ended with status {process.returncode}: {said}")
