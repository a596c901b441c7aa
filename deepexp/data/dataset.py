"""The pictures of a run: split, subsampled, resized to the model's shape; and their mean and standard deviation.

Sources say where pictures come from; how batches are made of them is in `resident.py` and `streamed.py`.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from deepexp.data.resize import fit
from deepexp.data.source import DataInfo, Shape, Source, Split
from deepexp.data.stratified import stratified_choice
from deepexp.errors import InputError
from deepexp.runtime import derive_seed
from deepexp.text.units import counted, first_few

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of red, green and blue in 0 … 1, as in the references of torchvision and since in most others."""

Normalise = Literal["channel", "scalar", "imagenet", "none"]

_CHUNK_BYTES = 1 << 24


@dataclass(frozen=True)
class Dataset:
    """What a run trains, validates and tests on. A normalised picture is (picture − mean) / std, in grey levels."""

    train: Split
    val: Split | None
    test: Split
    mean: Tensor
    """(channels,) float32"""
    std: Tensor
    """(channels,) float32"""
    classes: tuple[str, ...]
    fingerprint: str
    """SHA-256 of all pictures and labels that are used"""
    test_fingerprint: str
    """SHA-256 of those of the test set"""

    @property
    def shape(self) -> Shape:
        """The shape of one picture, as the model sees it."""
        return self.train.shape

    @property
    def class_counts(self) -> list[int]:
        """How many training samples each class has."""
        return torch.bincount(self.train.labels, minlength=len(self.classes)).tolist()


@dataclass(frozen=True)
class Pictures:
    """What a model needs to predict other pictures: shape, normalisation and classes of those it was trained on."""

    shape: Shape
    """As the source gives them, before they are resized to the model's shape"""
    mean: Tensor
    """(channels of the model,) float32"""
    std: Tensor
    """(channels of the model,) float32"""
    classes: tuple[str, ...]

    def may_be_of(self, data: Dataset) -> bool:
        """Whether `data` has this mean, this standard deviation and these classes."""
        alike = all(
            mine.shape == theirs.shape and torch.allclose(mine, theirs)
            for mine, theirs in ((self.mean, data.mean), (self.std, data.std))
        )
        return alike and self.classes == tuple(map(str, data.classes))

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"shape": list(self.shape), "mean": self.mean, "std": self.std, "classes": list(map(str, self.classes))}

    @classmethod
    def of(cls, state: dict[str, Any], channels: int, classes: int) -> "Pictures":
        """From a `state_dict`, for a model of so many channels and classes; `ValueError` if it does not fit."""
        shape, mean, std, names = (state[name] for name in ("shape", "mean", "std", "classes"))
        if not (len(shape) == 3 and all(type(size) is int and size > 0 for size in shape)):
            raise ValueError(f"pictures of shape {shape}")
        for values in (mean, std):
            if not (isinstance(values, Tensor) and values.dtype == torch.float32 and values.shape == (channels,)):
                raise ValueError("mean and deviation must be a number each for every channel")
        if not (mean.isfinite().all() and std.isfinite().all() and (std > 0).all()):
            raise ValueError("mean and deviation must be finite, and no deviation zero")
        if len(names) != classes or not all(isinstance(name, str) for name in names):
            raise ValueError(f"there must be a name for each of {classes} classes")
        return cls((shape[0], shape[1], shape[2]), mean, std, tuple(names))


def training_samples(info: DataInfo, subset: int | None, replicate: int, val_fraction: float) -> int:
    """How many samples an epoch has: those not held out for validation, or a subset of them, `replicate` times.

    `InputError` if none are left, or fewer than `subset`.
    """
    left = info.train_samples - _held_out_samples(info, val_fraction)
    if subset is not None and subset > left:
        raise InputError(
            f"data.subset: {subset} is more than the {counted(left, 'training sample')}; at most {left}, or null"
        )
    return (left if subset is None else subset) * replicate


def announced_pictures(info: DataInfo, subset: int | None, val_fraction: float) -> int:
    """How many pictures a run uses for training, validation and testing."""
    used = training_samples(info, subset, 1, val_fraction)
    return used + _held_out_samples(info, val_fraction) + info.val_samples + info.test_samples


def has_validation(info: DataInfo, val_fraction: float) -> bool:
    """Whether a run has validation data: of the source's own, or held out of the training data."""
    return info.val_samples > 0 or val_fraction > 0


