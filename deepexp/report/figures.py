"""Which plots a report has: all that can be drawn from its runs' figures, and why the others are missing."""

from collections.abc import Sequence
from dataclasses import dataclass

from deepexp.report.model import Report
from deepexp.report.plots import (
    confusion,
    curves,
    filters,
    heat_map,
    learning_rate,
    mistakes,
    parallel_coordinates,
    search,
    steps_to,
    updates,
)
from deepexp.report.plots.confusion import Confusion
from deepexp.report.plots.plot import Missing, Plot
from deepexp.report.runs import Run
from deepexp.report.saved_names import names_of_classes
from deepexp.report.searched import search_of
from deepexp.report.variation import Group

_EXAMINED = 3  # runs whose confusions are shown


@dataclass(frozen=True)
class Examined:
    """A run that is looked at more closely."""

    run: Run
    matrix: Plot | Missing
    confusions: Sequence[Confusion]


@dataclass(frozen=True)
class Figures:
    """The pictures by the section that they stand in."""

    curves: Sequence[Plot | Missing]
    settings: Sequence[Plot | Missing]
    """Error over the values of what varies."""
    steps_to: Sequence[Plot | Missing]
    """For each baseline."""
    examined: Sequence[Examined]
    why_these: str
    """How the runs that are looked at more closely were chosen."""
    filters: Plot | Missing | None
    mistakes: Plot | Missing | None = None
    """The worst mistakes of the first examined run; None unless they were asked for."""

    def plots(self) -> list[Plot]:
        """All plots that could be drawn."""
        matrices = [examined.matrix for examined in self.examined]
        every = [*self.curves, *self.settings, *self.steps_to, *matrices, self.mistakes, self.filters]
        return [plot for plot in every if isinstance(plot, Plot)]


def draw(report: Report, *, with_mistakes: bool = False) -> Figures:
    """Draw everything; the worst mistakes, for which a model has to be run again, only if that is asked for."""
    chosen, why = best_runs(report.groups)
    return Figures(
        curves=_curves(report.groups),
        settings=[*_settings(report.groups, report.varying), *_search(report)],
        steps_to=[steps_to.draw(found, place) for place, found in enumerate(report.steps_to, 1)],
        examined=[_examine(run, place) for place, run in enumerate(chosen, 1)],
        why_these=why,
        filters=filters.draw(chosen[0]) if chosen else None,
        mistakes=mistakes.draw(chosen[0]) if chosen and with_mistakes else None,
    )


def best_runs(groups: Sequence[Group]) -> tuple[list[Run], str]:
    """The best run of each of the best groups, and how they were chosen: on validation where all groups have it."""
    done = [group for group in groups if group.done]
    by_validation = all(group.has_validation for group in done)
    figure = "val_error_rate" if by_validation else "test_error_rate"
    best = sorted(done, key=lambda group: group.mean(figure) or 0.0)[:_EXAMINED]
    chosen = [min(group.done, key=lambda run: run.summary[figure] if run.summary else 1.0) for group in best]
    whose = "The run" if len(done) <= 1 else f"The runs of the best {len(chosen)} of {len(done):,} groups"
    if len(chosen) > 1 or len(done) > 1 or (done and len(done[0].done) > 1):
        kind = "validation" if by_validation else "test"
        whose += f", of each the one with the lowest {kind} error"
        if not by_validation:
            whose += "; they were chosen on test figures, so they look better than they are on new pictures"
    return chosen, f"{whose}."


def _curves(groups: Sequence[Group]) -> list[Plot | Missing]:
    found = [curves.draw(groups, "epochs")]
    if isinstance(found[0], Missing):
        return found
    if updates.are_worth_it(groups):
        found.append(updates.draw(groups))
    if not curves.same_steps_each_epoch(groups):
        found.append(curves.draw(groups, "steps"))
    return [*found, curves.draw(groups, "seconds")]


def _settings(groups: Sequence[Group], keys: Sequence[str]) -> list[Plot | Missing]:
    """The plots that suit the number of varying keys."""
    found: list[Plot | Missing] = []
    if len(keys) == 2:
        found.append(heat_map.draw(groups, keys))
    elif len(keys) > 2:
        found.append(parallel_coordinates.draw(groups, keys))
    if learning_rate.KEY in keys:
        found.append(learning_rate.draw(groups, keys))
    return found


def _search(report: Report) -> list[Plot | Missing]:
    found = search_of(report.runs)
    return [] if found is None else [search.draw(report.groups, found)]


def _examine(run: Run, place: int) -> Examined:
    names = names_of_classes(run)
    plot = confusion.draw(run, f"confusion_{place}", names)
    cells = confusion.matrix(run) if isinstance(plot, Plot) else None
    return Examined(run, plot, [] if cells is None else confusion.frequent(cells, names))
