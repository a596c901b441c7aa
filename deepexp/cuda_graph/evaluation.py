"""The batches of an evaluation: gathered, normalised, classified and compared with their labels in one replay each.

The first pass over a split is made as usual; in the second, its batches of full size are recorded. Weights stay at one
place in memory, averaged or not, so a recording is valid until the model is called from another layer on, or the
pictures are at another place.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from deepexp.cuda_graph.recorder import NoRoom, Recorder, reason_of
from deepexp.data.loader import Loader
from deepexp.data.order import Bounds
from deepexp.data.resident import Gather
from deepexp.training.evaluation import Scores, score, scores_of
from deepexp.training.losses import Loss

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Recording:
    """The recorded scoring of a batch: the tensor that samples are copied to, and where the scores are afterwards."""

    samples: Tensor  # (batch,) int64, on the device
    replay: Callable[[], None]
    scores: Scores


@dataclass
class _Phase:
    """How a split is scored: pictures, model, batch size; and the recording, valid as long as these are the same."""

    gather: Gather
    model: nn.Module
    size: int
    recording: _Recording | None = None
    has_room: bool = True

    def is_of(self, gather: Gather, model: nn.Module, size: int) -> bool:
        """Whether all three are still the same."""
        return (self.gather, self.model, self.size) == (gather, model, size)


class RecordedScores:
    """A `Scorer` that replays a recording wherever it can."""

    def __init__(self, recorder: Recorder, device: torch.device, loss: Loss) -> None:
        self._recorder = recorder
        self._device = device
        self._loss = loss
        self._phases: dict[Loader, _Phase] = {}

    def __call__(self, model: nn.Module, loader: Loader, order: Tensor, bounds: Sequence[Bounds]) -> Iterator[Scores]:
        """See `Scorer`."""
        gather = loader.gatherer(order, bounds)
        if not self._recorder.works:
            self._phases.clear()
        if gather is None or not self._recorder.works:
            yield from score(model, loader, order, bounds, loss=self._loss)
            return
        ((size, _),) = Counter(stop - start for start, stop in bounds).most_common(1)
        phase = self._phases.get(loader)
        is_first = phase is None or not phase.is_of(gather, model, size)
        if phase is None or is_first:
            phase = self._phases[loader] = _Phase(gather, model, size)
        samples = order.to(self._device)
        for start, stop in bounds:
            batch = samples[start:stop]
            if stop - start == size and not is_first and phase.recording is None:
                phase.recording = self._record(phase, batch)
            if stop - start == size and phase.recording is not None:
                yield _replay(phase.recording, batch)
            else:
                yield self._recorder.warm_up(partial(self._score, model, gather, batch), stop - start)

    def _record(self, phase: _Phase, samples: Tensor) -> _Recording | None:
        """Record batches like this one, which is not scored yet; None if that fails, with a warning the first time."""
        if not (phase.has_room and self._recorder.works):
            return None
        samples = samples.clone()
        torch.clear_autocast_cache()  # casts of weights belong into the recording: weights change
        try:
            replay, scores = self._recorder.record(partial(self._score, phase.model, phase.gather, samples), phase.size)
        except RuntimeError as error:
            log.warning("evaluation cannot be recorded as a CUDA graph, and is made as usual: %s", reason_of(error))
            phase.has_room = False
            self._recorder.works = isinstance(error, NoRoom)
            return None
        finally:
            torch.clear_autocast_cache()
        return _Recording(samples, replay, scores)

    def _score(self, model: nn.Module, gather: Gather, samples: Tensor) -> Scores:
        return scores_of(model, *gather(samples), self._loss)


def _replay(recording: _Recording, samples: Tensor) -> Scores:
    recording.samples.copy_(samples)
    recording.replay()
    return recording.scores.copy()
