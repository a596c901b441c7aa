"""A search among the runs of a report: what it minimised, and in which order it chose them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepexp.errors import InputError
from deepexp.report.runs import Run
from deepexp.sweep.ledger import read as read_ledger

_OBJECTIVES = ("val_error_rate", "test_error_rate")


@dataclass(frozen=True)
class Searched:
    """What is known of a search."""

    method: str
    objective: str
    """The figure of the summary that it minimised."""
    places: dict[Path, int]
    """Run directory → its place, from 0, in the order in which runs were chosen."""


def search_of(runs: Sequence[Run]) -> Searched | None:
    """The search that all of these are runs of; None if there is none, or its files cannot be read."""
    sweeps = {run.sweep for run in runs}
    sweep = sweeps.pop() if len(sweeps) == 1 else None
    if sweep is None:
        return None
    try:
        content: Any = json.loads((sweep / "sweep.json").read_bytes())
        search = content["search"]
        method, objective = str(search["method"]), search["objective"]
        entries = list(read_ledger(sweep / "ledger.jsonl").values())
    except (OSError, ValueError, KeyError, TypeError, RecursionError, InputError):
        return None  # most sweeps are no search; damaged files are reported where runs are read
    if objective not in _OBJECTIVES:
        return None
    return Searched(method, objective, {sweep / (entry.directory or entry.job): n for n, entry in enumerate(entries)})
