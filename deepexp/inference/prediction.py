"""Predictions of a run's model for picture files. Nothing is trained or written, and the run's data are not needed.

The files are treated like the pictures that the model was trained on: decoded to their size, brought to the shape that
the model takes, normalised with the mean and deviation of the training pictures.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deepexp.data import resize
from deepexp.data.dataset import Pictures
from deepexp.data.decode import channels_and_size, decode_many, show
from deepexp.data.order import batch_bounds
from deepexp.data.resident import ResidentLoader
from deepexp.data.source import Shape, Split
from deepexp.errors import InputError
from deepexp.inference.retest import pictures_of, precision_here
from deepexp.inference.saved_model import Which, load
from deepexp.run.rundir import RunDirectory
from deepexp.step import Precision
from deepexp.text.units import counted

log = logging.getLogger(__name__)

_BATCH_SIZE = 100
_MOST_NAMED = 8
_DARK, _BRIGHT = 96, 160  # mean grey levels


@dataclass(frozen=True)
class Predictions:
    """The answers of a run's model to picture files."""

    files: tuple[str, ...]
    probabilities: Tensor
    """(files, classes) float32"""
    classes: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The most probable class of each file."""
        return tuple(self.classes[index] for index in self.probabilities.argmax(1).tolist())


def predict(
    directory: Path, files: Sequence[str], *, which: Which = "last", device: torch.device, invert: bool = False
) -> Predictions:
    """Decode the files and run the model of a run on them; `invert`: 255 − grey level, bright for dark.

    Raises `InputError` with a line for each file that is no picture, and where a target of the config is not known
    here or there is no such checkpoint. Warns of pictures that had to be changed a lot.
    """
    run = RunDirectory.open(directory)
    saved = load(directory, which)
    pictures = pictures_of(run, saved)
    if pictures.shape[0] not in (1, 3):
        raise InputError(
            f"{directory}: its model was trained on pictures of {counted(pictures.shape[0], 'channel')}, "
            "and those of files have 1 (grey) or 3 (colour)"
        )
    images = _decoded(files, pictures.shape)
    if invert:
        images = 255 - images
    elif turned := _other_way_round(images, pictures):
        log.warning(
            "%s bright (mean grey level above %d), and those of the training dark (%.0f): if they are dark on bright, "
            "invert=true inverts all of them",
            _of_all(turned, files),
            _BRIGHT,
            pictures.mean.mean(),
        )
    split = resize.fit(Split.of(images, torch.zeros(len(images), dtype=torch.int64)), saved.shape)
    loader = ResidentLoader(split, pictures.mean, pictures.std, device)
    bounds = batch_bounds(len(split), _BATCH_SIZE)
    precision = Precision(device, precision_here(saved.config, device))
    model = saved.model.to(device)
    with torch.inference_mode(), precision.arithmetic():
        batches = loader.batches(torch.arange(len(split)), bounds)
        probabilities = [model(images).float().softmax(1).cpu() for images, _ in batches]
    return Predictions(tuple(files), torch.cat(probabilities), pictures.classes)


def _decoded(files: Sequence[str], shape: Shape) -> Tensor:
    """(files, channels, height, width) uint8; a line in one `InputError` for each file that is no picture."""
    channels, height, width = shape
    array = np.empty((len(files), height, width, channels), np.uint8)
    broken: list[tuple[str, str]] = []
    lost_colour = transparent = 0
    for start in range(0, len(files), _BATCH_SIZE):
        batch = list(files[start : start + _BATCH_SIZE])
        pixels, of_batch, without_colour, see_through = decode_many(batch, shape)
        array[start : start + len(batch)] = np.frombuffer(pixels, np.uint8).reshape(-1, height, width, channels)
        broken += of_batch
        lost_colour += without_colour
        transparent += see_through
    if broken:
        lines = [f"{show(path)}: {reason}" for path, reason in broken[:_MOST_NAMED]]
        more = len(broken) - len(lines)
        raise InputError("\n".join([*lines, f"and {more:,} more that cannot be read"] if more else lines))
    _tell_of_changes(files, height, width, lost_colour, transparent)
    return torch.from_numpy(array).permute(0, 3, 1, 2)


def _tell_of_changes(files: Sequence[str], height: int, width: int, lost_colour: int, transparent: int) -> None:
    if resized := sum(channels_and_size(path)[1:] != (height, width) for path in files):
        log.warning("%s resized to %d×%d pixels, as the training's are", _of_all(resized, files), height, width)
    if lost_colour:
        log.warning("%s read as grey, as the training's are", _of_all(lost_colour, files))
    if transparent:
        log.warning("%s transparent in places, which is left out", _of_all(transparent, files))


def _of_all(number: int, files: Sequence[str]) -> str:
    return f"{number:,} of {counted(len(files), 'picture')}"


def _other_way_round(images: Tensor, pictures: Pictures) -> int:
    """How many pictures look dark on bright, if the model was trained on grey ones that are bright on dark; else 0."""
    is_grey = pictures.shape[0] == 1 and bool((pictures.mean > 0).all())  # with normalise=none the mean is not known
    if not is_grey or pictures.mean.mean() > _DARK:
        return 0
    return int((images.flatten(1).float().mean(1) > _BRIGHT).sum())
