"""Choosing some samples of a set so that each class keeps its share, the same ones on every machine."""

import numpy as np
import torch
from torch import Tensor


def frozen_random(seed: int) -> np.random.RandomState:
    """A generator whose stream never changes: NumPy froze `RandomState` (NEP 19); torch and `Generator` promise less.

    What must be the same on every machine and version, such as which samples are a test set, is drawn from it.
    """
    return np.random.RandomState(np.array([seed & 0xFFFFFFFF, seed >> 32], dtype=np.uint32))


def stratified_choice(labels: Tensor, count: int, seed: int, *, leave: int = 0) -> Tensor:
    """Positions (ascending) of `count` samples, each class as near to its share as whole numbers allow.

    `leave`: how many samples of each class must not be chosen, so that no class disappears from the rest.
    `ValueError` if fewer than `count` can then be chosen.
    """
    random = frozen_random(seed)
    classes, sizes = np.unique(labels.numpy(), return_counts=True)
    limits = np.maximum(sizes - leave, 0)
    if count > limits.sum():
        raise ValueError(f"{count} of {len(labels)} samples are asked for, and at most {limits.sum()} can be taken")
    quotas = np.minimum(count * sizes // len(labels), limits)
    # Samples that rounding down left over go to the classes with the largest remainders, ties broken at random.
    remainders = count * sizes % len(labels)
    by_remainder = np.lexsort((random.permutation(len(classes)), -remainders))
    while (missing := count - int(quotas.sum())) > 0:
        open_classes = [index for index in by_remainder if quotas[index] < limits[index]]
        quotas[open_classes[:missing]] += 1
    chosen = [
        random.permutation(np.flatnonzero(labels.numpy() == label))[:quota]
        for label, quota in zip(classes, quotas, strict=True)
    ]
    return torch.from_numpy(np.sort(np.concatenate(chosen)).astype(np.int64))
