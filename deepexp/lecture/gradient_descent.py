"""Gradient descent on all samples, on mini-batches and on single samples, for softmax regression on real digits.

Also what the slides derive: a sum against a mean of losses, the order of the samples, and data that repeat themselves.
In float64, and the loop is written out: it is what every training run does inside.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from deepexp.data.digits import Digits
from deepexp.data.order import Order, batch_bounds, epoch_order
from deepexp.lecture.demonstration import Demonstration, Picture, Scale, check_sizes, figures, table
from deepexp.pages import plotting
from deepexp.text.text_table import Table
from deepexp.text.units import counted, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLASSES = 10
_HIGHEST = 1e100
"""A loss above which curves leave the picture: near the largest number there is, an axis has no room left."""


@dataclass(frozen=True)
class Descent:
    """One training: the mean loss over all samples after some updates."""

    batch_size: int
    updates: list[int]
    epochs: list[float]
    losses: list[float]
    weights: Tensor
    """The last weights: (classes, features)."""


def demonstrate(
    *,
    scale: Scale = "standard",
    batch_sizes: list[int] | None = None,
    lr: float = 0.1,
    epochs: int | None = None,
    order: Order = "shuffled",
    seed: int = 0,
) -> Demonstration:
    """Train with each batch size at one learning rate, and check the slides' equivalences.

    `batch_sizes`: 0 stands for all samples; by default 1, 10, 100, 0. `epochs`: by default as the scale says.
    """
    check_sizes(epochs=epochs)
    inputs, targets = samples()
    sizes = list(dict.fromkeys(size or len(inputs) for size in batch_sizes or [1, 10, 100, 0]))
    for size in sizes:
        if not 1 <= size <= len(inputs):
            allowed = f"1 to {len(inputs)}, the training samples, or 0 for all"
            raise ValueError(f"batch_sizes: {size} is not allowed; {allowed}")
    epochs = epochs or {"quick": 5, "standard": 20}[scale]
    descents = [descend(inputs, targets, size, lr=lr, epochs=epochs, order=order, seed=seed) for size in sizes]
    rows = [
        (f"{d.batch_size:,}", f"{d.updates[-1]:,}", figures(d.losses[-1]), percent(_error(d.weights, inputs, targets)))
        for d in descents
    ]
    facts = {
        "sum_against_mean": sum_against_mean(inputs, targets, lr),
        "replicated_gradient": replicated(inputs, targets, copies=5),
        "seen_once": _seen(len(inputs), "shuffled", seed),
        "seen_with_replacement": _seen(len(inputs), "with_replacement", seed),
        **{f"loss_{descent.batch_size}": descent.losses[-1] for descent in descents},
    }
    return Demonstration(
        title="From gradient descent to mini-batches",
        text=" ".join(_sentences(descents, len(inputs), epochs)),
        tables=(
            table(("batch", "updates", "training loss", "training errors"), rows, f"Learning rate {lr:g}"),
            _equivalences(facts),
        ),
        pictures=(
            Picture(
                "gradient_descent",
                _draw(descents),
                "The mean loss over all training samples, against epochs (left) and against updates (right).",
            ),
        ),
        facts=facts,
    )


def _sentences(descents: Sequence[Descent], count: int, epochs: int) -> Iterator[str]:
    """What holds for every choice, and of the rest what these descents show."""
    yield (
        f"All have looked at the data equally often ({counted(epochs, 'epoch')}): the smaller the batches, the more "
        "updates, and the noisier their directions."
    )
    ends = {descent.batch_size: descent.losses[-1] for descent in descents}
    mini = [loss for size, loss in ends.items() if 1 < size < count]
    if mini and count in ends and max(mini) < ends[count]:
        yield "Mini-batches are further down here than all samples at once."
    if any(a < b for descent in descents if descent.batch_size == 1 for a, b in pairwise(descent.losses)):
        yield "With single samples the loss jumps."
    updates = min(descent.updates[-1] for descent in descents)
    by_size = sorted(descents, key=lambda descent: descent.batch_size)
    losses = [float(np.interp(updates, descent.updates, descent.losses)) for descent in by_size]
    if len(ends) > 1 and all(small >= large for small, large in pairwise(losses)):
        yield f"After as many updates ({updates:,}) a larger batch is no worse, but each of its updates costs more."
    elif len(ends) > 1:
        yield "Each update of a larger batch costs more."


def samples() -> tuple[Tensor, Tensor]:
    """The training digits: (samples, 64) float64 with mean 0 and deviation 1, and their labels (samples,)."""
    train, _ = Digits().load()
    inputs = train.images.flatten(1).double()
    return (inputs - inputs.mean()) / inputs.std(), train.labels


def descend(
    inputs: Tensor,
    targets: Tensor,
    batch_size: int,
    *,
    lr: float,
    epochs: int,
    order: Order = "shuffled",
    seed: int = 0,
    reduction: str = "mean",
) -> Descent:
    """Train from zero weights; the loss over all samples is taken some twenty times an epoch, more often at first."""
    w = inputs.new_zeros(CLASSES, inputs.shape[1])
    descent = Descent(batch_size, [0], [0.0], [_loss(w, inputs, targets).item()], w)
    bounds = batch_bounds(len(inputs), batch_size)
    every = max(1, len(bounds) // 20)
    # ── All three kinds of gradient descent are this one loop. They differ in B, how many samples an update looks at:
    # ── all N (gradient descent), one (stochastic gradient descent), or some tens (mini-batches). An epoch visits each
    # ── sample once, in a new order each time, so that no two epochs have the same batches.
    for epoch in range(epochs):
        visited = epoch_order(len(inputs), order, seed, epoch)
        for number, (start, stop) in enumerate(bounds, 1):
            chosen = visited[start:stop]
            w -= lr * gradient(w, inputs[chosen], targets[chosen], reduction)
            is_early = epoch == 0 and number & (number - 1) == 0  # after 1, 2, 4, 8, … updates
            if number % every == 0 or number == len(bounds) or is_early:
                descent.updates.append(epoch * len(bounds) + number)
                descent.epochs.append(epoch + stop / len(inputs))
                descent.losses.append(_loss(w, inputs, targets).item())
    return descent


def gradient(w: Tensor, inputs: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """The gradient (classes, features) of the cross entropy of softmax(x wᵀ), summed over the samples or averaged."""
    # ── For one sample it is (p − y) xᵀ, with p the predicted probabilities and y a one at the true class. Over a batch
    # ── these outer products add up, and the sum is one matrix product.
    error = F.softmax(inputs @ w.t(), dim=1) - F.one_hot(targets, CLASSES)  # (batch, classes)
    total = error.t() @ inputs  # (classes, features)
    return total if reduction == "sum" else total / len(inputs)


def sum_against_mean(inputs: Tensor, targets: Tensor, lr: float) -> float:
    """The largest difference of weights between `sum` at η and `mean` at Bη, relative to the largest weight."""
    # ── The slides add up the losses of a batch; most programs average them. Where all batches have B samples it is the
    # ── same algorithm: the sum is B times the mean, so summing at η moves as far as averaging at Bη. A last, smaller
    # ── batch would be weighted otherwise, and is left out here. What differs is what has to be tuned when B changes.
    batch = 100
    whole = len(inputs) // batch * batch
    inputs, targets = inputs[:whole], targets[:whole]
    summed = descend(inputs, targets, batch, lr=lr / batch, epochs=2, reduction="sum").weights
    averaged = descend(inputs, targets, batch, lr=lr, epochs=2).weights
    return ((summed - averaged).abs().max() / averaged.abs().max()).item()


def replicated(inputs: Tensor, targets: Tensor, copies: int) -> float:
    """The relative difference between the summed gradient over K copies of the data and K times that over the data."""
    # ── If the data are the same M samples K times, a full gradient computes every term K times. Visiting M samples and
    # ── stepping K times as far is the same step for a K-th of the work. Real data are not copies, but much in them
    # ── repeats itself, which is why a part of them gives nearly the direction of all.
    w = inputs.new_zeros(CLASSES, inputs.shape[1])
    once = gradient(w, inputs, targets, "sum")
    often = gradient(w, inputs.repeat(copies, 1), targets.repeat(copies), "sum")
    return ((often - copies * once).abs().max() / often.abs().max()).item()


def _seen(count: int, order: Order, seed: int) -> float:
    """The share of the samples that an epoch visits at least once."""
    return len(epoch_order(count, order, seed, 0).unique()) / count


def _loss(w: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(inputs @ w.t(), targets)


def _error(w: Tensor, inputs: Tensor, targets: Tensor) -> float:
    return ((inputs @ w.t()).argmax(dim=1) != targets).double().mean().item()


def _equivalences(facts: dict[str, float]) -> Table:
    rows = (
        ("sum at η and mean at Bη: relative difference of the weights", figures(facts["sum_against_mean"])),
        ("5 copies of the data, 5 times the gradient: relative difference", figures(facts["replicated_gradient"])),
        ("samples seen in a shuffled epoch", percent(facts["seen_once"])),
        ("samples seen when drawn with replacement (1 − 1/e is 63.21%)", percent(facts["seen_with_replacement"])),
    )
    return table(("what the slides derive", "measured"), rows, "Checked in float64")


def _draw(descents: Sequence[Descent]) -> "Figure":
    figure, axes = plotting.figure(9.0, 3.8, columns=2)
    for panel, steps in zip(axes.flat, ("epochs", "updates"), strict=True):
        for index, descent in enumerate(descents):
            style = {**plotting.series_style(index), "marker": None}
            x = getattr(descent, steps)
            panel.plot(x, descent.losses, label=f"batches of {descent.batch_size:,}", **style)
        if any(math.isfinite(loss) and loss > _HIGHEST for descent in descents for loss in descent.losses):
            panel.set_ylim(1, _HIGHEST)
        panel.set(xlabel=steps, ylabel="training loss (nats)", yscale="log")
    axes.flat[1].set_xscale("symlog", linthresh=1)
    axes.flat[1].set_xlim(left=0)
    axes.flat[1].legend(loc="lower left")
    return figure
