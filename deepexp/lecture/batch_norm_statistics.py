"""Batch normalisation by its formulas: statistics of the batch, running ones, γ and β, in training and at test.

Ioffe and Szegedy (2015), algorithms 1 and 2. In float64, against `torch.nn.BatchNorm1d`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from deepexp.lecture.demonstration import Demonstration, Picture, check_sizes, figures, table
from deepexp.pages import plotting
from deepexp.text.units import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEANS, DEVIATIONS = (-10.0, 25.0, 3.0), (2.0, 5.0, 10.0)
"""Those of the slides' data, one for each column."""

GAMMA, BETA = (1.0, 2.0, 3.0), (2.0, 4.0, 8.0)
"""The deviations and the means that the slides' layer gives them."""

EPS = 1e-5


@dataclass(frozen=True)
class History:
    """A column's means over training: of each batch, and the running one after it; both (batches,)."""

    batch: Tensor
    running: Tensor


def demonstrate(
    *, samples: int = 1000, batch_size: int = 20, batches: int = 80, momentum: float = 0.1, seed: int = 0
) -> Demonstration:
    """Normalise the slides' three columns, then batch after batch of them, and compare training with test.

    `samples`: rows of the three columns. `batches`, `batch_size`: the training behind the running statistics, in which
    each batch has the share `momentum`.
    """
    check_sizes(batches=batches)
    for name, size in (("samples", samples), ("batch_size", batch_size)):
        if size < 2:
            raise ValueError(f"{name}: {size} is not allowed; at least 2, since one alone has no variance")
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum: {momentum:g} is not allowed; 0 to 1, the share of each batch in the running ones")
    random = torch.Generator().manual_seed(seed)
    x = draw(samples, random)
    y = normalise(x, x.mean(0), x.var(0, correction=0))
    rows = [
        (
            *(f"{k + 1}", figures(x[:, k].mean().item()), figures(x[:, k].std().item())),
            *(f"{BETA[k]:g}", f"{GAMMA[k]:g}"),
            *(figures(y[:, k].mean().item(), 6), figures(y[:, k].std().item(), 6)),
        )
        for k in range(3)
    ]
    layer = _layer(momentum)
    history = train(layer, batch_size, batches, random)
    facts = {
        "formula_error": (_layer(momentum)(x) - y).abs().max().item(),
        "test_error": error_at_test(layer, x),
        "fold_error": fold_error(layer, x, seed),
        **company(layer, batch_size, random),
        **{f"mean_{k}": y[:, k].mean().item() for k in range(3)},
        **{f"std_{k}": y[:, k].std(correction=0).item() for k in range(3)},
    }
    checks = [
        ("training: our formula against torch's layer, largest difference", figures(facts["formula_error"])),
        ("test: the running statistics in our formula against torch's layer", figures(facts["test_error"])),
        ("test: folded into the linear layer before it", figures(facts["fold_error"])),
        ("one sample among two different batches, in training: outputs differ by", figures(facts["company_training"])),
        ("the same at test", figures(facts["company_test"])),
    ]
    header = ("column", "mean", "deviation", "β", "γ", "mean after", "deviation after")
    return Demonstration(
        title="Batch normalisation: statistics of the batch and running ones",
        text="In training each column is brought to the mean β and the deviation γ by the statistics of the batch, so "
        "that a sample's output depends on the others. At test the running averages take their place, and the layer "
        "is a fixed scaling of each column.",
        tables=(table(header, rows, counted(samples, "sample")), table(("check", "value"), checks, "In float64")),
        pictures=(
            Picture(
                "batch_norm_statistics",
                _draw(history, momentum),
                f"The mean of one column: of each batch of {batch_size}, the running one, and the true one.",
            ),
        ),
        facts=facts,
    )


def draw(samples: int, random: torch.Generator) -> Tensor:
    """(samples, 3): independent Gaussian columns."""
    normal = torch.randn(samples, 3, generator=random, dtype=torch.float64)
    return normal * torch.tensor(DEVIATIONS, dtype=torch.float64) + torch.tensor(MEANS, dtype=torch.float64)


