"""Weights that make up for classes of different sizes."""

import torch
from torch import Tensor


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """(classes,) float32, inversely proportional to how many of the labels are of each class: N / (classes · n).

    Their mean over the labels is 1 where each class occurs; one that does not has weight 1.
    """
    counts = torch.bincount(labels, minlength=classes).double()
    return torch.where(counts > 0, len(labels) / (classes * counts), 1.0).float()
