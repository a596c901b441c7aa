"""What differs between two runs: command line, choices, config, code, data, versions, machine, and results."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deepexp.report.runs import Run
from deepexp.report.variation import text
from deepexp.run import mixed_code
from deepexp.text.text_table import Table
from deepexp.text.units import counted

_CODE_LINES = 200
_MISSING = "-"


@dataclass(frozen=True)
class Section:
    """One kind of difference: a table of the keys whose values differ; without rows if none does."""

    title: str
    table: Table


@dataclass(frozen=True)
class Difference:
    """All that differs between two runs."""

    names: tuple[str, str]
    sections: Sequence[Section]
    code: Sequence[str]
    """How the uncommitted changes of the two differ, as lines of a unified diff."""

    @property
    def same(self) -> str:
        """`the same in both: choices, data`: the sections in which nothing differs."""
        titles = [section.title for section in self.sections if not section.table.rows]
        return f"the same in both: {', '.join(titles) or 'nothing'}"


def difference(first: Run, second: Run) -> Difference:
    """Compare two runs, finished or not."""
    sections = {
        "command line": (_picked(first.provenance, _COMMAND), _picked(second.provenance, _COMMAND)),
        "choices": (first.choices, second.choices),
        "config": (first.config, second.config),
        "code": (_code(first), _code(second)),
        "data": (_picked(first.provenance, _DATA), _picked(second.provenance, _DATA)),
        "versions": (_mapping(first, "versions"), _mapping(second, "versions")),
        "machine": (_machine(first), _machine(second)),
        "results": (_results(first), _results(second)),
    }
    found = [Section(title, _differing(first, second, *values)) for title, values in sections.items()]
    return Difference((first.name, second.name), found, list(_code_lines(first, second)))


_COMMAND = ("command_line", "working_directory")
_DATA = ("data_fingerprint", "pretrained", "pretrained_sha256")
_MACHINE = ("host", "platform", "cores", "device")


def _differing(first: Run, second: Run, a: Mapping[str, Any], b: Mapping[str, Any]) -> Table:
    """The keys whose values differ, in the order in which they stand in the runs."""
    keys = [key for key in dict.fromkeys([*a, *b]) if a.get(key, _MISSING) != b.get(key, _MISSING)]
    rows = [[key, _text(a, key), _text(b, key)] for key in keys]
    return Table(["", first.name, second.name], rows)


def _text(values: Mapping[str, Any], key: str) -> str:
    return text(values[key]) if key in values else _MISSING


def _picked(values: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {key: values[key] for key in keys if key in values}


def _mapping(run: Run, key: str) -> dict[str, Any]:
    """A part of the provenance; empty where there is none."""
    found = run.provenance.get(key)
    return dict(found) if isinstance(found, Mapping) else {}


def _code(run: Run) -> dict[str, Any]:
    git = _mapping(run, "git")
    changes = git.get("diff")
    return {
        "commit": git.get("commit") or "none: not in a git checkout",
        "uncommitted changes": counted(len(changes.splitlines()), "line")
        if isinstance(changes, str) and changes
        else "none",
        **{f"module {name}": ", ".join(sorted(found)) for name, found in mixed_code.digests(run.provenance).items()},
    }


def _machine(run: Run) -> dict[str, Any]:
    return _picked(run.provenance, _MACHINE) | _mapping(run, "choices")


def _results(run: Run) -> dict[str, Any]:
    figures = dict(run.summary or {})
    return {"status": run.status, "reason": run.reason, **{key: figures[key] for key in figures if key != "format"}}


def _code_lines(first: Run, second: Run) -> Iterator[str]:
    """How the two diffs against their commits differ; the lines after the first `_CODE_LINES` are counted only."""
    diffs = [str(_mapping(run, "git").get("diff") or "").splitlines() for run in (first, second)]
    if diffs[0] == diffs[1]:
        return
    lines = list(difflib.unified_diff(diffs[0], diffs[1], first.name, second.name, lineterm="", n=1))
    yield from lines[:_CODE_LINES]
    if len(lines) > _CODE_LINES:
        yield f"… and {counted(len(lines) - _CODE_LINES, 'more line')}"
