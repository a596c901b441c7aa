"""A batch through a linear layer as one matrix product, and as one product per sample: the same numbers, other times.

The slides' measurement, forward and backward, over batch sizes, on every device there is.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from deepexp import runtime
from deepexp.lecture.demonstration import Demonstration, Picture, Scale, check_sizes, figures, table
from deepexp.pages import plotting
from deepexp.text.units import counted, duration

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZES: dict[Scale, tuple[int, int, list[int], int]] = {
    # inputs, outputs, batch sizes, repeats; the largest standard batch is the slides'
    "quick": (500, 750, [1, 10, 100, 500], 5),
    "standard": (1000, 1500, [1, 10, 100, 1000, 2500], 11),
}


# ── The layer has a weight matrix w (outputs, inputs) and no bias. A batch lies in the rows of x (batch, inputs), so
# ── that the whole batch is one product, y = x wᵀ. A loop takes a row at a time, y[n] = w x[n], and for each row the
# ── whole of w travels from memory to the processor; for a batch it travels once, and many samples use each part of it.
def forward_batch(x: Tensor, w: Tensor) -> Tensor:
    """(batch, inputs) → (batch, outputs)."""
    return x.mm(w.t())


def forward_loop(x: Tensor, w: Tensor) -> Tensor:
    """The same, a sample at a time."""
    y = x.new_empty(len(x), len(w))
    for n in range(len(x)):
        torch.mv(w, x[n], out=y[n])
    return y


# ── Backward, dy (batch, outputs) is what came down from the loss. Each sample adds an outer product dy[n] x[n]ᵀ to the
# ── gradient of w; over the batch their sum is again one product, dyᵀ x. The gradient of x is dy w.
def backward_batch(x: Tensor, w: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of w (outputs, inputs) and of x (batch, inputs)."""
    return dy.t().mm(x), dy.mm(w)


