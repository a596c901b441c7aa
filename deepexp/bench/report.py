"""What a comparison came to, as a table and as JSON."""

import dataclasses
import os
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from deepexp import provenance
from deepexp.bench import compare
from deepexp.bench.text import short, table
from deepexp.units import amount, duration, percent

FORMAT = 1
OURS, THEIRS = "deepexp", "plain"


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
    steps_per_round: int
    overrides: list[str]


@dataclass(frozen=True)
class Report:
    """Figures in seconds: `step`, and `epoch` (training and test) unless it was left out for taking too long."""

    setting: Setting
    figures: dict[str, compare.Measured]
    test_error_rates: dict[str, float]
    peak_memory_bytes: dict[str, dict[str, int | None]]
    epoch_left_out_seconds: float | None  # what a round of epochs would have taken

    def as_json(self) -> dict[str, Any]:
        """All of it, every round included."""
        return {
            "format": FORMAT,
            "benchmark": "step",
            "setting": dataclasses.asdict(self.setting),
            "versions": provenance.versions(),
            "cores": os.cpu_count(),
            "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            "seconds": self.figures,
            "median_seconds": {name: compare.medians(figures) for name, figures in self.figures.items()},
            "ratio": {name: dataclasses.asdict(ratio) for name, ratio in self._ratios().items()},
            "test_error_rate": self.test_error_rates,
            "peak_memory_bytes": self.peak_memory_bytes,
        }

    def lines(self) -> Iterator[str]:
        """For people: what was compared, and a table."""
        setting = self.setting
        yield (
            f"{setting.model} on {setting.data}, batch size {setting.batch_size}, {setting.optim}, {setting.precision}"
        )
        yield f"{setting.device}, torch {provenance.versions()['torch']}"
        if len(set(setting.threads.values())) > 1:
            yield f"threads differ: {', '.join(f'{name} {count}' for name, count in setting.threads.items())}"
        yield ""
        yield from table([("", OURS, "plain loop", "ratio", "rounds"), *self._rows()])
        yield ""
        yield "medians over the rounds; the ratio is that within a round, with its range"
        if self.epoch_left_out_seconds is not None:
            yield f"an epoch of both takes about {duration(self.epoch_left_out_seconds)}; epoch_rounds=1 measures it"

    def _ratios(self) -> dict[str, compare.Ratio]:
        return {name: compare.ratio(figures, OURS, THEIRS) for name, figures in self.figures.items()}

    def _rows(self) -> Iterator[tuple[str, ...]]:
        titles = {"step": "step", "epoch": "epoch with its test"}
        for name, figures in self.figures.items():
            ours, theirs = (short(statistics.median(figures[contender])) for contender in (OURS, THEIRS))
            ratio = self._ratios()[name]
            shown = f"{ratio.median:.2f} ({ratio.lowest:.2f}–{ratio.highest:.2f})"
            yield titles[name], ours, theirs, shown, str(len(figures[OURS]))
        if self.test_error_rates:
            rates = (percent(self.test_error_rates[contender]) for contender in (OURS, THEIRS))
            yield ("test error after them", *rates, "", "")
        for kind, title in (("main", "peak memory"), ("device", "peak memory, GPU")):
            peaks = [self.peak_memory_bytes[contender][kind] for contender in (OURS, THEIRS)]
            if peaks[0] is not None and peaks[1] is not None:
                yield title, amount(peaks[0], "B"), amount(peaks[1], "B"), f"{peaks[0] / peaks[1]:.2f}", ""
