"""Variances of activations and gradients through a deep net at its initial weights, measured and by the formulas.

Glorot and Bengio (2010), section 4.2, and He et al. (2015, "Delving deep into rectifiers"), section 2.2.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepexp.lecture.demonstration import Demonstration, Picture, Scale, figures, table
from deepexp.models.init import Scheme, initialise
from deepexp.pages import plotting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Activation = Literal["relu", "tanh", "linear"]
ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "tanh": torch.tanh,
    "linear": torch.clone,
}
SCHEMES: tuple[Scheme, ...] = ("default", "xavier", "kaiming")
SUITED: dict[Activation, Scheme] = {"relu": "kaiming", "tanh": "xavier", "linear": "xavier"}
"""The scheme that keeps the variance, by the formulas."""


@dataclass(frozen=True)
class Variances:
    """Mean squares before the activation of each layer, the first one first: of the values and of their gradients."""

    forward: Tensor
    backward: Tensor
    predicted_forward: Tensor
    predicted_backward: Tensor
    weight: float
    """Variance of the weights of the first layer."""


def demonstrate(
    *,
    activation: Activation = "relu",
    depth: int = 12,
    width: int | None = None,
    scale: Scale = "standard",
    seed: int = 0,
) -> Demonstration:
    """Send Gaussian inputs forward, and Gaussian gradients backward, through `depth` layers of `width` units.

    `activation`: between the layers. `width`: by default as the scale says.
    """
    if depth < 2:
        raise ValueError(f"depth: {depth} is not allowed; at least 2")
    if width is not None and width < 2:
        raise ValueError(f"width: {width} is not allowed; at least 2, since one weight alone has no variance")
    width = width or {"quick": 256, "standard": 512}[scale]
    measured = {scheme: measure(scheme, activation, depth, width, seed) for scheme in SCHEMES}
    rows = [_row(scheme, variances, width) for scheme, variances in measured.items()]
    header = ("init", "Var w", "measured", "formula", "last layer", "formula", "first gradient", "formula")
    return Demonstration(
        title="Initial weights and the variances through a deep net",
        text=" ".join(_sentences(activation, depth, width, measured)),
        tables=(table(header, rows, f"{depth} layers of {width} units, {activation}"),),
        pictures=(
            Picture(
                "initialisation",
                _draw(measured),
                "Mean square before the activation of each layer (left), and of the gradient there (right): marks are "
                "measured, lines are the formulas. The default's activations end at what its biases add.",
            ),
        ),
        facts={
            f"{scheme}/{name}": _log_error(getattr(v, name), getattr(v, f"predicted_{name}"))
            for scheme, v in measured.items()
            for name in ("forward", "backward")
        },
    )


def _row(scheme: Scheme, variances: Variances, width: int) -> tuple[str, ...]:
    return (
        scheme,
        formula(scheme),
        figures(variances.weight),
        figures(variance(scheme, width, width)),
        figures(variances.forward[-1].item()),
        figures(variances.predicted_forward[-1].item()),
        figures(variances.backward[0].item()),
        figures(variances.predicted_backward[0].item()),
    )


def _sentences(activation: Activation, depth: int, width: int, measured: Mapping[Scheme, Variances]) -> Iterator[str]:
    """Which weights the formulas ask for, and how near to them these layers came."""
    best = SUITED[activation]
    strays = {scheme: _strays(variances) for scheme, variances in measured.items()}
    begin = (
        f"Every layer multiplies the variance by a factor, and after {depth} layers something is left only where "
        f"that factor is near 1: with {activation} for {best}"
    )
    if activation != "tanh":
        yield f"{begin}, forward and backward."
        if max(strays[best]) >= 1e2:
            yield f"In layers of {width} units chance adds up, and {depth} of them stray far from the formula even so."
        return
    yield f"{begin} by the formulas, which take tanh for linear."
    forward, backward = (min(strays, key=lambda scheme: strays[scheme][way]) for way in (0, 1))
    where = ", forward and backward" if forward == backward else f" forward, and {backward} backward"
    yield (
        "That holds while activations are small; tanh makes larger ones smaller, "
        f"and {forward} stays nearest to 1 here{where}."
    )


# ── A unit adds up n_in products w·a. If these are independent with mean 0, their variances add up too:
# ──     Var z = n_in · Var w · E[a²] (+ Var b),
# ── and for a gradient, which goes back through the transposed weights, n_out stands in the place of n_in. To neither
# ── grow nor shrink from layer to layer, Var w should be 1/n_in for the one and 1/n_out for the other; Glorot and
# ── Bengio took the middle, 2/(n_in + n_out). A rectifier lets half of a variance through, so He et al. doubled it.
def variance(scheme: Scheme, n_in: int, n_out: int) -> float:
    """The variance of a linear layer's weights. PyTorch's default is uniform in ±1/√n_in."""
    return {"default": 1 / (3 * n_in), "xavier": 2 / (n_in + n_out), "kaiming": 2 / n_in}[scheme]


def formula(scheme: Scheme) -> str:
    """The `variance` in symbols."""
    return {"default": "1/(3 n_in)", "xavier": "2/(n_in + n_out)", "kaiming": "2/n_in"}[scheme]


def measure(scheme: Scheme, activation: Activation, depth: int, width: int, seed: int, samples: int = 512) -> Variances:
    """Forward and backward once through a net of square layers, and what the formulas say of it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = nn.Sequential(*(nn.Linear(width, width) for _ in range(depth))).double()
        initialise(layers, scheme)
        x = torch.randn(samples, width, dtype=torch.float64)
        top = torch.randn(samples, width, dtype=torch.float64)
    act = ACTIVATIONS[activation]
    before: list[Tensor] = []
    for index, layer in enumerate(layers):
        x = layer(x if index == 0 else act(x))  # (samples, width)
        x.retain_grad()
        before.append(x)
    x.backward(top)
    forward = torch.stack([z.detach().square().mean() for z in before])
    backward = torch.stack([_gradient(z).square().mean() for z in before])
    share = 0.5 if activation == "relu" else 1.0  # of a variance that the activation lets through
    predicted_forward, predicted_backward = _predicted(scheme, depth, width, share)
    weight = layers[0].weight.detach().var().item()  # type: ignore[operator]
    return Variances(forward, backward, predicted_forward, predicted_backward, weight)