def backward_loop(x: Tensor, w: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    """The same, a sample at a time."""
    dw, dx = torch.zeros_like(w), torch.empty_like(x)
    for n in range(len(x)):
        dw.addr_(dy[n], x[n])
        torch.mv(w.t(), dy[n], out=dx[n])
    return dw, dx


@dataclass(frozen=True)
class Timing:
    """Medians of one device, batch size and direction."""

    device: torch.device
    samples: int
    direction: str
    batch_seconds: float
    loop_seconds: float
    difference: float
    """Largest difference between the two results, relative to the largest value."""

    @property
    def ratio(self) -> float:
        return self.loop_seconds / self.batch_seconds


def demonstrate(
    *,
    scale: Scale = "standard",
    sizes: list[int] | None = None,
    inputs: int | None = None,
    outputs: int | None = None,
    repeats: int | None = None,
    seed: int = 0,
    device: str = "all",
) -> Demonstration:
    """Time both for each batch size of `sizes`, in turns.

    The layer has `inputs` and `outputs` units; times are medians over `repeats`. By default the scale decides on all
    of these. `device`: cpu, cuda, …, or all that there are.
    """
    check_sizes(sizes=sizes, inputs=inputs, outputs=outputs, repeats=repeats)
    usual = SIZES[scale]
    shape = (inputs or usual[0], outputs or usual[1])
    devices = _devices() if device == "all" else [runtime.choose_device(device)]
    timings = [
        timing
        for where in devices
        for samples in sizes or usual[2]
        for timing in measure(samples, *shape, repeats or usual[3], seed, where)
    ]
    rows = [
        (
            runtime.describe_device(t.device),
            t.direction,
            f"{t.samples:,}",
            duration_of(t.batch_seconds),
            duration_of(t.loop_seconds),
            f"{t.ratio:.1f}",
            f"{t.difference:.0e}",
        )
        for t in timings
    ]
    header = ("device", "direction", "batch", "batch time", "loop time", "loop / batch", "relative difference")
    layer = f"{counted(shape[0], 'input')} and {counted(shape[1], 'output')}"
    caption = f"A layer of {layer}, medians of {counted(repeats or usual[3], 'repeat')}"
    return Demonstration(
        title="A batch against a loop over its samples",
        text=" ".join([*map(_sentence, _largest(timings)), "Both ways give the same numbers, within float error."]),
        tables=(table(header, rows, caption),),
        pictures=(
            Picture(
                "batch_vs_loop", _draw(timings), "Time per sample (left), and how many times longer the loop takes."
            ),
        ),
        facts={
            "largest_difference": max(timing.difference for timing in timings),
            "ratio": _largest(timings)[0].ratio,
        },
    )


def measure(samples: int, inputs: int, outputs: int, repeats: int, seed: int, device: torch.device) -> Iterator[Timing]:
    """Forward and backward at one batch size: the two ways in turns, so that a busy machine slows both alike."""
    random = torch.Generator().manual_seed(seed)
    x, w, dy = (
        torch.randn(size, generator=random).to(device)
        for size in ((samples, inputs), (outputs, inputs), (samples, outputs))
    )
    yield _timing(device, "forward", samples, lambda: (forward_batch(x, w),), lambda: (forward_loop(x, w),), repeats)
    yield _timing(
        device, "backward", samples, lambda: backward_batch(x, w, dy), lambda: backward_loop(x, w, dy), repeats
    )


Work = Callable[[], tuple[Tensor, ...]]


def _timing(device: torch.device, direction: str, samples: int, batch: Work, loop: Work, repeats: int) -> Timing:
    pairs = zip(batch(), loop(), strict=True)  # which also warms up
    difference = max(((a - b).abs().max() / a.abs().max()).item() for a, b in pairs)
    seconds: dict[Work, list[float]] = {batch: [], loop: []}
    for _ in range(repeats):
        for work, times in seconds.items():
            times.append(_seconds(work, device))
    return Timing(
        device, samples, direction, statistics.median(seconds[batch]), statistics.median(seconds[loop]), difference
    )


def _seconds(work: Work, device: torch.device) -> float:
    # ── A GPU works asynchronously: a call returns when the work is queued, not when it is done. To time it, one has to
    # ── wait for the device before each look at the clock.
    runtime.synchronise(device)
    began = time.perf_counter()
    work()
    runtime.synchronise(device)
    return time.perf_counter() - began


def _devices() -> list[torch.device]:
    best = runtime.choose_device("auto")
    return [torch.device("cpu")] + ([best] if best.type != "cpu" else [])


def _largest(timings: Sequence[Timing]) -> list[Timing]:
    """The forward timing at the largest batch, of each device."""
    forward = [timing for timing in timings if timing.direction == "forward"]
    devices = dict.fromkeys(timing.device for timing in forward)
    return [max((t for t in forward if t.device == device), key=lambda t: t.samples) for device in devices]


def _sentence(timing: Timing) -> str:
    name = {"cpu": "CPU", "cuda": "GPU"}.get(timing.device.type, timing.device.type.upper())
    return f"{name} batch vs. loop speed ratio {timing.ratio:.1f} (forward, batches of {timing.samples:,})."


def duration_of(seconds: float) -> str:
    """`12.3 µs`, `4.56 ms`, `1.23 s`."""
    if seconds < 1e-3:
        return f"{figures(1e6 * seconds)} µs"
    return f"{figures(1e3 * seconds)} ms" if seconds < 1 else duration(seconds)


def _draw(timings: Sequence[Timing]) -> "Figure":
    figure, axes = plotting.figure(9.0, 3.8, columns=2)
    left, right = axes.flat
    by_size = sorted(timings, key=lambda timing: timing.samples)
    series = 0
    for device in dict.fromkeys(timing.device for timing in timings):
        for direction in ("forward", "backward"):
            chosen = [t for t in by_size if (t.device, t.direction) == (device, direction)]
            sizes = [t.samples for t in chosen]
            for way in ("batch", "loop"):
                microseconds = [1e6 * getattr(t, f"{way}_seconds") / t.samples for t in chosen]
                left.plot(sizes, microseconds, label=f"{way}, {direction}, {device}", **plotting.series_style(series))
                series += 1
            style = plotting.series_style(series - 1)
            right.plot(sizes, [t.ratio for t in chosen], label=f"{direction}, {device}", **style)
    right.axhline(1.0, color=plotting.GREY, linewidth=0.8)
    left.set(xscale="log", yscale="log", xlabel="samples in the batch", ylabel="µs per sample", title="Time")
    right.set(xscale="log", xlabel="samples in the batch", ylabel="loop / batch", title="Speed ratio")
    highest = max(1.0, *(timing.ratio for timing in timings))
    right.set_ylim(0, (1 + 0.15 * len(right.lines)) * highest)  # room for the legend above all lines
    right.legend(loc="upper left")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure
