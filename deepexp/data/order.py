"""In which order the samples of an epoch are visited, and where one batch ends and the next begins."""

from typing import Literal

import torch
from torch import Tensor

from deepexp.runtime import generator

Order = Literal["shuffled", "sequential", "with_replacement"]

Bounds = tuple[int, int]
"""Where a batch begins and ends: the position of its first sample in the order of its epoch, and of that behind it."""


def epoch_order(samples: int, order: Order, seed: int, epoch: int) -> Tensor:
    """(samples,) int64 on the CPU, a pure function of its arguments; every device sees the same batches for it.

    `shuffled` is uniform without replacement, a new permutation for each epoch; `with_replacement` draws each sample
    independently, so that about 1/e of them are not seen in an epoch.
    """
    if order == "sequential":
        return torch.arange(samples)
    random = generator(seed, "order", epoch)
    if order == "shuffled":
        return torch.randperm(samples, generator=random)
    if order == "with_replacement":
        return torch.randint(samples, (samples,), generator=random)
    raise ValueError(f"order: {order!r} is not allowed; shuffled, sequential or with_replacement")


def batch_bounds(samples: int, batch_size: int, drop_last: bool = False, batch_norm: bool = False) -> list[Bounds]:
    """The bounds of each batch of an epoch.

    A last partial batch is kept unless `drop_last`. With batch normalisation a last batch of one sample, which has no
    variance, joins the one before.
    """
    bounds = [(start, min(start + batch_size, samples)) for start in range(0, samples, batch_size)]
    rest = samples % batch_size
    if drop_last and rest:
        bounds.pop()
    elif batch_norm and rest == 1 and len(bounds) > 1:
        bounds.pop()
        bounds[-1] = (bounds[-1][0], samples)
    return bounds
