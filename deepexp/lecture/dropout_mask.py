"""Dropout on a real digit: masks, the scaling that keeps the mean, and what is left of it at test time.

Srivastava et al. (2014), in the inverted form: the scaling is done in training, so that a trained network is used as it
is.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from deepexp.data.digits import Digits
from deepexp.lecture.demonstration import Demonstration, Picture, Scale, check_sizes, figures, table
from deepexp.models.blocks import check_dropout
from deepexp.models.mnist_net import MnistNet
from deepexp.pages import plotting
from deepexp.text.units import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def demonstrate(
    *, scale: Scale = "standard", dropout: float = 0.5, draws: int | None = None, seed: int = 0
) -> Demonstration:
    """Draw masks for one digit at several drop probabilities, one of them `dropout`, whose masks are in the picture.

    `draws`: masks of each probability, by default as many as the scale says.
    """
    check_dropout(dropout)
    check_sizes(draws=draws)
    draws = draws or {"quick": 2000, "standard": 20000}[scale]
    x = picture()
    random = torch.Generator().manual_seed(seed)
    probabilities = sorted({0.1, 0.25, 0.5, 0.75, dropout})
    measured = {p: measure(x, p, draws, random) for p in probabilities}
    rows = [
        (f"{p:g}", figures(1 / (1 - p)), figures(m["zeroed"]), figures(m["mean_ratio"], 4), figures(m["deviation"]))
        for p, m in measured.items()
    ]
    header = ("p", "scale 1/(1−p)", "share of zeros", "mean in training / at test", "deviation of one value")
    switched = modes(dropout, seed)
    return Demonstration(
        title="Dropout: masks and means",
        text="Each look at a sample gets a mask of its own. What is kept is multiplied by 1/(1−p), so that the mean is "
        "that without dropout; a single value scatters around it, the more the larger p. Two looks at one sample "
        f"differ by {switched['training']:.0%} in training mode and by {switched['test']:.0%} in test mode.",
        tables=(table(header, rows, f"Over {counted(draws, 'mask')}"),),
        pictures=(
            Picture(
                "dropout_mask",
                _draw(x, dropout, random),
                f"A digit, three of its masked versions at p = {dropout:g}, and the mean of 10 and of 1,000 of them.",
            ),
        ),
        facts={
            **{f"mean_ratio_{p:g}": m["mean_ratio"] for p, m in measured.items()},
            **{f"zeroed_{p:g}": m["zeroed"] for p, m in measured.items()},
            **switched,
        },
    )


def picture() -> Tensor:
    """A real digit: (8, 8) float64 in 0 … 1."""
    train, _ = Digits().load()
    return train.images[2, 0].double() / 255


def mask(shape: Sequence[int], p: float, random: torch.Generator) -> Tensor:
    """What dropout multiplies with: 0 with probability p, else 1/(1−p)."""
    # ── Each value has a Bernoulli variable of its own. Its mean after the multiplication is
    # ──     p · 0 + (1−p) · x/(1−p) = x,
    # ── which is why nothing is left to be done at test time: the next layer sees the same mean in both modes. Without
    # ── that division it would get (1−p) x in training, and x would have to be multiplied by 1−p at test.
    kept = torch.rand(*shape, generator=random, dtype=torch.float64) >= p
    return kept / (1 - p)


def measure(x: Tensor, p: float, draws: int, random: torch.Generator) -> dict[str, float]:
    """Over many masks: the share of zeros, mean over mean without dropout, and how a value of 1 scatters."""
    masks = mask((draws, *x.shape), p, random)  # (draws, height, width)
    dropped = masks * x
    return {
        "zeroed": (masks == 0).double().mean().item(),
        "mean_ratio": (dropped.mean() / x.mean()).item(),
        "deviation": masks.std().item(),
    }


def modes(p: float, seed: int) -> dict[str, float]:
    """How much two outputs for one sample differ, relative to the output, in training and in test mode of a network."""
    # ── A module cannot know what it is used for. `model.train()` and `model.eval()` set a flag in every module below,
    # ── which dropout reads. Without eval(), a network with holes in it is tested.
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = MnistNet(shape=(1, 28, 28), classes=10, dropout=p)
        x = torch.randn(1, 1, 28, 28)
        return {
            "training": _difference(model.train(), x),
            "test": _difference(model.eval(), x),
        }


def _difference(model: nn.Module, x: Tensor) -> float:
    first, second = model(x), model(x)
    return ((first - second).abs().max() / first.abs().max()).item()


def _draw(x: Tensor, p: float, random: torch.Generator) -> "Figure":
    single = [mask(x.shape, p, random) * x for _ in range(3)]
    means = [(mask((count, *x.shape), p, random) * x).mean(0) for count in (10, 1000)]
    titles = ["without", *(f"mask {number}" for number in (1, 2, 3)), "mean of 10", "mean of 1,000"]
    figure, axes = plotting.figure(9.0, 1.9, columns=6)
    for panel, image, title in zip(axes.flat, [x, *single, *means], titles, strict=True):
        drawn = panel.imshow(image.numpy(), cmap="gray_r", vmin=0, vmax=1 / (1 - p))
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(True)
        panel.set_title(title, fontsize=9)
    figure.colorbar(drawn, ax=axes, shrink=0.8, label="value")
    return figure
