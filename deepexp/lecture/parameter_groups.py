"""One optimizer over several groups of parameters, each with options of its own, chosen by patterns on their names."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from deepexp import build
from deepexp.lecture.demonstration import Demonstration, Picture, check_sizes, figures, table
from deepexp.lecture.optimizers import config_of
from deepexp.optim.groups import parameter_groups
from deepexp.pages import plotting
from deepexp.text.units import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RULES = "optim.groups=[{pattern: 'conv*', lr_mult: 0.1}, {pattern: '*.bias', momentum: 0.0}]"


def demonstrate(*, lr: float = 0.05, steps: int = 3, seed: int = 0) -> Demonstration:
    """Two rules over the lecture's network under momentum: slow convolutions, and biases without momentum.

    `lr`: of what no rule changes. `steps`: under a gradient that stays the same.
    """
    check_sizes(steps=steps)
    if not 1e-12 <= lr <= 1e100:
        raise ValueError(f"lr: {lr:g} is not allowed; 1e-12 to 1e+100, else float64 cannot resolve the steps")
    # ── A rule is a pattern and what is different for the parameters whose names it matches. The first rule that
    # ── matches takes a parameter (`conv1.bias` goes with the convolutions, not with the biases), and what no rule
    # ── matches forms a group with the optimizer's own options. It is still one optimizer: there is one schedule, one
    # ── state to save, and one step() for all of them.
    config = config_of("momentum", ["model=mnist_net", f"optim.lr={lr!r}", RULES, f"seed={seed}"])
    model = build.model(config, (1, 28, 28), 10, "cpu").double()
    optimizer = build.optimizer(config, model)
    moved = constant_gradient(model, optimizer, steps)
    rows = []
    facts: dict[str, float] = {}
    for group in optimizer.param_groups:
        names = _names(model, group)
        distance = moved[names[0]]
        rows.append(
            (", ".join(names), f"{group['lr']:g}", f"{group['momentum']:g}", figures(distance), figures(distance / lr))
        )
        facts |= {name: moved[name] for name in names}
    header = ("parameters", "learning rate", "momentum", "moved", "moved / lr")
    return Demonstration(
        title="Groups of parameters",
        text="Each group moves by its own rule: the convolutions, with their biases, a tenth as far as the linear "
        "weights, the linear biases without momentum. A pattern that takes no parameter is an error and not a rule "
        "without effect: "
        f"“{unmatched(model)}”",
        tables=(table(header, rows, f"{counted(steps, 'step')} under a gradient of 1 everywhere, {RULES}"),),
        pictures=(
            Picture("parameter_groups", _draw(moved), f"How far each parameter moved in {counted(steps, 'step')}."),
        ),
        facts=facts,
    )


def constant_gradient(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> dict[str, float]:
    """How far each parameter moves under a gradient of 1 in all of its elements: the mean over the elements."""
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for _ in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    return {name: (p.detach() - before[name]).double().abs().mean().item() for name, p in model.named_parameters()}


def unmatched(model: nn.Module) -> str:
    """The error for a rule whose pattern matches no parameter."""
    try:
        parameter_groups(model, [{"pattern": "conv7.*", "lr_mult": 0.1}], base_lr=0.1)
    except ValueError as error:
        return str(error)
    return ""


def _names(model: nn.Module, group: dict[str, Any]) -> list[str]:
    members: Sequence[nn.Parameter] = group["params"]
    return [name for name, parameter in model.named_parameters() if any(parameter is member for member in members)]


def _draw(moved: dict[str, float]) -> "Figure":
    figure, axes = plotting.figure(6.4, 2.8)
    (panel,) = axes.flat
    names = list(moved)
    panel.plot(list(moved.values()), range(len(names)), color=plotting.COLOURS[0], marker="o", linestyle="none")
    panel.set_yticks(range(len(names)), names)
    panel.invert_yaxis()
    panel.set(xlabel="distance", xlim=(0, None))
    return figure
