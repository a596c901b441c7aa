"""`report.html` and the pictures beside it: a `Report` as a page. Nothing is computed here."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from deepexp.errors import InputError
from deepexp.pages import plotting
from deepexp.pages.page import Cell, Page
from deepexp.report import figures
from deepexp.report.comparison import Comparison, Comparisons
from deepexp.report.diff import Difference
from deepexp.report.figures import Examined, Figures
from deepexp.report.model import Report
from deepexp.report.plots.plot import Missing, Plot
from deepexp.report.runs import DONE, FAILED, INTERRUPTED, PAUSED, RUNNING, STATUSES, Run
from deepexp.report.variation import text
from deepexp.text.text_table import Table
from deepexp.text.units import counted, first_few

_SMALLEST_MATRIX = 3  # comparisons from which on a matrix is easier to read than sentences
_MOST_IN_MATRIX = 12  # groups
_MOST_SENTENCES = 60
_MOST_COMMANDS = 12
_MOST_SAMPLES = 100
_MARKS: Mapping[str, Any] = {DONE: "", RUNNING: "muted", INTERRUPTED: "bad", FAILED: "bad", PAUSED: "muted"}


def write(
    report: Report, directory: Path, *, with_mistakes: bool = False, formats: Sequence[str] = plotting.FORMATS
) -> list[Path]:
    """Write `report.html`, and each of its pictures in these formats, into a folder; the paths of all of them.

    `with_mistakes`: also the worst mistakes of the best run, whose model is run again for it.
    """
    drawn = figures.draw(report, with_mistakes=with_mistakes)
    written = [path for plot in drawn.plots() for path in plotting.save(plot.figure, directory / plot.name, formats)]
    page(report, drawn).write(directory / "report.html")
    return [directory / "report.html", *written]


def page(report: Report, drawn: Figures) -> Page:
    """The page: the result first, then what it rests on."""
    made = Page(report.title, _counted(report.runs))
    _summary(made, report)
    _comparisons(made, report.comparisons)
    if report.steps_to:
        made.heading("Steps to the baseline's best")
    for plot, steps in zip(drawn.steps_to, report.steps_to, strict=True):
        _picture(made, plot)
        _table(made, steps.table())
    made.heading("Curves")
    _pictures(made, drawn.curves)
    if drawn.settings:
        made.heading("Error over the settings")
        _pictures(made, drawn.settings)
    _examined(made, drawn)
    if drawn.mistakes is not None:
        made.heading("Worst mistakes")
        _picture(made, drawn.mistakes)
        if isinstance(drawn.mistakes, Missing):
            made.paragraph(_misclassified(drawn.examined[0].run))
    if drawn.filters is not None:
        made.heading("First-layer filters")
        _picture(made, drawn.filters)
    if report.difference is not None:
        _difference(made, report.difference)
    _constant(made, report)
    _provenance(made, report.runs)
    return made


def _counted(runs: Sequence[Run]) -> str:
    """`16 runs: 15 done, 1 failed`."""
    numbers = [(sum(run.status == status for run in runs), status) for status in STATUSES]
    states = ", ".join(f"{number:,} {status}" for number, status in numbers if number)
    return f"{counted(len(runs), 'run')}: {states}"


def _summary(made: Page, report: Report) -> None:
    for sentence in (report.naming, report.best):
        if sentence:
            made.paragraph(sentence)
    for note, listed in _notes(report.notes):
        made.note(note, "warning")
        if listed:
            made.bullets(listed)
    made.heading("Results")
    if report.group_table is not None:
        _table(made, report.group_table)
    rows = [_row(run, row) for run, row in zip(report.runs, report.run_table.rows, strict=True)]
    _table(made, report.run_table, rows)
    full = "The same with every figure in full: table.csv"
    full += "" if report.group_table is None else "; means and standard deviations of the groups: groups.csv"
    made.paragraph(f"{full}. A click on the head of a column sorts by it.")


def _notes(notes: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Each note, with the indented lines that follow it, which are what it counts."""
    found: list[tuple[str, list[str]]] = []
    for line in (line for note in notes for line in note.splitlines()):
        if found and line.startswith(" "):
            found[-1][1].append(line.strip())
        else:
            found.append((line, []))
    return found


def _row(run: Run, texts: Sequence[str]) -> list[str | Cell]:
    """A row of the table of runs, marked if the run has no result; the notes say why."""
    mark = _MARKS.get(run.status, "bad")
    if not mark:
        return list(texts)
    cells: list[str | Cell] = [Cell(shown, mark="muted") for shown in texts[:-1]]
    return [*cells, Cell(texts[-1], mark=mark)]


def _comparisons(made: Page, found: Comparisons) -> None:
    if not (found.made or found.not_made):
        return
    made.heading("Is one better than another?")
    if found.note:
        made.paragraph(found.note)
    if found.made:
        made.paragraph("The level is 5% over all tests of this report; intervals are of each test alone.")
        made.bullets(found.sentences()[:_MOST_SENTENCES])
    if len(found.made) > _MOST_SENTENCES:
        made.paragraph(f"… and {len(found.made) - _MOST_SENTENCES:,} more.")
    names = list(dict.fromkeys(label for comparison in found.made for label in comparison.labels))
    among_each_other = len(found.made) >= len(names)  # with a baseline alone, one row would hold all of it
    if len(found.made) >= _SMALLEST_MATRIX and len(names) <= _MOST_IN_MATRIX and among_each_other:
        _matrix(made, found.made, names)
    if found.not_made:
        made.bullets(list(found.not_made)[:_MOST_SENTENCES])


