"""A report as text: for the terminal, and as `table.md`."""

import textwrap
from collections.abc import Iterator, Sequence

from deepexp.report.diff import Difference
from deepexp.report.model import Report
from deepexp.report.table import expendable
from deepexp.report.variation import setting
from deepexp.text.terminal import printable
from deepexp.text.text_table import Table, escape_markdown, left_out_note

LONGEST = 60
"""Rows of a table in the terminal; the files have all."""

TESTS = "Is one better than another? (5% level over all tests of this report; intervals are of each test alone)"


def lines(report: Report, columns: int | None = None) -> Iterator[str]:
    """For a terminal of so many columns; None: as wide as it comes, for a pipe or a file."""
    yield from _wrapped(report.title, columns)
    yield from _wrapped(_constant(report), columns)
    for table in _tables(report):
        yield ""
        yield from _table(table, columns, expendable(report.varying))
    for paragraph in _said(report):
        yield ""
        yield from _wrapped(paragraph, columns)
    if report.comparisons.made:
        yield ""
        yield from _wrapped(TESTS, columns)
        for sentence in report.comparisons.sentences():
            yield from _wrapped(sentence, columns, indent="  ")
    for steps in (found.table() for found in report.steps_to):
        yield ""
        yield from _wrapped(steps.caption, columns)
        yield from _table(steps, columns, ["epochs", "time", "best accuracy"], "table.md")
    if report.difference is not None:
        yield from _difference(report.difference)
    if report.notes:
        yield ""
    for note in report.notes:
        yield from _wrapped(note, columns)


def markdown(report: Report) -> str:
    """The whole report in GitHub's Markdown."""
    parts = [f"# {escape_markdown(report.title)}", escape_markdown(_constant(report))]
    for table in _tables(report):
        parts += [f"## {table.caption}", "\n".join(table.markdown())]
    parts += [escape_markdown(paragraph) for paragraph in _said(report)]
    if report.comparisons.made:
        sentences = [f"- {escape_markdown(sentence)}" for sentence in report.comparisons.sentences()]
        parts += ["## Is one better than another?", TESTS.partition("? ")[2].strip("()"), "\n".join(sentences)]
    if report.steps_to:
        parts += ["## Steps to the baseline's best"]
    for steps in (found.table() for found in report.steps_to):
        parts += ["\n".join(steps.markdown()), escape_markdown(steps.caption)]
    if report.difference is not None:
        for section in report.difference.sections:
            if section.table.rows:
                parts += [f"## What differs: {section.title}", "\n".join(section.table.markdown())]
        parts += [report.difference.same.capitalize()]
        if report.difference.code:
            parts += ["```diff\n" + "\n".join(report.difference.code).replace("```", "'''") + "\n```"]
    if report.notes:
        parts += ["## Notes", "\n".join(f"- {escape_markdown(note.strip())}" for note in report.notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def latex(report: Report) -> str:
    """The means over seeds as a table for LaTeX; where there are none, the runs."""
    table = _tables(report)[0]
    said = [f"% {printable(line)}" for line in (report.title, table.caption) if line]
    return "\n".join([*said, r"% \usepackage{booktabs}", *table.latex()]) + "\n"


def _tables(report: Report) -> list[Table]:
    return [table for table in (report.group_table, report.run_table) if table is not None]


def _constant(report: Report) -> str:
    return ", ".join(setting(key, value) for key, value in report.constant.items())


def _said(report: Report) -> list[str]:
    found = [report.naming, report.best, report.comparisons.note, *report.comparisons.not_made]
    return [sentence for sentence in found if sentence]


def _table(table: Table, columns: int | None, can_go: Sequence[str], whole_in: str = "table.csv") -> Iterator[str]:
    """Its lines; a narrow terminal gets fewer of the columns that can go, and a long table is cut."""
    fitting, dropped = table.fitted(columns, can_go)
    shown = list(fitting.lines())
    yield from shown[: LONGEST + 1]
    if len(shown) > LONGEST + 1:
        yield f"… and {len(shown) - LONGEST - 1:,} more rows, in {whole_in}"
    if dropped:
        yield from _wrapped(left_out_note(dropped, whole_in), columns)


def _difference(difference: Difference) -> Iterator[str]:
    for section in difference.sections:
        if section.table.rows:
            yield ""
            yield section.title
            yield from (f"  {line}" for line in section.table.lines())
    yield ""
    yield difference.same
    yield from difference.code


def _wrapped(sentence: str, columns: int | None, indent: str = "") -> list[str]:
    if columns is None or not sentence:
        return [indent + sentence] if sentence else []
    lead = indent + sentence[: len(sentence) - len(sentence.lstrip())]
    return textwrap.wrap(
        sentence, max(columns, 20), initial_indent=indent, subsequent_indent=f"{lead}  ", break_on_hyphens=False
    )
