"""The paths that optimizers take on surfaces in two dimensions, as a picture and, if asked for, as an animation.

What the surfaces are is in `surfaces.py`, how frames become an animation in `animation.py`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from deepexp.errors import InputError
from deepexp.lecture import animation
from deepexp.lecture.demonstration import Demonstration, Picture, check_sizes, figures, table
from deepexp.lecture.optimizers import ABOUT_MUON, Point, check_names, optimizer_for
from deepexp.lecture.surfaces import RIDGE_X, SURFACES, Surface
from deepexp.pages import plotting
from deepexp.text.suggest import did_you_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CAPTION = "The dot is the start, the cross the minimum, the square the end, where it is in the picture or near it."
MOST_IN_A_PANEL = 4  # optimizers that a legend within the panel can name without covering their paths
LATE = 20  # steps at the end of a path, over which its oscillation is measured


@dataclass(frozen=True)
class Walk:
    """The path of one optimizer on one surface."""

    optimizer: str
    lr: float
    points: np.ndarray
    """(steps + 1, 2): x and y; shorter if it went to infinity."""
    heights: np.ndarray
    """(steps + 1,): of the surface at the points."""


def demonstrate(
    *,
    optim: list[str] | None = None,
    surfaces: list[str] | None = None,
    lr: dict[str, float] | float | None = None,
    steps: int | None = None,
    animate: bool = False,
) -> Demonstration:
    """Let optimizers walk on surfaces.

    `optim`: names of conf/optim, by default sgd, momentum, adam. `surfaces`: by default all of them. `lr`: one learning
    rate for all, or one for each optimizer that is named (`{adam: 0.1}`); others take what suits the surface. `steps`:
    by default what suits the surface. `animate`: also make a GIF.
    """
    check_sizes(steps=steps)
    chosen = optim or ["sgd", "momentum", "adam"]
    check_names(chosen)
    on = _surfaces(surfaces or list(SURFACES))
    rates = _learning_rates(lr, chosen)
    walks = {
        name: [walk(surface, each, rates.get(each, surface.lr_of(each)), steps or surface.steps) for each in chosen]
        for name, surface in on.items()
    }
    facts = {(name, walk.optimizer): _facts(on[name], walk) for name, found in walks.items() for walk in found}
    rows = [_row(on[name], walk, facts[name, walk.optimizer]) for name, found in walks.items() for walk in found]
    header = ("surface", "optimizer", "η", "steps", "height at the end", "distance", "x crossings", "y crossings")
    drawn = _draw(on, walks)
    return Demonstration(
        title="Paths of optimizers in two dimensions",
        text=" ".join(_sentences(facts)),
        tables=(table(header, rows, "Crossings: how often a coordinate passes its value at the minimum"),),
        pictures=(Picture("trajectories", drawn, _CAPTION),),
        facts={f"{name}/{each}/{fact}": value for (name, each), of in facts.items() for fact, value in of.items()},
        animations={"trajectories.gif": _animated(on, walks)} if animate else {},
    )


def walk(surface: Surface, optimizer: str, lr: float | None, steps: int) -> Walk:
    """Follow an optimizer for some steps in float64, or until it is at infinity."""
    point = Point(surface.start)
    rule = optimizer_for(optimizer, point, lr)

    def height() -> torch.Tensor:
        rule.zero_grad()
        value = surface.height(*point.weights)
        value.backward()
        return value

    # ── An optimizer knows nothing of the surface but the gradient at the point where it stands. All that distinguishes
    # ── one rule from another is what it remembers: nothing (sgd), the sum of past gradients with weights that fade
    # ── (momentum), that and the squares of the gradients in each coordinate (Adam), or how the gradient changed from
    # ── point to point (L-BFGS, which looks at several points a step and so needs the function itself to call).
    points = [point.weights.detach().clone()]
    for _ in range(steps):
        rule.step(height)  # type: ignore[arg-type]
        if not point.weights.isfinite().all():
            break
        points.append(point.weights.detach().clone())
    path = torch.stack(points)  # (steps + 1, 2)
    heights = surface.height(path[:, 0], path[:, 1])
    return Walk(optimizer, rule.param_groups[0]["lr"], path.numpy(), heights.numpy())


def crossings(coordinate: np.ndarray, goal: float) -> int:
    """How often a coordinate changes sides of its value at the minimum."""
    sides = np.sign(coordinate - goal)
    sides = sides[sides != 0]
    return int((sides[1:] != sides[:-1]).sum())


def _facts(surface: Surface, walk: Walk) -> dict[str, float]:
    goal = np.array(surface.minimum)
    beyond = (walk.points - goal) * -np.sign(np.array(surface.start) - goal)  # positive past the minimum
    first = np.abs(walk.points[1] - walk.points[0]) if len(walk.points) > 1 else np.zeros(2)
    return {
        "distance": math.hypot(*(walk.points[-1] - goal)),  # squares may be beyond float64
        "x_crossings": crossings(walk.points[:, 0], goal[0]),
        "y_crossings": crossings(walk.points[:, 1], goal[1]),
        "overshoot": max(0.0, float(beyond[:, 0].max())),
        "late_oscillation": float(np.abs(walk.points[-LATE:, 1] - goal[1]).mean()),
        "first_step_ratio": float(first[1] / first[0]) if first[0] else math.inf,
    }


def _sentences(facts: Mapping[tuple[str, str], Mapping[str, float]]) -> Iterator[str]:
    """What the facts show, by surface and optimizer, of the effects that the lecture is about."""
    yield "All start from the same point, and differ in what they make of the gradients on their way."
    seen = []
    if any(of["overshoot"] > 0 and of["x_crossings"] > 1 for (_, name), of in facts.items() if name == "momentum"):
        seen.append("runs past the minimum and comes back")
    plain, momentum = facts.get(("barrier", "sgd")), facts.get(("barrier", "momentum"))
    if plain and momentum and plain["x_crossings"] == 0 and momentum["distance"] < RIDGE_X < plain["distance"]:
        seen.append("goes through the barrier at which plain descent ends")
    plain, momentum = facts.get(("valley", "sgd")), facts.get(("valley", "momentum"))
    if (
        plain
        and momentum
        and momentum["late_oscillation"] < min(plain["late_oscillation"], SURFACES["valley"].start[1])
    ):
        seen.append("calms the oscillation across the valley")
    if seen:
        yield f"Momentum {'; it '.join(seen)}."
    adam = [of["first_step_ratio"] for (_, name), of in facts.items() if name == "adam"]
    if adam and all(abs(ratio - 1) < 0.01 for ratio in adam):
        yield (
            "Adam divides each coordinate by the size of its own gradients: its first step is equally long in both, "
            "however narrow a valley is."
        )
    if any(name == "muon" for _, name in facts):
        yield ABOUT_MUON


def _row(surface: Surface, walk: Walk, facts: Mapping[str, float]) -> tuple[str, ...]:
    left, right, bottom, top = surface.box
    reach = 100 * max(right - left, top - bottom)
    gone = facts["distance"] > reach
    return (
        surface.title,
        walk.optimizer,
        f"{walk.lr:g}",
        str(len(walk.points) - 1),
        "diverged" if gone else figures(float(walk.heights[-1])),
        "–" if gone else figures(facts["distance"]),
        str(facts["x_crossings"]),
        str(facts["y_crossings"]),
    )


def _surfaces(names: Sequence[str]) -> dict[str, Surface]:
    for name in names:
        if name not in SURFACES:
            raise InputError(
                f"surfaces: {name!r} is not allowed{did_you_mean(name, SURFACES)}; one of {', '.join(SURFACES)}"
            )
    return {name: SURFACES[name] for name in names}


def _learning_rates(lr: dict[str, float] | float | None, chosen: Sequence[str]) -> dict[str, float]:
    """The learning rate that was asked for, by optimizer."""
    asked = lr if isinstance(lr, dict) else {} if lr is None else dict.fromkeys(chosen, lr)
    for name, value in asked.items():
        if name not in chosen:
            raise InputError(
                f"lr: {name!r} is not among the optimizers{did_you_mean(name, chosen)}; {', '.join(chosen)}"
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise InputError(f"lr: {name}: {value!r} is not allowed; a number of at least 0")
    return asked


def _draw(surfaces: Mapping[str, Surface], walks: Mapping[str, Sequence[Walk]]) -> "Figure":
    figure, panels = _landscapes(surfaces)
    for panel, name in zip(panels, surfaces, strict=True):
        for index, walk in enumerate(walks[name]):
            seen = _visible(walk.points, surfaces[name])
            x, y = seen.T
            style = plotting.series_style(index)
            label = f"{walk.optimizer} (η = {walk.lr:g})"
            marks = max(1, len(x) // 60)
            panel.plot(x, y, **style, markevery=marks, markersize=2.5, linewidth=1.1, label=label)
            if len(seen) == len(walk.points):
                panel.plot(x[-1:], y[-1:], color=style["color"], marker="s", markersize=7, markeredgecolor="white")
    _add_legend(figure, panels)
    return figure


def _add_legend(figure: "Figure", panels: Sequence["Axes"]) -> None:
    """One in each panel, with the learning rates there; of many optimizers, one beside all panels, without them."""
    handles, labels = panels[0].get_legend_handles_labels()
    if len(handles) > MOST_IN_A_PANEL:
        figure.legend(handles, [label.partition(" (η")[0] for label in labels], loc="outside right upper", fontsize=9)
        return
    for panel in panels:
        panel.legend(loc="upper right", fontsize=8, framealpha=0.85)


def _landscapes(surfaces: Mapping[str, Surface]) -> tuple["Figure", list["Axes"]]:
    """The surfaces as contours, without any path."""
    columns = min(2, len(surfaces))
    rows = math.ceil(len(surfaces) / columns)
    figure, axes = plotting.figure(5.2 * columns, 3.6 * rows, rows=rows, columns=columns)
    panels = list(axes.flat)
    for panel in panels[len(surfaces) :]:
        panel.remove()
    for panel, surface in zip(panels, surfaces.values(), strict=False):
        left, right, bottom, top = surface.box
        x, y = np.meshgrid(np.linspace(left, right, 100), np.linspace(bottom, top, 100))
        heights = surface.height(torch.from_numpy(x), torch.from_numpy(y)).numpy()
        # Levels by quantiles: the walls of these surfaces are many times as high as what happens in the valleys.
        levels = np.unique(np.quantile(heights, np.linspace(0, 1, 16) ** 1.5))
        panel.contour(x, y, heights, levels=levels, colors=plotting.GREY, linewidths=0.5)
        panel.plot(*surface.start, color="black", marker="o", markersize=7, linestyle="none")
        panel.plot(*surface.minimum, color="black", marker="x", markersize=9, linestyle="none", zorder=4)  # above paths
        panel.grid(visible=False)
        panel.set(xlim=(left, right), ylim=(bottom, top), title=surface.title, xlabel="x", ylabel="y")
    return figure, panels[: len(surfaces)]


def _visible(points: np.ndarray, surface: Surface) -> np.ndarray:
    """The points up to where they leave the neighbourhood of what is drawn."""
    left, right, bottom, top = surface.box
    reach = 3 * max(right - left, top - bottom)
    outside = np.abs(points).max(axis=1) > reach
    return points[: int(np.argmax(outside))] if outside.any() else points


def _animated(surfaces: Mapping[str, Surface], walks: Mapping[str, Sequence[Walk]]) -> bytes:
    figure, panels = _landscapes(surfaces)
    trails: list[animation.Trail] = []
    for panel, name in zip(panels, surfaces, strict=True):
        for index, walk in enumerate(walks[name]):
            style = {**plotting.series_style(index), "marker": None, "linewidth": 1.3}
            (line,) = panel.plot([], [], **style, label=walk.optimizer)
            (head,) = panel.plot([], [], color=style["color"], marker="s", markersize=7, markeredgecolor="white")
            trails.append(animation.Trail(line, head, _visible(walk.points, surfaces[name])))
    _add_legend(figure, panels)
    return animation.gif(figure, trails)
