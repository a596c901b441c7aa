"""The identity of a residual network across a change of size: a regular grid, channels of zeros or a 1×1 kernel.

He et al. (2015), section 3.3.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from deepexp.data.digits import Digits
from deepexp.lecture.demonstration import Demonstration, Picture, figures, table
from deepexp.models.blocks import PadShortcut
from deepexp.models.size import parameter_count
from deepexp.pages import plotting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHANNELS, MORE_CHANNELS = 16, 32


def demonstrate(*, seed: int = 0) -> Demonstration:
    """Take a map of activations through both kinds of shortcut with stride 2."""
    x = maps()
    # ── The identity across a stride of 2 takes every second row and every second column. It is not an average: three
    # ── quarters of the values are simply not passed on, and the convolutions beside it have to bring what is in them.
    grid = x[:, :, ::2, ::2]
    pad = PadShortcut(2, 4, stride=2)
    padded = pad(x)
    # ── More channels come from nothing (zeros, no parameters) or from a linear map of the old ones that is the same at
    # ── every place, which is what a 1×1 convolution is.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        conv = nn.Conv2d(2, 4, kernel_size=1, stride=2, bias=False, dtype=torch.float64)
    projected = conv(x).detach()
    by_hand = torch.einsum("oi,bihw->bohw", conv.weight[:, :, 0, 0], grid)
    facts = {
        "grid_error": (padded[:, :2] - grid).abs().max().item(),
        "zero_channels": padded[:, 2:].abs().max().item(),
        "projection_error": (projected - by_hand).abs().max().item(),
        "kept": grid.numel() / x.numel(),
        "pad_parameters": parameter_count(PadShortcut(CHANNELS, MORE_CHANNELS, 2)),
        "conv_parameters": parameter_count(nn.Conv2d(CHANNELS, MORE_CHANNELS, 1, 2, bias=False)),
    }
    rows = [
        ("pad (option A)", _shape(padded), f"{facts['pad_parameters']:,.0f}", figures(facts["grid_error"])),
        ("conv (option B)", _shape(projected), f"{facts['conv_parameters']:,.0f}", figures(facts["projection_error"])),
    ]
    header = ("shortcut", "2×8×8 becomes", f"parameters, {CHANNELS} to {MORE_CHANNELS} channels", "largest difference")
    return Demonstration(
        title="The identity across a change of size",
        text=f"With a stride of 2 the identity passes on {facts['kept']:.0%} of the values, those on a regular grid, "
        "and either adds channels of zeros or maps the channels linearly at each place. Both are what indexing by "
        "hand gives.",
        tables=(table(header, rows, "Against x[:, :, ::2, ::2], and that times the 1×1 kernel"),),
        pictures=(
            Picture(
                "strided_identity",
                _draw(x, padded, projected),
                "Marked values are passed on; then the two ways (of conv, red is positive and blue negative).",
            ),
        ),
        facts=facts,
    )


def maps() -> Tensor:
    """Two channels of activations (1, 2, 8, 8) float64: a digit, and its vertical edges."""
    train, _ = Digits().load()
    digit = train.images[4, 0].double() / 255
    edges = (digit - digit.roll(1, dims=1)).abs()
    return torch.stack([digit, edges])[None]


def _shape(x: Tensor) -> str:
    return "×".join(map(str, x.shape[1:]))


def _draw(x: Tensor, padded: Tensor, projected: Tensor) -> "Figure":
    figure, axes = plotting.figure(9.0, 3.4, rows=2, columns=6)
    for panel in axes.flat:
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(True)
    for channel in range(2):
        panel = axes[channel, 0]
        panel.imshow(x[0, channel].numpy(), cmap="gray_r", vmin=0, vmax=1)
        rows, columns = torch.meshgrid(torch.arange(0, 8, 2), torch.arange(0, 8, 2), indexing="ij")
        marks = {"marker": "s", "markersize": 9, "markerfacecolor": "none", "linestyle": "none"}
        panel.plot(columns.flatten().tolist(), rows.flatten().tolist(), color=plotting.COLOURS[1], **marks)
        panel.set_title(f"x, channel {channel + 1}", fontsize=9)
        axes[channel, 1].set_axis_off()
    # One arrow between the rows: either way takes both channels.
    arrow = axes[0, 1].text(0.5, -0.1, "both channels,\nstride 2  →", ha="center", va="center")
    arrow.set_in_layout(False)
    for row, (name, maps_, limits) in enumerate(
        (("pad", padded, (0, 1)), ("conv", projected, (-float(projected.abs().max()), float(projected.abs().max()))))
    ):
        for channel in range(4):
            panel = axes[row, channel + 2]
            panel.imshow(
                maps_[0, channel].numpy(), cmap="gray_r" if row == 0 else "RdBu_r", vmin=limits[0], vmax=limits[1]
            )
            panel.set_title(f"{name}, channel {channel + 1}", fontsize=9)
    return figure