def normalise(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """γ (x − m) / √(v + ε) + β, column by column: (batch, 3) → (batch, 3)."""
    # ── In training m and v are those of the batch (v with 1/B), at test what was estimated in training. The same line
    # ── either way; only in training the gradient also flows through m and v, since they depend on x.
    gamma, beta = torch.tensor(GAMMA, dtype=torch.float64), torch.tensor(BETA, dtype=torch.float64)
    return gamma * (x - mean) / torch.sqrt(variance + EPS) + beta


def train(layer: nn.BatchNorm1d, batch_size: int, batches: int, random: torch.Generator) -> History:
    """Pass batch after batch through the layer; returns the history of its second column."""
    # ── After each batch the running mean moves a tenth of the way (`momentum`) to the mean of that batch: an average
    # ── over the last ten or so. It starts at 0, so a test after a few batches uses statistics that are plainly wrong.
    # ── The running variance averages the unbiased one, with 1/(B−1), whereas the batch is normalised with 1/B.
    means, running = [], []
    layer.train()
    for _ in range(batches):
        x = draw(batch_size, random)
        layer(x)
        means.append(x[:, 1].mean())
        running.append(_statistic(layer.running_mean)[1].clone())
    return History(torch.stack(means), torch.stack(running))


def error_at_test(layer: nn.BatchNorm1d, x: Tensor) -> float:
    """The largest difference at test between the layer and the formula with its running statistics."""
    ours = normalise(x, _statistic(layer.running_mean), _statistic(layer.running_var))
    return (layer.eval()(x) - ours).abs().max().item()


def fold_error(layer: nn.BatchNorm1d, x: Tensor, seed: int) -> float:
    """The largest difference between linear → normalisation and one linear layer that does both."""
    # ── At test the layer is y = a x + c with a = γ/√(v + ε) and c = β − a m. After a linear layer w x + b that is
    # ── again one linear layer, with the rows of w multiplied by a, and the bias a b + c: normalising costs nothing.
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        linear, folded = nn.Linear(3, 3).double(), nn.Linear(3, 3).double()
        a = layer.weight / torch.sqrt(_statistic(layer.running_var) + EPS)
        folded.weight.copy_(a[:, None] * linear.weight)
        folded.bias.copy_(a * (linear.bias - _statistic(layer.running_mean)) + layer.bias)
        return (layer.eval()(linear(x)) - folded(x)).abs().max().item()


def company(layer: nn.BatchNorm1d, batch_size: int, random: torch.Generator) -> dict[str, float]:
    """How much the output for one sample differs between two batches that it is part of, in each mode."""
    sample = draw(1, random)
    first, second = (torch.cat([sample, draw(batch_size - 1, random)]) for _ in range(2))
    found = {}
    for name, mode in (("training", True), ("test", False)):
        layer.train(mode)
        found[f"company_{name}"] = (layer(first)[0] - layer(second)[0]).abs().max().item()
    return found


def _layer(momentum: float) -> nn.BatchNorm1d:
    layer = nn.BatchNorm1d(3, eps=EPS, momentum=momentum, dtype=torch.float64).requires_grad_(False)
    layer.weight.copy_(torch.tensor(GAMMA))
    layer.bias.copy_(torch.tensor(BETA))
    return layer


def _statistic(buffer: Tensor | None) -> Tensor:
    assert buffer is not None  # the layer tracks its statistics
    return buffer


def _draw(history: History, momentum: float) -> "Figure":
    figure, axes = plotting.figure(7.0, 3.4)
    (panel,) = axes.flat
    steps = range(1, len(history.batch) + 1)
    panel.plot(steps, history.batch.tolist(), color=plotting.GREY, marker=".", linewidth=0.7, label="of the batch")
    running = {**plotting.series_style(0), "marker": None}
    panel.plot(steps, history.running.tolist(), **running, label=f"running, momentum {momentum:g}")
    panel.axhline(MEANS[1], color="black", linewidth=0.8, linestyle="--", label="true")
    panel.set(xlabel="batch", ylabel="mean of the second column", ylim=(0, None))
    panel.legend(loc="lower right")
    return figure
