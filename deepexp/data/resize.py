"""Bringing the pictures of a split to the shape that a model takes, once, before training."""

import torch
from torch import Tensor
from torch.nn import functional as F

from deepexp.data.memory import available_bytes
from deepexp.data.source import Shape, Split
from deepexp.errors import InputError
from deepexp.text.units import amount, counted

_CHUNK_BYTES = 1 << 24


def fit(split: Split, shape: Shape) -> Split:
    """The split with pictures of `shape`: bilinear with antialiasing, a single channel repeated. It stays uint8.

    `InputError` if the numbers of channels differ and the split has more than one, or if memory is too small.
    """
    if split.shape == shape:
        return split
    channels, height, width = shape
    if channels != split.shape[0] and split.shape[0] != 1:
        raise InputError(
            f"the model takes {counted(channels, 'channel')}, the data have {split.shape[0]}; "
            "only a single one can be repeated"
        )
    pictures = len(split)
    _check_memory(pictures, shape)
    resized = torch.empty(pictures, height, width, channels, dtype=torch.uint8)
    chunk = max(1, _CHUNK_BYTES // max(channels * height * width, split.images[0].numel()))
    for samples in torch.arange(pictures).split(chunk):
        part = _bilinear(split.pictures(samples), height, width)  # (chunk, channels of the data, height, width)
        resized[samples[0] : samples[-1] + 1] = part.permute(0, 2, 3, 1)  # repeats a single channel
    return Split(resized.permute(0, 3, 1, 2), split.labels)


def _bilinear(images: Tensor, height: int, width: int) -> Tensor:
    if images.shape[2:] == (height, width):
        return images
    return F.interpolate(images, (height, width), mode="bilinear", antialias=True, align_corners=False)


def _check_memory(pictures: int, shape: Shape) -> None:
    channels, height, width = shape
    needed = pictures * channels * height * width
    available = available_bytes(torch.device("cpu"))
    if available is not None and needed > available:
        raise InputError(
            f"{counted(pictures, 'picture')} resized to {height}×{width} need {amount(needed, 'B')} "
            f"and {amount(available, 'B')} are available; "
            f"take fewer (data.subset), or a smaller size (data.resize; data.size of an image folder)"
        )
