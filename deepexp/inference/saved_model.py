"""A trained model out of a run directory: built from the config that was saved, filled with one of its checkpoints."""

import copy
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from deepexp import build, checkpoint, runtime
from deepexp.data.dataset import Pictures
from deepexp.data.source import Shape
from deepexp.errors import InputError
from deepexp.models.layout import channels_last
from deepexp.optim.ema import fill, values_of
from deepexp.run import saved_config
from deepexp.run.circumstances import warn_of_other_code
from deepexp.run.identity import Identity
from deepexp.run.resuming import check_trained_with
from deepexp.run.rundir import RunDirectory
from deepexp.schema import TrainConfig
from deepexp.text.units import counted, one_line
from deepexp.training.progress import Progress

log = logging.getLogger(__name__)

Which = Literal["last", "best"]
"""Which checkpoint; `best`, of the best validation, is there only for runs with `val_fraction`."""


@dataclass(frozen=True)
class SavedModel:
    """A trained model, on the CPU and in test mode, and what is known of its checkpoint."""

    model: nn.Module
    path: Path
    """The checkpoint."""
    step: int
    """Updates made before it was saved."""
    epoch: int
    """The epoch of the last update, from 1."""
    is_averaged: bool
    """Whether the weights are averages over the updates (`ema`)."""
    shape: Shape
    """The shape of pictures that the model takes."""
    classes: int
    """How many classes the model has."""
    config: TrainConfig
    """The config of its run."""
    pictures: Pictures | None
    """What is known of the training pictures; None in an older checkpoint without that."""

    def model_again(self) -> nn.Module:
        """A copy of the model, for a caller that changes it."""
        try:
            return copy.deepcopy(self.model)
        except Exception as error:  # a model may hold anything: a lock, or what `torch.nn.utils.weight_norm` keeps
            log.debug("built anew, as it cannot be copied: %s", error)
        model = build.model(self.config, self.shape, self.classes, "cpu", load_pretrained=False)
        model.load_state_dict(self.model.state_dict())
        fill(model, values_of(self.model))
        return model.eval()

    def facts(self) -> dict[str, Any]:
        """Facts about the checkpoint, for JSON and for the notes of an exported file."""
        return {
            "checkpoint": self.path.name,
            "step": self.step,
            "epoch": self.epoch,
            "averaged": self.is_averaged,
        }

    def in_words(self) -> str:
        """The `facts`, as a line."""
        averaged = ", averaged weights" if self.is_averaged else ""
        return f"{self.path.name}: {counted(self.step, 'update')}, the last one in epoch {self.epoch}{averaged}"


def load(directory: Path, which: Which = "last") -> SavedModel:
    """The model of a run, with averaged weights where the run has averaged them.

    Only targets that are known here are called, and no pretrained weights are looked for. Raises `InputError`.
    """
    run = RunDirectory.open(directory)
    _, config = saved_config.read(run)
    path, content = _content(run, which)
    check_trained_with(config, path, content)
    try:
        channels, height, width = map(int, content["shape"])
        classes = int(content["classes"])
        with runtime.plain_modes(torch.device("cpu")):
            model = build.model(config, (channels, height, width), classes, "cpu", load_pretrained=False)
            model.load_state_dict(content["model"])
            if content["ema"] is not None:
                fill(model, content["ema"]["averages"])
        progress = Progress(**content["progress"])
        step, epoch = int(progress.step), int(progress.present_epoch)
        pictures = Pictures.of(content["pictures"], channels, classes) if "pictures" in content else None
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{path}: does not fit the model of {directory} ({one_line(error)})") from None
    warn_of_other_code(Identity.of(config), content, path)
    model = channels_last(model).eval()
    return SavedModel(
        model=model,
        path=path,
        step=step,
        epoch=epoch,
        is_averaged=content["ema"] is not None,
        shape=(channels, height, width),
        classes=classes,
        config=config,
        pictures=pictures,
    )


def _content(run: RunDirectory, which: Which) -> tuple[Path, dict[str, Any]]:
    if not any((run.checkpoints / name).exists() for name in (checkpoint.LAST, checkpoint.PREVIOUS)):
        if run.is_alive():
            raise InputError(f"{run.path}: is running, and has saved no checkpoint yet")
        raise InputError(f"{run.path}: has no checkpoint; none was saved, or they were removed")
    if which == "last":
        return checkpoint.load_latest(run.checkpoints)
    path = run.checkpoints / checkpoint.BEST
    if not path.exists():
        raise InputError(f"{path}: is not there; a run with val_fraction has one. checkpoint=last is allowed")
    try:
        return path, checkpoint.load(path)
    except InputError as error:
        raise InputError(f"{error}; checkpoint=last is allowed") from None
