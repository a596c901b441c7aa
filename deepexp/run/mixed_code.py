"""Whether runs that are compared were trained with the same code of the user's own, by their provenance.

Each job of a sweep imports that code as it is when the job begins, and it may have been edited while others ran.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from deepexp.text.units import first_few


def told(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """A line for each module that was not the same in all runs, given as (name, content of `provenance.json`)."""
    known: dict[str, dict[str, frozenset[str]]] = {}  # module → run → digests
    for name, provenance in runs:
        for module, found in digests(provenance).items():
            known.setdefault(module, {})[name] = frozenset(found)
    lines = []
    for module, of_runs in known.items():
        first, before = next(iter(of_runs.items()))
        others = [name for name, found in of_runs.items() if found != before]
        if others:
            lines.append(
                f"other code: {module} changed between {first} and {first_few(others)}: "
                "their results may differ for that reason alone"
            )
    return lines


def digests(provenance: Mapping[str, Any]) -> dict[str, set[str]]:
    """Module or package → its digests or versions, at the run's start and each time that it was resumed."""
    found: dict[str, set[str]] = {}
    for code in _codes(provenance):
        for module, digest in code.items():
            found.setdefault(str(module), set()).add(str(digest))
    return found


def _codes(provenance: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    resumed = provenance.get("resumed")
    for entry in (provenance, *(resumed if isinstance(resumed, list) else ())):
        code = entry.get("code") if isinstance(entry, Mapping) else None
        if isinstance(code, Mapping):
            yield code
