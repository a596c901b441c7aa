"""Whether a run computes the output of its frozen first layers only once, and the switch from pictures to features.

While the stem of a model is frozen, the loaders yield its features (`data/features.py`) and the step calls the model
without its stem; the loop, the step and the evaluation need not know. A model takes part if it has `stem_module` and
`behind_stem` (see `models/__init__.py`).
"""

import copy
import logging
from collections.abc import Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from deepexp.data.features import FeatureLoader, Function
from deepexp.data.memory import available_bytes
from deepexp.optim.freeze import FreezePlan
from deepexp.runtime import available_cores
from deepexp.step import Precision, Step
from deepexp.text.units import amount, counted

log = logging.getLogger(__name__)

_FEWEST_EPOCHS = 2  # the first one computes the features


class Stemmed(Protocol):
    """A model that can be called without its stem."""

    stem_module: str

    def behind_stem(self, features: Tensor) -> Tensor:
        """The logits from the stem's output."""
        ...


class FrozenFeatures:
    """Switches the step and the loaders of a run between pictures and features.

    `epochs`: for how many epochs, from the first, features are kept; 0 is never. `choice`: whether and why, in words.
    """

    def __init__(self, step: Step, loaders: Sequence[FeatureLoader], epochs: int, choice: str) -> None:
        self.choice = choice
        self._step = step
        self.epochs = epochs
        self._loaders = loaders
        self._whole = step.model
        self._is_on = False

    def begin_epoch(self, epoch: int) -> None:
        """Call it with each epoch, counted from 0, once its layers are frozen and in their modes."""
        wanted = epoch < self.epochs
        if wanted == self._is_on:
            return
        self._is_on = wanted
        self._step.model = _Behind(self._whole) if wanted else self._whole
        first = stem(self._whole)
        function = _function(first, self._step.precision) if wanted and first is not None else None
        for loader in self._loaders:
            loader.switch(function)


def arrange(
    step: Step, loaders: Sequence[FeatureLoader], freeze: FreezePlan, epochs: int, refused: str | None
) -> FrozenFeatures:
    """Keep features where that is exact, pays, and takes at most half of the memory that there is for this run.

    On a CPU that is the available memory · threads / cores, as runs on the other cores may need the rest; all of them
    may look at the same moment. `epochs`: of the whole run; `refused`: what in the config forbids it.
    """
    first = stem(step.model)
    if first is None:
        return FrozenFeatures(step, loaders, 0, f"no, {type(step.model).__name__} names no first layers")
    name = cast(Stemmed, step.model).stem_module
    frozen = min(epochs, freeze.frozen_epochs(first.parameters()))
    if frozen == 0:
        return FrozenFeatures(step, loaders, 0, f"no, {name} is not frozen as a whole")
    reason = refused or _reason_against(first, frozen)
    needed = _needed_bytes(first, step.precision, loaders)
    share = _share_of_memory(step.precision.device)
    if reason is None and share is not None and needed > share / 2:
        reason = f"{amount(needed, 'B')} are more than half of the memory for this run, {amount(share, 'B')}"
    choice = f"yes, {amount(needed, 'B')} for {counted(frozen, 'epoch')}" if reason is None else f"no, {reason}"
    log.info("keep the output of the frozen layers (%s) instead of computing it in each epoch: %s", name, choice)
    return FrozenFeatures(step, loaders, frozen if reason is None else 0, choice)


def stem(model: nn.Module) -> nn.Module | None:
    """The first layers that a model names."""
    name = getattr(model, "stem_module", None)
    return None if name is None else model.get_submodule(name)


def _reason_against(first: nn.Module, frozen_epochs: int) -> str | None:
    """Why keeping would not pay, or would not be exact although the parameters are frozen."""
    if frozen_epochs < _FEWEST_EPOCHS:
        return "they are frozen for one epoch only, which has to compute it"
    for module in first.modules():
        kind = type(module).__name__
        if isinstance(module, nn.RReLU) or (isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0):
            return f"{kind} is random"
        # Running statistics of a module with parameters are frozen with them (`FreezePlan.eval_frozen`).
        if getattr(module, "running_mean", None) is not None and not list(module.parameters(recurse=False)):
            return f"the running statistics of {kind} change"
    return None


def _function(first: nn.Module, precision: Precision) -> Function:
    """The first layers in the run's arithmetic, and without gradients, which they do not need."""

    @torch.no_grad()
    def features(images: Tensor) -> Tensor:
        with precision.arithmetic():
            return cast(Tensor, first(images))

    return features


def _share_of_memory(device: torch.device) -> int | None:
    available = available_bytes(device)
    if available is None or device.type != "cpu":
        return available
    return available * min(torch.get_num_threads(), available_cores()) // available_cores()


def _needed_bytes(first: nn.Module, precision: Precision, loaders: Sequence[FeatureLoader]) -> int:
    """The memory of all samples' features, measured with a copy of the layers, as their statistics may change."""
    channels, height, width = loaders[0].shape
    pictures = torch.zeros(2, height, width, channels, device=precision.device).permute(0, 3, 1, 2)
    features = _function(copy.deepcopy(first), precision)(pictures)
    return features.nbytes // 2 * sum(loader.samples for loader in loaders)


class _Behind(nn.Module):
    """A model without the computation of its stem; parameters and modes are those of the whole model."""

    def __init__(self, whole: nn.Module) -> None:
        super().__init__()
        self.whole = whole

    def forward(self, features: Tensor) -> Tensor:
        return cast(Stemmed, self.whole).behind_stem(features)
