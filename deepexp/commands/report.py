"""usage: deepexp report PATH… [KEY=VALUE …]

The results of many runs: tables, tests of whether one is better than another, and plots. PATH is a run, a sweep, or a
folder above them; give as many as are to be compared.

  deepexp report outputs/mnist_net/2026-01-31_12-00-00_1a2b3c      a sweep
  deepexp report outputs                                           all that there is
  deepexp report SWEEP baseline=batch_norm=false                   with and without, all else equal; steps to the best
  deepexp report RUN RUN diff=true                                 what differs between two runs

  to=null             folder to write into; null: `report` in PATH, or in the folder above all of them
  baseline=null       what varies in the group to compare with, as the table has it: optim.lr=0.1; where that fits
                      several, each group is compared with the one that it shares all other settings with
  diff=false          also what differs between two runs: config, code, data, versions, machine, results
  latex=false         also for LaTeX: the plots as PDF, and table.tex (means over seeds, or the runs)
  mistakes=false      also the worst mistakes of the best run: its model is run again here, if its data can be had

Written are report.html (one file, no network), table.csv with every figure of each run, table.md, the plots and, where
there are several seeds, groups.csv with means and standard deviations. An earlier report there is replaced; other files
are not. Runs that failed, were cut off or are still running are shown as such. Curves are over epochs and seconds, over
updates where those are not the same in each epoch, and of the loss of each update where runs have five epochs or fewer.

Rates have 95% intervals (Wilson), means are over seeds. Groups with two or more common seeds are compared by a paired
t test over these, groups of several seeds each without by Welch's t test, single runs by an exact McNemar test on the
test samples; p values are corrected for the number of tests (Holm). Rows are ordered by validation error where all
runs have one (val_fraction), and never by test error.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deepexp.config import options
from deepexp.disk.storage import write_text
from deepexp.errors import InputError
from deepexp.pages import plotting
from deepexp.paths import shown
from deepexp.report import document, folder, text
from deepexp.report.make import make
from deepexp.report.model import Report
from deepexp.report.table import csv_text, groups_csv_text
from deepexp.schema import key
from deepexp.text.suggest import no_such
from deepexp.text.terminal import Stream
from deepexp.text.units import counted


@dataclass
class Options:
    """Options of `report`."""

    to: str | None = key(None, "folder to write into")
    baseline: str | None = key(None, "label of the group to compare with, or a part of it")
    diff: bool = key(False, "also what differs between two runs")
    latex: bool = key(False, "also the plots as PDF, and table.tex")
    mistakes: bool = key(False, "also the worst mistakes of the best run")


def main(argv: Sequence[str]) -> int:
    """Read, compare, write, and print the tables and the sentences."""
    chosen, words = options.parse(argv, Options)
    paths = folder.without_reports([_path(word) for word in words])
    if not paths:
        raise InputError("report: of what? Give runs, sweeps or a folder above them: deepexp report outputs")
    if chosen.to == "":  # as of a variable that is not set: the files would go into the working directory
        raise InputError("to: is empty; give the folder to write into, which may be .")
    report = make(paths, baseline=chosen.baseline, diff=chosen.diff)
    directory = folder.choose(paths, chosen.to)
    written = folder.write(directory, paths, lambda place: _write(report, place, chosen))
    out = Stream(sys.stdout, is_everything=True)
    out.write_lines([*text.lines(report, out.columns), ""])
    pictures = sum(path.suffix in (".png", ".svg", ".pdf") for path in written)
    others = ", ".join(path.name for path in written if path.suffix in (".csv", ".md", ".tex"))
    out.write(f"report: {shown(directory / 'report.html')} (with {others} and {counted(pictures, 'picture')})\n")
    return 0


def _write(report: Report, directory: Path, chosen: Options) -> None:
    write_text(directory / "table.csv", csv_text(report.runs, report.varying))
    if report.group_table is not None:
        write_text(directory / "groups.csv", groups_csv_text(report.groups, report.varying))
    write_text(directory / "table.md", text.markdown(report))
    formats = list(plotting.FORMATS)
    if chosen.latex:
        write_text(directory / "table.tex", text.latex(report))
        formats.append("pdf")
    document.write(report, directory, with_mistakes=chosen.mistakes, formats=formats)


def _path(word: str) -> Path:
    """The path that a word names. Runs of a sweep have `=` in their names: only if none is there, it is a wrong key."""
    path = Path(os.path.expanduser(word))
    name, equals, _ = word.partition("=")
    if equals and "/" not in word and not path.exists():
        raise InputError(no_such("key", name, options.names_of(Options)))
    return path