def _predicted(scheme: Scheme, depth: int, width: int, share: float) -> tuple[Tensor, Tensor]:
    """The formulas from layer to layer, from an input and an output gradient of variance 1."""
    w = variance(scheme, width, width)
    bias = 1 / (3 * width) if scheme == "default" else 0.0
    forward = [width * w + bias]
    backward = [1.0]
    for _ in range(depth - 1):
        forward.append(width * w * share * forward[-1] + bias)
        backward.append(width * w * share * backward[-1])
    return torch.tensor(forward, dtype=torch.float64), torch.tensor(backward[::-1], dtype=torch.float64)


def _gradient(z: Tensor) -> Tensor:
    assert z.grad is not None
    return z.grad


def _strays(found: Variances) -> list[float]:
    """The factors by which the last activations and the first gradients are off 1."""
    left = (found.forward[-1].item(), found.backward[0].item())
    return [max(value, 1 / value) if 0 < value < math.inf else math.inf for value in left]


def _log_error(measured: Tensor, predicted: Tensor) -> float:
    """The factor by which the worst layer is off."""
    return math.exp((measured / predicted).log().abs().max().item())


def _draw(measured: Mapping[Scheme, Variances]) -> "Figure":
    figure, axes = plotting.figure(9.0, 3.8, columns=2)
    titles: Sequence[tuple[str, str]] = (("forward", "Activations"), ("backward", "Gradients"))
    for panel, (name, title) in zip(axes.flat, titles, strict=True):
        for index, (scheme, variances) in enumerate(measured.items()):
            style = plotting.series_style(index)
            values = getattr(variances, name).tolist()
            layers = range(1, len(values) + 1)
            panel.plot(layers, values, **{**style, "linestyle": "none"}, label=scheme)
            panel.plot(
                layers, getattr(variances, f"predicted_{name}").tolist(), **{**style, "marker": None}, linewidth=1
            )
        panel.set(yscale="log", xlabel="layer", ylabel="mean square", title=title)
    axes.flat[0].legend()
    return figure
