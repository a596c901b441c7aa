"""Augmentation of training pictures: an epoch's randomness drawn at once, then applied batch by batch on the device.

`draw` depends on its arguments alone, so a run that goes on in the middle of an epoch draws the same again. `apply`
works on normalised pictures, where 0 is the mean colour. A batch keeps its shape and is `channels_last`.
"""
# ruff: noqa: ARG002  (not every augmentation needs all that the protocol offers)

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from deepexp.data.source import Shape
from deepexp.data.stratified import frozen_random

Draws = dict[str, Tensor]
"""Random numbers, a row for each sample of an epoch (`draw`) or of a batch (`apply`)."""


class Mix(NamedTuple):
    """How pictures were mixed: the loss is share × CE(own label) + (1 − share) × CE(partner's label)."""

    partner: Tensor
    """(batch,) int64, the sample in the batch that each is mixed with"""
    share: Tensor
    """(batch,) float32 from 0 to 1, how much of the picture is the sample's own"""


class Augment(Protocol):
    """What is done to training pictures. The constructor's arguments are listed in its YAML."""

    def draw(self, samples: int, shape: Shape, generator: torch.Generator) -> Draws:
        """The randomness of an epoch of so many samples, on the CPU."""
        ...

    def apply(self, images: Tensor, draws: Draws) -> tuple[Tensor, Mix | None]:
        """New pictures for (batch, channels, height, width) normalised ones, and how labels are mixed, if they are."""
        ...


@dataclass(frozen=True)
class Nothing:
    """Pictures as they are."""

    def draw(self, samples: int, shape: Shape, generator: torch.Generator) -> Draws:
        """No randomness."""
        return {}

    def apply(self, images: Tensor, draws: Draws) -> tuple[Tensor, Mix | None]:
        """The pictures themselves."""
        return images, None


@dataclass(frozen=True)
class CropFlip:
    """Pad with the mean colour, crop at a random place, mirror some left to right (He et al. 2015)."""

    padding: int
    """pixels on each side"""
    flip_probability: float

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise ValueError(f"padding: {self.padding} is not allowed; at least 0 pixels")
        if not 0 <= self.flip_probability <= 1:
            raise ValueError(f"flip_probability: {self.flip_probability} is not allowed; from 0 to 1")

    def draw(self, samples: int, shape: Shape, generator: torch.Generator) -> Draws:
        """The crop's top left corner in the padded picture, and whether it is mirrored."""
        starts = torch.randint(2 * self.padding + 1, (2, samples), generator=generator)
        flip = torch.rand(samples, generator=generator) < self.flip_probability
        return {"crop_top": starts[0], "crop_left": starts[1], "flip": flip}

    def apply(self, images: Tensor, draws: Draws) -> tuple[Tensor, Mix | None]:
        """One gather of pixels for the whole batch."""
        batch, channels, height, width = images.shape
        padded = F.pad(images, [self.padding] * 4).permute(0, 2, 3, 1)  # (batch, padded height, padded width, channels)
        rows = draws["crop_top"][:, None] + torch.arange(height, device=images.device)  # (batch, height)
        columns = torch.arange(width, device=images.device).expand(batch, width)
        columns = torch.where(draws["flip"][:, None], width - 1 - columns, columns) + draws["crop_left"][:, None]
        _, padded_height, padded_width, _ = padded.shape
        pictures = torch.arange(batch, device=images.device)[:, None] * padded_height
        pixels = ((pictures + rows) * padded_width)[:, :, None] + columns[:, None, :]  # (batch, height, width)
        cut = padded.reshape(-1, channels).index_select(0, pixels.flatten())
        return cut.view(batch, height, width, channels).permute(0, 3, 1, 2), None


@dataclass(frozen=True)
class Cutout:
    """Cover a square at a random place, also beyond the border, with the mean colour (DeVries and Taylor 2017)."""

    size: int
    """side in pixels"""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size: {self.size} is not allowed; at least 1 pixel")

    def draw(self, samples: int, shape: Shape, generator: torch.Generator) -> Draws:
        """The square's centre, uniform over the picture."""
        _, height, width = shape
        return {
            "hole_row": torch.randint(height, (samples,), generator=generator),
            "hole_column": torch.randint(width, (samples,), generator=generator),
        }

    def apply(self, images: Tensor, draws: Draws) -> tuple[Tensor, Mix | None]:
        """Zeros in the square."""
        top, left = draws["hole_row"] - self.size // 2, draws["hole_column"] - self.size // 2
        hole = _inside(images, top, top + self.size, left, left + self.size)
        return torch.where(hole, 0.0, images), None  # masked_fill would lose the memory order


@dataclass(frozen=True)
class Mixup:
    """Blend each picture with another of its batch; its share is drawn from Beta(alpha, alpha) (Zhang et al. 2018)."""

    alpha: float

    def __post_init__(self) -> None:
        _check_alpha(self.alpha)

    def draw(self, samples: int, shape: Shape, generator: torch.Generator) -> Draws:
        """For each sample its share, and a random number (lot) that decides on its partner."""
        return {"share": _beta(self.alpha, samples, generator).float(), "lot": _lots(samples, generator)}

    def apply(self, images: Tensor, draws: Draws) -> tuple[Tensor, Mix | None]:
        """`share` · picture + (1 − `share`) · partner."""
        partner, share = _partners(draws["lot"]), draws["share"]
        weight = share[:, None, None, None]
        return images * weight + _take(images, partner) * (1 - weight), Mix(partner, share)


