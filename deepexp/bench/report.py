"""The results of a comparison, as a table and as JSON."""

import dataclasses
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from deepexp.bench import compare, machine
from deepexp.bench.breakdown import Breakdown
from deepexp.bench.plot import Bar, Chart
from deepexp.bench.text import short
from deepexp.process import startup
from deepexp.run import provenance
from deepexp.text.text_table import Table
from deepexp.text.units import amount, percent

OURS, PLAIN, BARE = "deepexp", "plain", "bare"
_TITLES = {"step": "step", "epoch": "epoch with its test"}


@dataclass(frozen=True)
class Setting:
    """What was measured, and on what."""

    model: str
    data: str
    optim: str
    batch_size: int | str
    precision: str
    device: str
    threads: dict[str, int]  # of each contender
    names: dict[str, str]  # of each contender, with its version
    overrides: list[str]


@dataclass(frozen=True)
class Report:
    """Figures in seconds: `step`, and `epoch` (training and test) unless it was left out for taking too long."""

    benchmark: str
    setting: Setting
    figures: dict[str, compare.Measured]
    test_error_rates: dict[str, float]
    peak_memory_bytes: dict[str, dict[str, int | None]]
    limit: dict[str, Any]
    """The machine's limit, see `limit.Limit.measure`."""
    notes: list[str]
    """A line for each contender or measurement that was left out: why."""
    kernel_share: float | None = None
    """The part of deepexp's step in which the GPU is at work; None where there is none, or it was not measured."""
    breakdown: Breakdown | None = None
    """Where deepexp's step spends its time, if that was asked for."""

    def as_json(self) -> dict[str, Any]:
        """All of it, every round included."""
        return {
            **machine.described(self.benchmark),
            "setting": dataclasses.asdict(self.setting),
            "seconds": self.figures,
            "median_seconds": {name: compare.medians(figures) for name, figures in self.figures.items()},
            "ratio": {
                name: {other: dataclasses.asdict(ratio) for other, ratio in compare.ratios(figures, OURS).items()}
                for name, figures in self.figures.items()
            },
            "test_error_rate": self.test_error_rates,
            "peak_memory_bytes": self.peak_memory_bytes,
            "limit": self.limit,
            "kernel_share": self.kernel_share,
            "breakdown": None if self.breakdown is None else dataclasses.asdict(self.breakdown),
            "notes": self.notes,
        }

    def lines(self) -> Iterator[str]:
        """For people: what was compared, and a table for each figure."""
        setting = self.setting
        yield (
            f"{setting.model} on {setting.data}, batch size {setting.batch_size}, {setting.optim}, {setting.precision}"
        )
        yield f"{setting.device}, torch {provenance.versions()['torch']}"
        if len(set(setting.threads.values())) > 1:
            yield f"threads differ: {', '.join(f'{name} {count}' for name, count in setting.threads.items())}"
        for name, figures in self.figures.items():
            yield ""
            header, *rows = self._rows(name, figures)
            yield from Table(header, rows, numeric=frozenset(range(1, len(header)))).lines()
        yield ""
        yield "medians over the rounds; the ratio is the median of those within a round, with their range"
        yield "limit: the model's convolutions and products alone, each at its best here, and the input's copy"
        if self._others_spin():
            yield "the others' idle threads spin (OpenMP's default), which slows them down on a busy machine"
        if self.limit["clock"] == "wall" and self.setting.device.startswith("cuda"):
            yield "the GPU could not be profiled, so the limit includes the time that launching its kernels takes"
        if self.kernel_share is not None:
            yield f"the GPU is at work during {percent(self.kernel_share)} of deepexp's step"
        yield from self.notes
        if self.breakdown is not None:
            yield ""
            yield from self.breakdown.table().lines()

    def _others_spin(self) -> bool:
        """Whether any runs in the user's own environment (`contest.opened`), on several threads of a CPU."""
        rivals = [threads for name, threads in self.setting.threads.items() if name not in (OURS, BARE)]
        by_default = "OMP_WAIT_POLICY" not in startup.users_environment()
        return by_default and self.setting.device.startswith("cpu") and max(rivals, default=1) > 1

    def charts(self) -> list[Chart]:
        """The step and the epoch, each with the limit of this machine."""
        what = f"{self.setting.model} on {self.setting.data}, batch size {self.setting.batch_size}"
        return [
            Chart(f"{_TITLES[name]}: {what}", self._bars(figures), self.limit[f"{name}_seconds"])
            for name, figures in self.figures.items()
        ]

    def _bars(self, figures: compare.Measured) -> list[Bar]:
        ratios = compare.ratios(figures, OURS)
        names = self.setting.names
        return [Bar(names[contender], seconds, ratios.get(contender)) for contender, seconds in figures.items()]

    def _rows(self, name: str, figures: compare.Measured) -> Iterator[tuple[str, ...]]:
        with_errors = name == "epoch" and bool(self.test_error_rates)
        ends = ("test error after it",) if with_errors else ()
        ratios = compare.ratios(figures, OURS)
        yield _TITLES[name], "time", "deepexp / this", "rounds", "peak memory", *ends
        for contender, seconds in figures.items():
            ratio = ratios[contender].shown() if contender in ratios else ""
            ends = (percent(self.test_error_rates[contender]),) if with_errors else ()
            median = short(statistics.median(seconds))
            title = self.setting.names[contender]
            yield title, median, ratio, str(len(seconds)), self._memory(contender), *ends
        at_least = self.limit[f"{name}_seconds"]
        ratio = f"{statistics.median(figures[OURS]) / at_least:.2f}"
        yield ("limit of this machine", short(at_least), ratio, "", "", *([""] if with_errors else []))

    def _memory(self, contender: str) -> str:
        main, device = (self.peak_memory_bytes[contender][kind] for kind in ("main", "device"))
        return " + ".join(amount(size, "B") for size in (main, device) if size is not None)
