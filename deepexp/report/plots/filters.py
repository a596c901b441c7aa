"""The filters of a network's first convolution, from the last checkpoint of a run."""

from typing import TYPE_CHECKING, Any

import numpy as np

from deepexp.errors import InputError
from deepexp.pages import plotting
from deepexp.report.plots.plot import Missing, Plot
from deepexp.report.runs import Run

if TYPE_CHECKING:
    from torch import Tensor

_GAP = 1  # between two filters, in their pixels


def draw(run: Run) -> Plot | Missing:
    """All filters in one picture, on one range: the largest weight of them all is white or black, zero mid-grey."""
    from deepexp import checkpoint

    if not (run.path / "checkpoints" / checkpoint.LAST).is_file():
        return Missing(f"{run.name} has no checkpoint: no epoch was saved, or it was pruned")
    try:
        _, content = checkpoint.load_latest(run.path / "checkpoints")
    except InputError as error:
        return Missing(str(error))
    weight = first_kernels(content)
    if weight is None:
        return Missing(f"{run.name} has no convolution over pictures")
    count, channels, height, width = weight.shape
    largest = float(np.abs(weight).max()) or 1.0
    picture = mosaic(weight, largest)
    tall = picture.shape[0] / picture.shape[1]
    figure, axes = plotting.figure(6.4, min(max(6.4 * tall, 0.9), 8.0))
    axes[0, 0].imshow(picture, interpolation="nearest", cmap="gray", vmin=0, vmax=1)
    axes[0, 0].set_axis_off()
    colours = "their three channels as red, green and blue" if channels == 3 else "the mean of their channels"
    if channels == 1:
        colours = "one channel"
    caption = (
        f"{run.name}: the {count} filters of {height}×{width} of the first convolution, {colours}. One range for all: "
        f"mid-grey is zero, black and white are ∓{largest:.3g}, the largest weight of any."
    )
    return Plot("filters", figure, caption, f"The {count} first-layer filters of {run.name}, as small pictures.")


def first_kernels(content: dict[str, Any]) -> np.ndarray | None:
    """(filters, channels, height, width) float32: the weights of the first convolution, averaged if there are averages.

    `content`: of a checkpoint, whose weights are in the order of the layers.
    """
    weights: dict[str, Tensor] = content["model"]
    averages = (content.get("ema") or {}).get("averages", {})
    for name, value in weights.items():
        if value.ndim == 4:
            kernels: np.ndarray = averages.get(name, value).float().numpy()
            return kernels
    return None


def mosaic(weight: np.ndarray, largest: float) -> np.ndarray:
    """(height, width) or (height, width, 3) in 0 to 1: the filters in rows, white between; ±`largest` is 1 and 0."""
    if weight.shape[1] != 3:
        weight = weight.mean(axis=1, keepdims=True)
    tiles = np.clip(0.5 + weight / (2 * largest), 0, 1).transpose(0, 2, 3, 1)  # (filters, height, width, channels)
    count, height, width, channels = tiles.shape
    columns = min(count, max(8, int(np.ceil(np.sqrt(2 * count)))))
    rows = -(-count // columns)
    paper = np.ones((rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, channels))
    for index, tile in enumerate(tiles):
        top, left = index // columns * (height + _GAP), index % columns * (width + _GAP)
        paper[top : top + height, left : left + width] = tile
    return paper if channels == 3 else paper[..., 0]
