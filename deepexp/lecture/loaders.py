"""Pictures that lie on the device against pictures that other processes load: the same batches, other times."""

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from deepexp import runtime
from deepexp.data.dataset import Dataset, assemble
from deepexp.data.digits import Digits
from deepexp.data.loader import Loader
from deepexp.data.order import batch_bounds, epoch_order
from deepexp.data.resident import ResidentLoader
from deepexp.data.streamed import StreamedLoader
from deepexp.lecture.demonstration import Demonstration, Picture, Scale, check_sizes, figures, table
from deepexp.pages import plotting
from deepexp.text.units import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def demonstrate(
    *,
    scale: Scale = "standard",
    batch_size: int = 100,
    workers: list[int] | None = None,
    epochs: int | None = None,
    seed: int = 0,
    device: str = "auto",
) -> Demonstration:
    """Time whole epochs of loading, without any training, and compare the batches byte by byte.

    `workers`: how many processes load, for each loader; 0 is this process, and 0,2 the default. `epochs`: by default
    as the scale says. `device`: cpu, cuda, …; auto takes the best that is there.
    """
    check_sizes(batch_size=batch_size, epochs=epochs)
    if any(count < 0 for count in workers or []):
        raise ValueError(f"workers: {workers} is not allowed; at least 0 each")
    where = runtime.choose_device(device)
    replicate, usual = {"quick": (10, 3), "standard": (40, 5)}[scale]
    epochs = epochs or usual
    data = assemble(Digits(), shape=(1, 28, 28), replicate=replicate, seed=seed)
    loaders: dict[str, Loader] = {"resident": ResidentLoader(data.train, data.mean, data.std, where)}
    for count in dict.fromkeys(workers if workers is not None else [0, 2]):
        name = f"streamed, {counted(count, 'worker')}" if count else "streamed, same process"
        loaders[name] = StreamedLoader(data.train, data.mean, data.std, where, workers=count)
    try:
        same = {name: same_batches(loaders["resident"], one, data, batch_size, seed) for name, one in loaders.items()}
        seconds = measure(loaders, data, batch_size, epochs, seed, where)
    finally:
        for loader in loaders.values():
            loader.close()
    speeds = {name: len(data.train) / statistics.median(times) for name, times in seconds.items()}
    rows = [
        (name, f"{speed:,.0f}", figures(speeds["resident"] / speed), "yes" if same[name] else "no")
        for name, speed in speeds.items()
    ]
    header = ("loader", "samples/s", "resident is faster by", "same batches")
    slowest = min(speeds.keys() - {"resident"}, key=lambda name: speeds[name])
    return Demonstration(
        title="Data that fit in memory, and data that do not",
        text=f"For {counted(len(data.train), 'sample')} of 1×28×28 in batches of {batch_size:,} on {where}, what lies "
        f"on the device comes {speeds['resident'] / speeds[slowest]:.1f} times as fast as from “{slowest}”. All give "
        "the same batches for the same seed, so that the choice is one of memory and not of results.",
        tables=(table(header, rows, f"Loading alone, medians of {counted(epochs, 'epoch')} in turns"),),
        pictures=(Picture("loaders", _draw(speeds), "Samples that each loader gives a second."),),
        facts={
            "same_batches": float(all(same.values())),
            **{f"speed/{name}": speed for name, speed in speeds.items()},
        },
    )


def same_batches(first: Loader, second: Loader, data: Dataset, batch_size: int, seed: int) -> bool:
    """Whether both give the same pictures and labels, bit for bit, through an epoch."""
    if first is second:
        return True
    order = epoch_order(len(data.train), "shuffled", seed, epoch=0)
    bounds = batch_bounds(len(order), batch_size)
    pairs = zip(first.batches(order, bounds), second.batches(order, bounds), strict=True)
    return all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in pairs)


def measure(
    loaders: Mapping[str, Loader], data: Dataset, batch_size: int, epochs: int, seed: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of whole epochs by loader, in turns, so that a busy machine slows all alike."""
    # ── A small batch of bytes is put together in microseconds where the pictures lie. From other processes each batch
    # ── has to be announced, copied and fetched, whatever it holds, and then brought to the device. That pays off where
    # ── pictures have to be read or decoded, or do not fit; a set like MNIST is better kept whole where it is used.
    bounds = batch_bounds(len(data.train), batch_size)
    seconds: dict[str, list[float]] = {name: [] for name in loaders}
    for epoch in range(epochs):
        order = epoch_order(len(data.train), "shuffled", seed, epoch + 1)
        for name, loader in loaders.items():
            began = time.perf_counter()
            for _ in loader.batches(order, bounds):
                pass
            runtime.synchronise(device)
            seconds[name].append(time.perf_counter() - began)
    return seconds


def _draw(speeds: Mapping[str, float]) -> "Figure":
    figure, axes = plotting.figure(6.4, 1.2 + 0.4 * len(speeds))
    (panel,) = axes.flat
    names: Sequence[str] = list(speeds)
    panel.barh(names, list(speeds.values()), color=plotting.COLOURS[0], height=0.6)
    for place, speed in enumerate(speeds.values()):
        label = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "fontsize": 9}
        panel.annotate(f"{speed:,.0f}", (speed, place), **label)
    panel.invert_yaxis()
    panel.grid(visible=False, axis="y")  # it would run through the numbers
    panel.margins(x=0.15)
    panel.set(xlabel="samples a second")
    panel.xaxis.set_major_formatter("{x:,.0f}")
    panel.locator_params(axis="x", nbins=5)  # more would run into each other once there are millions
    return figure
