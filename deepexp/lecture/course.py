"""The page of the whole lecture: every demonstration and every preset, in the order of the slides.

A part that fails is shown as failed, and the rest goes on.
"""

import importlib
import logging
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deepexp import paths
from deepexp.config.catalogue import Option
from deepexp.disk.storage import named_by
from deepexp.errors import FAILURE, DeepexpError, Interrupted, RunFailed
from deepexp.lecture import chapters, training
from deepexp.lecture.chapters import Demo, Preset
from deepexp.lecture.demonstration import Demonstration, make_folder
from deepexp.lecture.training import Training
from deepexp.pages.page import Page
from deepexp.report import make as report
from deepexp.report.model import Report
from deepexp.report.plots import curves
from deepexp.report.plots.plot import Plot
from deepexp.text.units import duration

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choices:
    """The options of `deepexp lecture all`."""

    scale: Literal["quick", "standard", "full"] = "quick"
    training: bool = True
    """Whether presets are on the page, too."""

    @property
    def demo_scale(self) -> str:
        """The scale of demonstrations, which have no sizes beyond the slides'."""
        return "quick" if self.scale == "quick" else "standard"


def make(folder: Path, choices: Choices) -> int:
    """Make `index.html` in a folder, print the progress, and return the exit status: 1 if a part has failed."""
    make_folder(folder)
    page = Page("Going deeper", "The experiments of a lecture on deep learning, in the order of its slides")
    page.paragraph(
        f"Made by deepexp at scale={choices.scale}. Below each part is the command that makes it again; the same seed "
        "gives the same figures, times aside."
    )
    done = _Parts(folder, choices, page)
    began = time.perf_counter()
    for chapter in chapters.CHAPTERS:
        page.heading(chapter.title)
        for part in chapter.parts:
            if isinstance(part, Demo) or choices.training:
                done.add(part)
    with named_by("to=DIR", folder):
        page.write(folder / "index.html")
    print(f"page: {paths.shown((folder / 'index.html').absolute())}, {duration(time.perf_counter() - began)}")
    if done.failed:
        print(f"failed: {', '.join(done.failed)}")
    return FAILURE if done.failed else 0


class _Parts:
    """The parts of the page so far, and those that failed."""

    def __init__(self, folder: Path, choices: Choices, page: Page) -> None:
        self._folder, self._choices, self._page = folder, choices, page
        self.failed: list[str] = []

    def add(self, part: Demo | Preset) -> None:
        """Do one part and put it, or its error, on the page; only a signal ends the page."""
        began = time.perf_counter()
        kept = False
        try:
            if isinstance(part, Demo):
                self._demo(part)
            else:
                kept = self._preset(part)
        except Interrupted:
            raise
        except Exception as error:  # an error in one part must not stop the others
            log.info("traceback", exc_info=True)
            reason = str(error) if isinstance(error, DeepexpError) else f"{type(error).__name__}: {error}"
            self._page.note(f"Failed: {reason}", kind="warning")
            self.failed.append(part.name)
            _say(f"{part.name}: failed: {reason}")
        else:
            _say(f"{part.name}: {'kept from before' if kept else duration(time.perf_counter() - began)}")

    def _demo(self, part: Demo) -> None:
        scale = self._choices.demo_scale
        demonstrate = importlib.import_module(f"deepexp.lecture.{part.name}").demonstrate
        given = {"scale": scale} if "scale" in demonstrate.__kwdefaults__ else {}
        command = shlex.join(["deepexp", "lecture", part.name, *(f"{key}={value}" for key, value in given.items())])
        demonstration: Demonstration = demonstrate(**given)
        demonstration.write(self._folder / part.name)
        self._page.heading(demonstration.title, 3, anchor=part.name).paragraph(demonstration.text)
        for shown in demonstration.tables:
            self._page.table(shown.header, shown.rows, numeric=shown.numeric, caption=shown.caption)
        for picture in demonstration.pictures:
            self._page.figure(picture.figure, picture.caption, alt=f"{demonstration.title}: {picture.caption}")
        self._page.code(command)

    def _preset(self, part: Preset) -> bool:
        """Train a preset and put it on the page; returns whether nothing had to be trained."""
        trained = Training.below(self._folder, part.name, self._choices.scale)
        self._page.heading(_summary(part.name) or part.name, 3, anchor=f"experiment-{part.name}").paragraph(part.shows)
        at_this_scale = _summary(f"{part.name}/{self._choices.scale}")
        if at_this_scale:
            self._page.paragraph(f"scale={self._choices.scale}: {at_this_scale}")
        kept = trained.is_finished()
        failure: RunFailed | None = None
        if not kept:
            _say(f"{part.name}: {trained.command}")
            try:
                training.train(trained, lambda line: _say(f"    {line}"))
            except RunFailed as error:  # runs with a result are shown all the same
                failure = error
        if any(trained.folder.glob("*/*/*/summary.json")):
            # If some of its runs failed, the baseline may be missing.
            baseline = None if failure else part.baseline
            _show(self._page, part, report.make([trained.folder], baseline=baseline))
        self._page.code(trained.command)
        if failure is not None:
            raise failure
        return kept


def _show(page: Page, part: Preset, made: Report) -> None:
    """The tables and the curves of a preset's runs."""
    tables = [made.group_table or made.run_table, *(found.table() for found in made.steps_to)]
    for table in tables:
        page.table(table.header, table.rows, numeric=table.numeric, caption=table.caption)
    for note in made.notes:
        page.note(note, kind="warning")
    for against in part.against:
        plot = curves.draw(made.groups, against)
        if isinstance(plot, Plot):
            page.figure(plot.figure, plot.caption, alt=plot.alt)
        else:
            page.note(plot.reason)


def _summary(preset: str) -> str:
    """The first comment of a preset's YAML, or of one of its scales; empty where there is no such file."""
    files = [folder / "experiment" / f"{preset}.yaml" for folder in paths.conf_directories()]
    found = next((file for file in files if file.is_file()), None)
    return Option("experiment", preset, found, mine=False, hidden=False).summary if found else ""


def _say(line: str) -> None:
    print(line, flush=True)
