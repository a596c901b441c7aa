"""The surfaces in two dimensions that `trajectories` lets optimizers walk on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

Height = Callable[[Tensor, Tensor], Tensor]

RIDGE_X = 1.5
"""Where the ridge of `barrier` is; the minimum is at 0."""


@dataclass(frozen=True)
class Surface:
    """A function of (x, y), where to begin, where it is lowest, and the part of the plane to look at."""

    title: str
    formula: str
    height: Height
    start: tuple[float, float]
    minimum: tuple[float, float]
    box: tuple[float, float, float, float]
    """(left, right, bottom, top)"""
    steps: int
    lr: Mapping[str, float] = field(default_factory=dict)
    """Learning rates that suit it, by optimizer, where they are not those in `LR`."""

    def lr_of(self, optimizer: str) -> float | None:
        """The learning rate for an optimizer here; None: its own."""
        return self.lr.get(optimizer, LR.get(optimizer))


# The slides' figures have momentum at 5e-2 and Adam at 1e-1. Those whose step has the length of the learning rate,
# whatever the gradient, go as far as Adam here; Muon gives a single vector to AdamW at a twentieth of its rate.
LR = {"sgd": 0.05, "momentum": 0.05, "nesterov": 0.02, "adagrad": 0.5, "rmsprop": 0.05, "muon": 2.0}
LR |= dict.fromkeys(("adam", "adamw", "adamax", "nadam"), 0.1)


# ── A narrow valley: a hundred times as steep across (y) as along it (x). η = 0.05 is the best constant step for plain
# ── gradient descent here, 2 / (0.4 + 39.6), and even so it comes only 2 % nearer a step: across the valley it jumps
# ── from side to side, along the valley it creeps.
def valley(x: Tensor, y: Tensor) -> Tensor:
    """½ (0.4 x² + 39.6 y²)."""
    return 0.2 * x**2 + 19.8 * y**2


# ── A wide slope with a local barrier across it. Without inertia the descent ends in the hollow before the barrier,
# ── where the gradient is zero; with momentum the way so far carries it over.
def barrier(x: Tensor, y: Tensor) -> Tensor:
    """0.25 x² + y², and a ridge of height 0.5 and width 0.3 at x = 1.5."""
    return 0.25 * x**2 + y**2 + 0.5 * torch.exp(-((x - RIDGE_X) ** 2) / (2 * 0.3**2))


def rosenbrock(x: Tensor, y: Tensor) -> Tensor:
    """The bent valley of Rosenbrock (1960): easy to reach, long to follow."""
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def beale(x: Tensor, y: Tensor) -> Tensor:
    """Beale (1958): flat, with steep walls in the corners."""
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


SURFACES = {
    "valley": Surface(
        "Narrow valley", "0.2 x² + 19.8 y²", valley, (-4.0, 0.5), (0.0, 0.0), (-4.6, 3.2, -1.1, 1.1), 100
    ),
    "barrier": Surface(
        "Barrier on the way",
        "0.25 x² + y² + 0.5 exp(−(x − 1.5)² / 0.18)",
        barrier,
        (4.0, 1.0),
        (0.0, 0.0),
        (-3.2, 4.6, -1.3, 2.4),
        100,
    ),
    "rosenbrock": Surface(
        "Rosenbrock",
        "(1 − x)² + 100 (y − x²)²",
        rosenbrock,
        (-1.2, 1.0),
        (1.0, 1.0),
        (-1.8, 1.6, -0.6, 2.4),
        300,
        {"sgd": 0.001, "momentum": 0.001, "nesterov": 0.001},
    ),
    "beale": Surface(
        "Beale",
        "(1.5 − x + xy)² + (2.25 − x + xy²)² + (2.625 − x + xy³)²",
        beale,
        (1.0, 1.5),
        (3.0, 0.5),
        (-0.6, 4.4, -2.2, 2.8),
        300,
        {"sgd": 0.005, "momentum": 0.002, "nesterov": 0.002},
    ),
}