def load(source: Source) -> tuple[Split, Split, Split | None]:
    """(training, test, validation) in NHWC memory order; `InputError` if a source does not give what it promised."""
    train, test, *rest = source.load()
    info = source.info()
    train, test = _checked(train, "training", info), _checked(test, "test", info)
    val = _checked(rest[0], "validation", info) if rest else None
    if val is None and info.val_samples:
        raise InputError(f"validation data: the source gives none; announced were {info.val_samples:,}")
    _check_classes(train, test, "test", info)
    if val is not None:
        _check_classes(train, val, "validation", info)
    return train, test, val


def assemble(
    source: Source,
    *,
    shape: Shape,
    subset: int | None = None,
    replicate: int = 1,
    val_fraction: float = 0.0,
    normalise: Normalise = "channel",
    seed: int = 0,
) -> Dataset:
    """Load a source and prepare it for a run; `seed` decides which samples are held out, and which are the subset."""
    train, test, val = load(source)
    info = source.info()
    samples = training_samples(info, subset, 1, val_fraction)
    if val is None:
        train, val = _hold_out(train, _held_out_samples(info, val_fraction), derive_seed(seed, "validation"))
    if samples < len(train):
        train = train.take(stratified_choice(train.labels, samples, derive_seed(seed, "subset")))
    train, test = fit(train, shape), fit(test, shape)
    val = None if val is None else fit(val, shape)
    mean, std = _statistics(train, normalise)
    fingerprint = _fingerprint([train, test] if val is None else [train, test, val], replicate)
    test_fingerprint = _fingerprint([test], 1)
    if replicate > 1:
        train = train.take(torch.arange(len(train)).repeat(replicate))
    return Dataset(train, val, test, mean, std, info.classes, fingerprint, test_fingerprint)


def _held_out_samples(info: DataInfo, val_fraction: float) -> int:
    """How many training samples become validation data."""
    samples = info.train_samples
    if val_fraction == 0:
        return 0
    if info.val_samples:
        raise InputError(
            f"val_fraction: the data have {counted(info.val_samples, 'validation picture')} of their own; "
            "leave it at 0.0 (for image_folder, data.own_validation=false takes training pictures instead)"
        )
    count = round(samples * val_fraction)
    if not 0 < count < samples:
        share = f"{val_fraction} of {counted(samples, 'sample')}"
        raise InputError(f"val_fraction: {share} is {count}; at least 1, and not all, are needed")
    return count


def _hold_out(train: Split, count: int, seed: int) -> tuple[Split, Split | None]:
    if count == 0:
        return train, None
    try:
        chosen = stratified_choice(train.labels, count, seed, leave=1)
    except ValueError as error:
        raise InputError(f"val_fraction: {error}, since each class keeps one sample for training") from error
    is_val = torch.zeros(len(train), dtype=torch.bool)
    is_val[chosen] = True
    return train.take((~is_val).nonzero().squeeze(1)), train.take(chosen)


def _checked(split: Split, name: str, info: DataInfo) -> Split:
    """The split in NHWC memory order, its labels contiguous; `InputError` if it is not what the source announced."""
    if not (isinstance(split, Split) and isinstance(split.images, Tensor) and isinstance(split.labels, Tensor)):
        raise InputError(f"{name} data: the source gives {_types(split)}; needed is a Split of two tensors")
    images, labels = split.images, split.labels
    if images.dtype != torch.uint8 or images.dim() != 4 or labels.dtype != torch.int64 or labels.dim() != 1:
        raise InputError(
            f"{name} data: pictures {images.dtype} {tuple(images.shape)}, labels {labels.dtype} {tuple(labels.shape)}; "
            f"needed are uint8 (samples, channels, height, width) and int64 (samples,)"
        )
    if images.device.type != "cpu" or labels.device.type != "cpu":
        raise InputError(
            f"{name} data: pictures on {images.device}, labels on {labels.device}; "
            "needed are both on the CPU (they are copied to where the model is)"
        )
    if split.rows is not None:
        _check_rows(split.rows, len(images), name)
    expected = {"training": info.train_samples, "test": info.test_samples, "validation": info.val_samples}[name]
    pictures = len(images) if split.rows is None else len(split.rows)
    if split.shape != info.shape or not pictures == len(labels) == expected or expected == 0:
        raise InputError(
            f"{name} data: {counted(pictures, 'picture')} of shape {split.shape} with {counted(len(labels), 'label')}; "
            f"announced were {expected} of shape {info.shape} (at least one)"
        )
    if labels.min() < 0 or labels.max() >= len(info.classes):
        raise InputError(
            f"{name} data: labels from {labels.min()} to {labels.max()}; for {len(info.classes)} classes "
            f"0 to {len(info.classes) - 1} are allowed"
        )
    if not images.permute(0, 2, 3, 1).is_contiguous():
        images = Split.of(images, labels).images
    return Split(images, labels.contiguous(), split.rows, split.file)  # labels may be a column of a table


