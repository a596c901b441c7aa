"""The first steps of every optimizer under a gradient that stays the same, and under the same loss times a hundred."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from deepexp.config import catalogue
from deepexp.errors import InputError
from deepexp.lecture.demonstration import Demonstration, Picture, check_sizes, figures, table
from deepexp.lecture.optimizers import ABOUT_MUON, Point, check_names, optimizer_for
from deepexp.pages import plotting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRADIENT = (1.0, 0.01)
"""Along the two coordinates: the surface is a plane, a hundred times as steep in one as in the other."""

MOMENTUM = frozenset({"momentum", "nesterov"})
"""The rules of `conf/optim` that add up past gradients, both with γ = 0.9."""

TIMES = 100.0
"""By how much the loss is multiplied in the second run."""

LARGEST = 1e100
"""The largest step that is drawn; the steps of rules with weight decay grow without end if lr is too large."""


def demonstrate(*, optim: list[str] | None = None, lr: float | None = None, steps: int = 50) -> Demonstration:
    """Let optimizers take some steps.

    `optim`: names of conf/optim, by default all but lbfgs. `lr`: one learning rate for all, by default each its own.
    """
    check_sizes(steps=steps)
    if lr is not None and lr < 1e-9:
        raise InputError(f"lr: {lr:g} is not allowed; at least 1e-09, else float64 cannot resolve the steps")
    chosen = optim or [name for name in catalogue.names("optim") if name != "lbfgs"]
    check_names(chosen)
    if "lbfgs" in chosen:
        raise InputError("optim: lbfgs looks for the lowest point along a line, and a plane has none; leave it out")
    # ── On a plane every step sees the same gradient g, and what a rule remembers shows in how its steps change. Plain
    # ── descent steps ηg for ever. Momentum adds up what it remembers, u = γu + ηg, which tends to η/(1−γ) g: with
    # ── γ = 0.9 ten times as far. Rules that divide by the size of past gradients step about η in every coordinate,
    # ── whether the gradient there is 1 or 0.01; Adagrad, which forgets nothing, takes steps of η/√t.
    taken = {name: step_lengths(name, GRADIENT, steps, lr) for name in chosen}
    grown = [name for name, (_, length) in taken.items() if not bool((length < LARGEST).all())]
    if lr is not None and grown:
        raise InputError(f"lr: {lr:g} is not allowed; with it the steps of {', '.join(grown)} grow without end")
    rates = {name: rate for name, (rate, _) in taken.items()}
    lengths = {name: length for name, (_, length) in taken.items()}
    facts = {name: _facts(name, rates[name], lengths[name]) for name in chosen}
    rows = [
        (
            name,
            f"{rates[name]:g}",
            figures(of["first_0"]),
            figures(of["first_1"]),
            figures(of["last_over_lr"]),
            f"{of['scaling']:.0f} times",
        )
        for name, of in facts.items()
    ]
    header = (
        "optimizer",
        "η",
        "first step, g = 1",
        "first step, g = 0.01",
        f"step {steps} / η",
        "first step, loss × 100",
    )
    return Demonstration(
        title="What each rule makes of the same gradient",
        text=" ".join(_sentences(facts)),
        tables=(table(header, rows, "Lengths of steps under a constant gradient, 1 and 0.01"),),
        pictures=(
            Picture(
                "update_rules", _draw(lengths, rates), "Length of each step along the steep coordinate, divided by η."
            ),
        ),
        facts={f"{name}/{fact}": value for name, of in facts.items() for fact, value in of.items()},
    )


def _facts(name: str, rate: float, lengths: Tensor) -> dict[str, float]:
    """A rule's first step, its last, and the first under a scaled loss, from its step lengths (steps, coordinates)."""
    _, scaled = step_lengths(name, [TIMES * g for g in GRADIENT], 1, rate)
    return {
        "first_0": lengths[0, 0].item(),
        "first_1": lengths[0, 1].item(),
        "last_over_lr": lengths[-1, 0].item() / rate,
        "scaling": (scaled[0, 0] / lengths[0, 0]).item(),
    }


def _sentences(facts: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """What holds for every rule here, and what holds for some, if they are among the chosen."""
    yield "On a plane every step sees the same gradient: what a rule remembers shows in how its steps change."
    if MOMENTUM & facts.keys():
        yield "Momentum's steps grow towards 1/(1−γ) times those of plain descent."
    if "muon" in facts:
        yield ABOUT_MUON
    if any(of["scaling"] < 1.1 and of["first_0"] < 1.1 * of["first_1"] for of in facts.values()):
        yield (
            "Rules that divide by past gradients step equally far in a steep and in a flat coordinate, and do not "
            "notice that the loss was multiplied by 100: this is why their learning rate is not that of plain descent."
        )


def step_lengths(
    optimizer: str, gradient: Sequence[float], steps: int, lr: float | None = None
) -> tuple[float, Tensor]:
    """(learning rate, lengths (steps, coordinates) of the steps) from (1, 1) under one gradient, in float64."""
    point = Point(torch.ones(len(gradient)))
    rule = optimizer_for(optimizer, point, lr)
    lengths = []
    for _ in range(steps):
        before = point.weights.detach().clone()
        point.weights.grad = torch.tensor(gradient, dtype=torch.float64)
        rule.step()
        lengths.append((point.weights.detach() - before).abs())
    return rule.param_groups[0]["lr"], torch.stack(lengths)


def _draw(lengths: Mapping[str, Tensor], rates: Mapping[str, float]) -> "Figure":
    figure, axes = plotting.figure(8.0, 4.4)
    (panel,) = axes.flat
    for index, (name, length) in enumerate(lengths.items()):
        style = plotting.series_style(index)
        steps = range(1, len(length) + 1)
        first = index % min(5, len(length))  # where many lie on one line, each shows markers of its own
        panel.plot(
            steps, (length[:, 0] / rates[name]).tolist(), **style, markevery=(first, 5), markersize=4, label=name
        )
    panel.set(yscale="log", xlabel="step", ylabel="length of the step / η")
    if MOMENTUM & lengths.keys():
        panel.axhline(10, color=plotting.GREY, linewidth=0.8, linestyle="--")
        across = panel.get_yaxis_transform()  # a share of the width, however many steps there are
        panel.annotate(
            "1 / (1 − γ) at γ = 0.9",
            (0.98, 10),
            (0, 5),
            xycoords=across,
            textcoords="offset points",
            color=plotting.GREY,
            fontsize=9,
            ha="right",
        )
        panel.set_ylim(top=18)
    figure.legend(loc="outside right upper")
    return figure
