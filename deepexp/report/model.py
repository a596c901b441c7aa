"""What a report says, before it is shown: `document.py` and the plots draw it, `text.py` writes it as text.

Made by `make.py`, from runs alone: nothing here is read or computed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deepexp.report.comparison import Comparisons
from deepexp.report.diff import Difference
from deepexp.report.runs import Run
from deepexp.report.steps_to import StepsTo
from deepexp.report.variation import Group
from deepexp.text.text_table import Table


@dataclass(frozen=True)
class Report:
    """All that was found among some runs."""

    title: str
    """In a few words, what was varied."""
    paths: Sequence[Path]
    """The paths that were asked about."""
    runs: Sequence[Run]
    """Every run that could be read, in the order of the tables' rows."""
    damaged: Sequence[str]
    """A line for each run that could not be read."""
    varying: Sequence[str]
    """The keys that tell the groups apart."""
    constant: dict[str, object]
    """What is the same in all runs and worth naming."""
    groups: Sequence[Group]
    """Runs that differ in the seed only, in the order of the grid."""
    naming: str | None
    """A sentence on what the names of the groups leave out, if they do."""
    run_table: Table
    """A row for each run."""
    group_table: Table | None
    """A row for each group; None where no group has more than one run."""
    best: str | None
    """A sentence that names the best group, and by which figures it was chosen."""
    comparisons: Comparisons
    steps_to: Sequence[StepsTo]
    """For each baseline; none unless one was named."""
    difference: Difference | None
    """None unless it was asked for."""
    notes: Sequence[str]
    """What a reader of the figures has to know: what failed, what was left out."""
