"""Gradient descent on parabolas: the step size that suits one curvature is too small or too large for another."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from deepexp.lecture.demonstration import Demonstration, Picture, check_sizes, figures, table
from deepexp.pages import plotting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_REACH = 3  # the largest |w| that is drawn


def demonstrate(*, lr: float = 0.05, curvatures: list[int] | None = None, steps: int = 20) -> Demonstration:
    """Descend f(w) = ½ λ w² from w = 1 with the one step size `lr`.

    `curvatures`: each λ, by default 2, 20, 38, 42.
    """
    check_sizes(curvatures=curvatures, steps=steps)
    chosen = curvatures or [2, 20, 38, 42]
    paths = {curvature: descend(float(curvature), lr, steps) for curvature in chosen}
    # ── The gradient is λw, so that each step multiplies w by 1 − ηλ. It shrinks only while 0 < ηλ < 2: slowly where ηλ
    # ── is near 0, at once where it is 1, jumping from side to side above 1, and not at all from 2 on. In many
    # ── dimensions λ is the curvature along each direction, and the steepest one forbids the step that the flattest one
    # ── needs. With the best step, 2 / (λmin + λmax), both shrink by (κ−1)/(κ+1) only, where κ = λmax / λmin.
    rows = [
        (f"{c}", figures(lr * c), figures(abs(1 - lr * c)), figures(measured(paths[c])), _behaviour(lr * c))
        for c in chosen
    ]
    header = ("curvature λ", "ηλ", "|1 − ηλ|", "measured", "what happens")
    return Demonstration(
        title="One step size, several curvatures",
        text=_sentences(lr, chosen),
        tables=(table(header, rows, "Factor by which a step multiplies the distance to the minimum"),),
        pictures=(
            Picture(
                "curvature",
                _draw(paths, lr),
                "Steps on a parabola of each curvature, from w = 1 to the cross; a path without one goes on beyond "
                f"|w| = {_REACH}.",
            ),
        ),
        facts={f"factor_{c}": measured(paths[c]) for c in chosen},
    )


def descend(curvature: float, lr: float, steps: int) -> np.ndarray:
    """The points (steps + 1,) from w = 1."""
    points = [1.0]
    for _ in range(steps):
        points.append(points[-1] - lr * curvature * points[-1])
    return np.array(points)


def measured(points: np.ndarray) -> float:
    """The factor by which the last step changed the distance to the minimum; 0 if it was met, infinite beyond float64.

    It is that of the last step between normal float64 numbers: after thousands of steps they may be subnormal.
    """
    held = points[np.isfinite(points) & (np.abs(points) >= np.finfo(np.float64).tiny)]
    if len(held) < 2:
        return 0.0 if points[-1] == 0 else math.inf
    return float(abs(held[-1] / held[-2]))


def _sentences(lr: float, curvatures: Sequence[int]) -> str:
    found = list(dict.fromkeys(_behaviour(lr * curvature) for curvature in sorted(curvatures)))
    if len(found) == 1:
        return (
            f"At η = {lr:g} the rule {found[0]} on each of these curvatures. "
            "In more than one dimension every direction has a curvature, and so a factor, of its own."
        )
    return (
        f"At η = {lr:g} one rule {', '.join(found[:-1])} or {found[-1]}, depending on the curvature. "
        "In more than one dimension all of these happen at once, each along its own direction."
    )


def _behaviour(product: float) -> str:
    if product >= 2:
        return "diverges" if product > 2 else "jumps between two points"
    if product > 1:
        return "oscillates"
    return "arrives at once" if product == 1 else "creeps" if product < 0.5 else "converges"


def _draw(paths: dict[int, np.ndarray], lr: float) -> "Figure":
    figure, axes = plotting.figure(2.6 * len(paths), 2.9, columns=len(paths))
    panels: Sequence[Axes] = list(axes.flat)
    for index, (panel, (curvature, points)) in enumerate(zip(panels, paths.items(), strict=True)):
        shown = points[np.abs(points) <= _REACH]
        reach = max(1.1, np.abs(shown).max() * 1.1)
        w = np.linspace(-reach, reach, 200)
        panel.plot(w, curvature * w**2 / 2, color="grey", linewidth=1)
        colour = plotting.series_style(index)["color"]
        panel.plot(shown, curvature * shown**2 / 2, color=colour, marker="o", markersize=4, linewidth=1)
        if len(shown) == len(points):
            panel.plot(shown[-1:], curvature * shown[-1:] ** 2 / 2, color="black", marker="x", markersize=9)
        panel.set(title=f"λ = {curvature}, ηλ = {lr * curvature:g}", xlabel="w")
    panels[0].set_ylabel("½ λ w²")
    return figure