def _check_rows(rows: Tensor, pictures: int, name: str) -> None:
    if not isinstance(rows, Tensor):
        raise InputError(f"{name} data: rows are a {type(rows).__name__}; needed is a tensor (samples,) int64")
    if rows.dtype != torch.int64 or rows.dim() != 1:
        raise InputError(f"{name} data: rows {rows.dtype} {tuple(rows.shape)}; needed is int64 (samples,)")
    if len(rows) and not 0 <= rows.min() <= rows.max() < pictures:
        raise InputError(
            f"{name} data: rows from {rows.min()} to {rows.max()}; "
            f"of {counted(pictures, 'picture')} 0 to {pictures - 1} are there"
        )


def _types(split: object) -> str:
    if not isinstance(split, Split):
        return f"a {type(split).__name__}"
    return f"a Split of {type(split.images).__name__} and {type(split.labels).__name__}"


def _check_classes(train: Split, test: Split, name: str, info: DataInfo) -> None:
    trained, tested = (split.labels.bincount(minlength=len(info.classes)) for split in (train, test))  # (classes,)
    untrained = ((trained == 0) & (tested > 0)).nonzero().flatten().tolist()
    if untrained:
        names = first_few([info.classes[label] for label in untrained], most=8)
        raise InputError(f"{name} data: no training samples of {counted(len(untrained), 'class')} ({names})")


def _chunks(split: Split) -> Iterator[np.ndarray]:
    """All pictures in sample order, at most 256 at a time: (n, height * width * channels) uint8.

    In NumPy, which uses one thread: torch's threads would wait for each other at each of the many small steps.
    """
    pixels = split.pixels.numpy()
    most = max(1, min(256, _CHUNK_BYTES // pixels.shape[1]))
    for start in range(0, len(split), most):
        chosen = slice(start, start + most)
        yield pixels[chosen] if split.rows is None else pixels[split.rows[chosen].numpy()]


def _statistics(split: Split, normalise: Normalise) -> tuple[Tensor, Tensor]:
    """(mean, std) of each channel, float32, exact until the last rounding.

    A chunk has at most 256 pictures. So its sums, at most 256 · 255² < 2²⁴, are whole numbers that float32 holds
    exactly; chunks are added as integers. `none` leaves pixels in 0 … 1, `imagenet` takes what torchvision's published
    weights were trained with. A channel without variation gets std 1.
    """
    channels, height, width = split.shape
    if normalise == "imagenet":
        if channels != 3:
            raise InputError(f"data.normalise: imagenet is for pictures of 3 channels, and these have {channels}")
        return 255 * torch.tensor(_IMAGENET_MEAN), 255 * torch.tensor(_IMAGENET_STD)
    if normalise == "none":
        return torch.zeros(channels), torch.full((channels,), 255.0)
    sums = np.zeros((2, height * width * channels), np.int64)  # of the values and of their squares
    for pixels in _chunks(split):
        values = pixels.astype(np.float32)
        sums[0] += values.sum(0).astype(np.int64)
        sums[1] += np.square(values, out=values).sum(0).astype(np.int64)
    totals, count = sums.reshape(2, -1, channels).sum(1), len(split) * height * width  # (2, channels)
    if normalise == "scalar":
        totals, count = np.repeat(totals.sum(1, keepdims=True), channels, axis=1), count * channels
    mean, std = [], []
    for total, squares in totals.T.tolist():
        mean.append(total / count)
        std.append(math.sqrt((count * squares - total**2) / count**2) or 1.0)
    return torch.tensor(mean), torch.tensor(std)


def _fingerprint(splits: list[Split], replicate: int) -> str:
    sha256 = hashlib.sha256(repr((splits[0].shape, [len(split) for split in splits], replicate)).encode())
    for split in splits:
        for pixels in _chunks(split):
            sha256.update(pixels.data)
        sha256.update(split.labels.numpy().data)
    return sha256.hexdigest()
