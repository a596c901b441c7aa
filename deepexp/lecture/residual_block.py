"""The residual block: how near it begins to the identity, and how many parameters networks of it have.

He et al. (2015), sections 3 and 4.2.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from deepexp.lecture.demonstration import Demonstration, Picture, Scale, check_sizes, figures, table
from deepexp.models.blocks import ResidualBlock
from deepexp.models.resnet import ResNet
from deepexp.models.size import parameter_count
from deepexp.pages import plotting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAPER_MILLIONS = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7}
"""Parameters by depth, as He et al. give them for CIFAR-10 in table 6."""

UNRELATED = 1 / math.pi
"""The cosine of the rectified values of two independent Gaussians."""

KINDS: dict[str, dict[str, Any]] = {
    "plain": {"shortcut": "none"},
    "residual": {"shortcut": "pad"},
    "residual, last scale 0": {"shortcut": "pad", "zero_init_residual": True},
}


def demonstrate(*, scale: Scale = "standard", depth: int | None = None, seed: int = 0) -> Demonstration:
    """Count the parameters, and follow a random picture through untrained networks of `depth` layers.

    `depth`: by default as the scale says.
    """
    check_sizes(depth=depth)
    depth = depth or {"quick": 32, "standard": 56}[scale]
    counts = {layers: parameters(layers) for layers in PAPER_MILLIONS}
    likeness = {name: follow(depth, seed, **options) for name, options in KINDS.items()}
    rows = [
        (f"ResNet-{layers}", f"{count:,}", f"{count / 1e6:.2f} M", f"{PAPER_MILLIONS[layers]:g} M")
        for layers, count in counts.items()
    ]
    starts = [(name, figures(values.mean().item()), figures(values.min().item())) for name, values in likeness.items()]
    return Demonstration(
        title="The residual block",
        text="A block adds what its two convolutions give to what came in, so that it has to learn the difference only "
        "and begins near the identity: its output still resembles its input, whereas two layers without the shortcut "
        "make something unrelated of it (two unrelated outputs of a rectifier have a cosine of 1/π ≈ 0.32, since "
        "neither is ever negative).",
        tables=(
            table(("network", "parameters", "in millions", "in the paper"), rows, "CIFAR-10, shortcut=pad"),
            table(
                ("blocks", "mean", "least"),
                starts,
                f"Cosine between what goes into a block and what comes out, untrained, {depth} layers; of blocks that "
                "keep the size",
            ),
        ),
        pictures=(
            Picture("residual_block", _draw(likeness), "The block, and how near each of them begins to the identity."),
        ),
        facts={
            **{f"parameters_{layers}": count for layers, count in counts.items()},
            **{f"cosine/{name}": values.mean().item() for name, values in likeness.items()},
            "identity_error": identity_error(seed),
        },
    )


def parameters(depth: int) -> int:
    """How many numbers a residual network for CIFAR-10 learns."""
    with torch.device("meta"):  # shapes alone, without memory
        model = ResNet(shape=(3, 32, 32), classes=10, depth=depth)
    return parameter_count(model)


def follow(depth: int, seed: int, **options: Any) -> Tensor:
    """The cosine between input and output of each block that keeps the size, untrained, on a batch of noise."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = ResNet(shape=(3, 32, 32), classes=10, depth=depth, **options).train()
        x = torch.randn(8, 3, 32, 32)
        cosines = []
        x = model.stem(x)
        for stage in model.stages.children():
            for block in stage.children():
                y = block(x)
                if y.shape == x.shape:
                    cosines.append(torch.cosine_similarity(x.flatten(), y.flatten(), dim=0))
                x = y
    return torch.stack(cosines)


def identity_error(seed: int) -> float:
    """How far a block whose last scale is zero is from relu(x): not at all."""
    # ── relu(x + f(x)) with f = 0 is relu(x), and x is the output of a rectifier already. A stack of such blocks passes
    # ── on what it gets, however deep it is, and so does the gradient on its way back: it is the sum, not the product,
    # ── of what the shortcut and the convolutions let through.
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        block = ResidualBlock(4, 4)
        block.start_as_identity()
        x = torch.rand(2, 4, 8, 8)
        return (block(x) - x).abs().max().item()


def _draw(likeness: dict[str, Tensor]) -> "Figure":
    figure, axes = plotting.figure(9.0, 3.8, columns=2)
    _draw_block(axes.flat[0])
    for index, (name, values) in enumerate(likeness.items()):
        axes.flat[1].plot(
            range(1, len(values) + 1), values.tolist(), **plotting.series_style(index), markersize=4, label=name
        )
    # ── E[relu(a)]² / E[relu(a)²] of a Gaussian a is (1/2π) / (1/2): what two independent outputs have in common.
    axes.flat[1].axhline(UNRELATED, color=plotting.GREY, linewidth=0.8, linestyle="--", label="unrelated, 1/π")
    axes.flat[1].set(
        xlabel="block that keeps the size",
        ylabel="cosine of input and output",
        ylim=(0, 1.05),
        title="Untrained blocks",
    )
    axes.flat[1].legend()
    return figure


LAYERS = ("3×3 convolution", "batch norm, ReLU", "3×3 convolution", "batch norm")


def _draw_block(panel: "Axes") -> None:
    """Boxes from top to bottom, and the shortcut beside them."""
    panel.set_axis_off()
    panel.set(xlim=(-1.6, 2.2), ylim=(-6.4, 1.2), title="A block")
    heights: Sequence[float] = [-float(place) for place in range(len(LAYERS))]
    for height, layer in zip(heights, LAYERS, strict=True):
        box = {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": plotting.COLOURS[0]}
        panel.text(0, height, layer, ha="center", va="center", bbox=box)
    arrow = {"arrowstyle": "-|>", "color": "black", "shrinkA": 0, "shrinkB": 0}
    ends = [(1.0, 0.33), *((-place - 0.33, -place - 0.67) for place in range(3)), (-3.33, -4.2), (-4.8, -5.4)]
    for start, end in ends:
        panel.annotate("", (0, end), (0, start), arrowprops=arrow)
    panel.text(0, -4.5, "+", ha="center", va="center", fontsize=13, bbox={"boxstyle": "circle", "facecolor": "white"})
    panel.text(0.12, -5.2, "ReLU", va="bottom", fontsize=9)
    panel.text(0.12, 0.8, "x", style="italic")
    panel.text(0.12, -6.0, "relu(x + f(x))", style="italic")
    shortcut = plotting.COLOURS[1]
    panel.plot([0, 1.7, 1.7, 0.1], [0.7, 0.7, -4.5, -4.5], color=shortcut, linewidth=2, zorder=1)
    panel.text(1.78, -2.0, "identity", rotation=270, va="center", color=shortcut)