def _matrix(made: Page, tests: Sequence[Comparison], names: Sequence[str]) -> None:
    cells: dict[tuple[str, str], Cell] = {}
    for test in tests:
        first, second = test.labels
        points = 100 * (test.rates[0] - test.rates[1])
        for row, column, difference in ((first, second, points), (second, first, -points)):
            mark: Any = ("good" if difference < 0 else "bad") if test.is_significant else "muted"
            cells[row, column] = Cell(f"{difference:+z.2f}, {test.p_in_words}".replace("-", "−"), mark=mark)
    rows = [[row, *(cells.get((row, column), "") for column in names)] for row in names]
    caption = (
        "Test error of the row minus that of the column, in points of a percentage, with the corrected p. Coloured: "
        "significant at 5%, and then a negative number means that the row's setting is better."
    )
    made.table(["", *names], rows, numeric=range(1, len(names) + 1), caption=caption)


def _examined(made: Page, drawn: Figures) -> None:
    if not drawn.examined:
        return
    made.heading("Confusions")
    made.paragraph(drawn.why_these)
    _pictures(made, [examined.matrix for examined in drawn.examined])
    for examined in drawn.examined:
        _confusions(made, examined)


def _confusions(made: Page, examined: Examined) -> None:
    if not examined.confusions:
        return
    rows = [[found.true, found.predicted, f"{found.samples:,} of {found.of:,}"] for found in examined.confusions]
    caption = f"{examined.run.name}: the most frequent confusions"
    made.table(["true class", "taken for", "samples"], rows, numeric=[2], caption=caption)


def _misclassified(run: Run) -> str:
    """The indices of the misclassified samples, where their pictures cannot be shown."""
    try:
        found = run.predictions()
    except InputError:
        found = None
    if found is None:
        return "Which samples are wrong is not known."
    wrong = [str(number) for number in (found[0] != found[1]).nonzero()[0].tolist()]
    return f"{run.name}, misclassified samples by their numbers: {first_few(wrong, most=_MOST_SAMPLES)}."


def _difference(made: Page, difference: Difference) -> None:
    made.heading(f"What differs between {difference.names[0]} and {difference.names[1]}")
    for section in difference.sections:
        if section.table.rows:
            made.heading(section.title.capitalize(), level=3)
            _table(made, section.table)
    made.paragraph(f"{difference.same.capitalize()}.")
    if difference.code:
        made.code("\n".join(difference.code))


def _constant(made: Page, report: Report) -> None:
    if report.constant:
        made.heading("The same in all runs")
        made.table(["key", "value"], [[key, text(value)] for key, value in report.constant.items()])


def _provenance(made: Page, runs: Sequence[Run]) -> None:
    """Where the runs come from: for each property its values, and how many runs have each."""
    made.heading("Provenance")
    values: dict[str, dict[str, int]] = {}
    for run in runs:
        for name, value in _origins(run.provenance):
            counts = values.setdefault(name, {})
            counts[value] = counts.get(value, 0) + 1
    rows = [
        [name, value if counts == {value: len(runs)} else f"{value} ({number:,} of {counted(len(runs), 'run')})"]
        for name, counts in values.items()
        for value, number in counts.items()
    ]
    made.table(["", ""], rows)
    commands = list(dict.fromkeys(str(run.provenance.get("command_line", "")) for run in runs))
    shown = [command for command in commands if command][:_MOST_COMMANDS]
    if shown:
        more = f"\n… and {len(commands) - len(shown):,} more" if len(commands) > len(shown) else ""
        made.code("\n".join(shown) + more)


def _origins(provenance: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    git = provenance.get("git")
    if isinstance(git, Mapping):
        yield "commit", f"{git.get('commit')}{', with uncommitted changes' if git.get('diff') else ''}"
    versions = provenance.get("versions")
    if isinstance(versions, Mapping):
        yield "versions", ", ".join(f"{name} {version}" for name, version in versions.items())
    for name in ("device", "host", "platform", "cores"):
        if provenance.get(name) is not None:
            yield name, str(provenance[name])
    if provenance.get("data_fingerprint"):
        yield "data", f"SHA-256 {str(provenance['data_fingerprint'])[:16]}…"


def _table(made: Page, table: Table, rows: Sequence[Sequence[str | Cell]] | None = None) -> None:
    sortable = len(table.rows) > 1
    made.table(table.header, rows or table.rows, numeric=table.numeric, caption=table.caption, sortable=sortable)


def _pictures(made: Page, plots: Sequence[Plot | Missing]) -> None:
    """Pictures side by side, and then why others are missing."""
    for plot in sorted(plots, key=lambda plot: isinstance(plot, Missing)):
        _picture(made, plot)


def _picture(made: Page, plot: Plot | Missing) -> None:
    if isinstance(plot, Missing):
        made.note(f"Not drawn: {plot.reason}.")
    else:
        made.figure(plot.figure, plot.caption, plot.alt)