@dataclass(frozen=True)
class CutMix:
    """Replace a rectangle of each picture by that of another of its batch (Yun et al. 2019).

    Its area is (1 − share) · the picture's, with the share drawn from Beta(alpha, alpha). Then it is clipped at the
    border, and the labels are mixed by the area that is left.
    """

    alpha: float

    def __post_init__(self) -> None:
        _check_alpha(self.alpha)

    def draw(self, samples: int, shape: Shape, generator: torch.Generator) -> Draws:
        """Rectangles (top and left inclusive, bottom and right exclusive), shares, and lots that decide on partners."""
        _, height, width = shape
        side = (1 - _beta(self.alpha, samples, generator)).sqrt()  # as a share of the picture's
        draws: Draws = {"lot": _lots(samples, generator)}
        area = torch.ones(samples, dtype=torch.float64)
        for low, high, length in (("box_top", "box_bottom", height), ("box_left", "box_right", width)):
            centre = torch.randint(length, (samples,), generator=generator)
            half = (side * length / 2).round().long()
            draws[low], draws[high] = (centre - half).clamp(min=0), (centre + half).clamp(max=length)
            area *= draws[high] - draws[low]
        return draws | {"share": (1 - area / (height * width)).float()}

    def apply(self, images: Tensor, draws: Draws) -> tuple[Tensor, Mix | None]:
        """The partner's pixels in the rectangle, the sample's own elsewhere."""
        partner = _partners(draws["lot"])
        box = _inside(images, draws["box_top"], draws["box_bottom"], draws["box_left"], draws["box_right"])
        return torch.where(box, _take(images, partner), images), Mix(partner, draws["share"])


@dataclass(frozen=True)
class _AfterCropFlip:
    """`CropFlip`, then another augmentation."""

    padding: int
    flip_probability: float

    def __post_init__(self) -> None:
        self._parts()

    def _second(self) -> Augment:
        raise NotImplementedError

    def _parts(self) -> tuple[Augment, Augment]:
        return CropFlip(self.padding, self.flip_probability), self._second()

    def draw(self, samples: int, shape: Shape, generator: torch.Generator) -> Draws:
        """The randomness of both."""
        crop_flip, second = self._parts()
        return crop_flip.draw(samples, shape, generator) | second.draw(samples, shape, generator)

    def apply(self, images: Tensor, draws: Draws) -> tuple[Tensor, Mix | None]:
        """One after the other."""
        crop_flip, second = self._parts()
        return second.apply(crop_flip.apply(images, draws)[0], draws)


@dataclass(frozen=True)
class CropFlipCutout(_AfterCropFlip):
    """`CropFlip`, then `Cutout`."""

    size: int

    def _second(self) -> Augment:
        return Cutout(self.size)


@dataclass(frozen=True)
class CropFlipMixup(_AfterCropFlip):
    """`CropFlip`, then `Mixup`."""

    alpha: float

    def _second(self) -> Augment:
        return Mixup(self.alpha)


@dataclass(frozen=True)
class CropFlipCutMix(_AfterCropFlip):
    """`CropFlip`, then `CutMix`."""

    alpha: float

    def _second(self) -> Augment:
        return CutMix(self.alpha)


def _check_alpha(alpha: float) -> None:
    if not (alpha > 0 and math.isfinite(alpha)):
        raise ValueError(f"alpha: {alpha} is not allowed; above 0")


def _beta(alpha: float, samples: int, generator: torch.Generator) -> Tensor:
    """(samples,) float64 drawn from Beta(alpha, alpha), by NumPy, as torch's `Beta` takes no generator."""
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.from_numpy(frozen_random(seed).beta(alpha, alpha, samples))


def _lots(samples: int, generator: torch.Generator) -> Tensor:
    return torch.rand(samples, generator=generator)


def _partners(lots: Tensor) -> Tensor:
    """A uniformly random permutation of the batch, of whatever size: the order of its lots."""
    return lots.argsort(stable=True)


def _take(images: Tensor, samples: Tensor) -> Tensor:
    """The pictures of some samples, `channels_last`."""
    return images.permute(0, 2, 3, 1).index_select(0, samples).permute(0, 3, 1, 2)


def _inside(images: Tensor, top: Tensor, bottom: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """(batch, 1, height, width) bool: True in each sample's rectangle, bottom and right excluded."""
    rows = torch.arange(images.shape[2], device=images.device)
    columns = torch.arange(images.shape[3], device=images.device)
    in_rows = (rows >= top[:, None]) & (rows < bottom[:, None])  # (batch, height)
    in_columns = (columns >= left[:, None]) & (columns < right[:, None])  # (batch, width)
    return (in_rows[:, :, None] & in_columns[:, None, :])[:, None]
