"""The results of a comparison of starts, as tables, as JSON and as charts."""

import dataclasses
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from deepexp.bench import compare, machine
from deepexp.bench.plot import Bar, Chart, Stack
from deepexp.bench.report import OURS
from deepexp.bench.start_ours import PARTS
from deepexp.bench.text import short
from deepexp.run import provenance
from deepexp.text.text_table import Table

_TITLE = "start"
_EXPLAINED = (
    "from the command to the first step; medians over the rounds, deepexp's ratio within a round with its range"
)


@dataclass(frozen=True)
class Start:
    """Seconds from the command until the first update begins and until it is made, and those of each part."""

    began_seconds: float
    done_seconds: float
    parts_seconds: dict[str, float]


@dataclass(frozen=True)
class StartReport:
    """Every start of each contender."""

    model: str
    data: str
    overrides: list[str]
    device: str
    names: dict[str, str]  # of each contender, with its version
    starts: dict[str, list[Start]]
    first: Start | None
    """deepexp's very first start, if it makes a cache of the data that the others read."""
    notes: list[str]
    """A line for each contender that was left out: why."""

    @property
    def began(self) -> compare.Measured:
        """Seconds until the first update begins."""
        return {name: [start.began_seconds for start in starts] for name, starts in self.starts.items()}

    @property
    def done(self) -> compare.Measured:
        """Seconds until the first update is made."""
        return {name: [start.done_seconds for start in starts] for name, starts in self.starts.items()}

    def parts(self) -> dict[str, float]:
        """Seconds of each part of deepexp's start, in the round of median length; they add up to that."""
        ours = sorted(self.starts[OURS], key=lambda start: start.done_seconds)
        seconds = ours[(len(ours) - 1) // 2].parts_seconds
        return {part: seconds[part] for part in PARTS if part in seconds}

    def as_json(self) -> dict[str, Any]:
        """All of it, every round included."""
        figures = {"began": self.began, "done": self.done}
        return {
            **machine.described("start"),
            "setting": {"model": self.model, "data": self.data, "device": self.device, "overrides": self.overrides},
            "names": self.names,
            "seconds": figures,
            "median_seconds": {name: compare.medians(measured) for name, measured in figures.items()},
            "ratio": {
                name: {other: dataclasses.asdict(ratio) for other, ratio in compare.ratios(measured, OURS).items()}
                for name, measured in figures.items()
            },
            "parts_seconds": [start.parts_seconds for start in self.starts[OURS]],
            "first_start": None if self.first is None else dataclasses.asdict(self.first),
            "notes": self.notes,
        }

    def lines(self) -> Iterator[str]:
        """For people: a row for each contender, and one for each part of deepexp's start."""
        yield f"{self.model} on {self.data}"
        yield f"{self.device}, torch {provenance.versions()['torch']}"
        yield ""
        titles = (_TITLE, "to the first step", "to its end", "deepexp / this", "rounds")
        yield from Table(titles, list(self._rows()), numeric=frozenset(range(1, len(titles)))).lines()
        yield ""
        header = ("deepexp's start", "time", "share")
        yield from Table(header, list(self._part_rows()), numeric=frozenset({1, 2})).lines()
        yield ""
        yield _EXPLAINED
        yield "parts: those of the round of median length"
        yield from self.notes

    def charts(self) -> list[Chart | Stack]:
        """The starts until the first update is made, and the parts of deepexp's."""
        ratios = compare.ratios(self.done, OURS)
        bars = [Bar(self.names[name], seconds, ratios.get(name)) for name, seconds in self.done.items()]
        title = f"start to the end of the first step: {self.model} on {self.data}"
        return [Chart(title, bars), Stack("the parts of deepexp's start (round of median length)", self.parts())]

    def _rows(self) -> Iterator[tuple[str, ...]]:
        if self.first is not None:
            seconds = (self.first.began_seconds, self.first.done_seconds)
            yield f"{self.names[OURS]}, the first time", *map(short, seconds), "", "1"
        ratios = compare.ratios(self.done, OURS)
        for name, title in self.names.items():
            began, done = (statistics.median(measured[name]) for measured in (self.began, self.done))
            cached = ", data from the cache" if name == OURS and self.first is not None else ""
            ratio = ratios[name].shown() if name in ratios else ""
            yield f"{title}{cached}", short(began), short(done), ratio, str(len(self.done[name]))

    def _part_rows(self) -> Iterator[tuple[str, ...]]:
        parts = self.parts()
        whole = sum(parts.values())
        for part, seconds in parts.items():
            yield part, short(seconds), f"{100 * seconds / whole:.0f}%"
        yield "together", short(whole), "100%"
