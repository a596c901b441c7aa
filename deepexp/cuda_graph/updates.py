"""Whole updates: the CPU's part of a recorded one is a few calls.

In the graph are gathering, normalising and augmenting a batch, forward and backward passes, clipping, the optimizer's
step and the averages of the weights. What differs from one update to the next are the indices of the samples, what was
drawn for their augmentation, the learning rates, the averages' decay. Where an optimizer's own step needs the CPU, the
graph ends with the gradients.

Updates of the most common size are recorded, after a few that are made as usual; others are always made as usual. A
recording holds for what was frozen at the time, so it is made anew when that changes.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from deepexp.cuda_graph.recorder import NoRoom, Recorder, reason_of
from deepexp.data.augment import Draws
from deepexp.data.order import Bounds
from deepexp.data.resident import Gather
from deepexp.step import Batch, Gradients, Update
from deepexp.training.updates import EagerUpdates, augmented, samples_of

log = logging.getLogger(__name__)

_WARM_UP = 3
"""Updates before one is recorded: in them libraries choose their algorithms and optimizers make their state."""


@dataclass(frozen=True)
class _Input:
    """What a batch is made of, on the device: the indices of its samples, and what was drawn to augment them."""

    samples: Tensor  # (batch,) int64
    draws: dict[str, Tensor]  # a row for each of them

    def copy(self) -> "_Input":
        return _Input(self.samples.clone(), {name: rows.clone() for name, rows in self.draws.items()})

    def copy_from(self, other: "_Input") -> None:
        self.samples.copy_(other.samples)
        for name, rows in other.draws.items():
            self.draws[name].copy_(rows)


@dataclass(frozen=True)
class _Recording:
    """A recorded update: the tensors that its input is copied to, and where its results are afterwards."""

    inputs: list[_Input]
    replay: Callable[[], None]
    update: Update
    gradients: Gradients


class RecordedUpdates:
    """An `UpdateMaker` that replays a recording wherever it can, and else leaves the update to `eager`.

    `updates`: those of a whole epoch.
    """

    def __init__(self, eager: EagerUpdates, recorder: Recorder, updates: Sequence[Sequence[Bounds]]) -> None:
        self._eager = eager
        self._step = eager.step
        self._recorder = recorder
        sizes = Counter(_sizes(update) for update in updates)
        self._most_common = sizes.most_common(1)[0][0]
        self._phase: object = None
        self._made = 0  # updates of the most common size since the phase began
        self._has_room = True
        self._recording: _Recording | None = None
        self._is_latest = False  # the last update was a replay of the recording
        self._holds_all = self._step.is_recordable
        self.choice = "yes" if self._holds_all else "yes, but for the optimizer's step, which needs the CPU"

    def of_epoch(
        self, order: Tensor, draws: Draws, updates: Sequence[Sequence[Bounds]]
    ) -> Iterator[tuple[Callable[[], Update], int]]:
        """See `UpdateMaker`."""
        gather = self._eager.loader.gatherer(order, [bounds for update in updates for bounds in update])
        if gather is None or not self._recorder.works:
            self._is_latest, self._recording = False, None
            yield from self._eager.of_epoch(order, draws, updates)
            return
        self._begin_phase(gather)
        order = order.to(self._eager.device)
        draws = {name: rows.to(self._eager.device) for name, rows in draws.items()}
        for update in updates:
            inputs = [
                _Input(order[start:stop], {name: rows[start:stop] for name, rows in draws.items()})
                for start, stop in update
            ]
            samples = samples_of(update)
            yield partial(self._make, gather, inputs, samples), samples

    def _begin_phase(self, gather: Gather) -> None:
        """Drop the recording if the pictures' memory, the model, what is frozen, or a mode has changed since."""
        model = self._step.model
        phase = (
            gather,
            model,
            [parameter.requires_grad for parameter in model.parameters()],
            [module.training for module in model.modules()],
        )
        if phase != self._phase:
            self._phase, self._made, self._has_room, self._recording = phase, 0, True, None

    def _make(self, gather: Gather, inputs: list[_Input], samples: int) -> Update:
        if self._eager.ema is not None:
            self._eager.ema.count()
        is_common = _sizes_of(inputs) == self._most_common
        if not is_common or not self._has_room or not self._recorder.works:
            return self._make_eagerly(gather, inputs, samples)
        if self._recording is None and self._made < _WARM_UP:
            self._made += 1
            return self._make_eagerly(gather, inputs, samples)
        if self._recording is None:
            self._recording = self._record(gather, inputs, samples)
        if self._recording is None:
            return self._make_eagerly(gather, inputs, samples)
        return self._replay(self._recording, inputs)

    def _make_eagerly(self, gather: Gather, inputs: list[_Input], samples: int) -> Update:
        self._is_latest = False

        def work() -> Update:
            update = self._device_part(gather, inputs, samples)
            self._rest()
            return update

        return self._recorder.warm_up(work, _sizes_of(inputs))

    def _device_part(self, gather: Gather, inputs: list[_Input], samples: int) -> Update:
        """The part of an update that is recorded."""
        update = self._step.gradients(self._batches(gather, inputs), samples)
        if self._holds_all:
            self._move()
        return update

    def _rest(self) -> None:
        """The part of an update that is not recorded."""
        if not self._holds_all:
            self._move()

    def _move(self) -> None:
        self._step.apply()
        if self._eager.ema is not None:
            self._eager.ema.take_in()

    def _batches(self, gather: Gather, inputs: list[_Input]) -> Iterator[Batch]:
        for batch in inputs:
            images, labels = gather(batch.samples)
            yield augmented(self._eager.augment, images, labels, batch.draws)

    def _record(self, gather: Gather, inputs: list[_Input], samples: int) -> _Recording | None:
        """Record an update like this one, which is not made yet; None if that fails, with a warning the first time."""
        inputs = [batch.copy() for batch in inputs]
        self._step.optimizer.zero_grad(set_to_none=True)  # the recording has gradients of its own
        try:
            replay, update = self._recorder.record(
                lambda: self._device_part(gather, inputs, samples), _sizes_of(inputs)
            )
        except RuntimeError as error:
            log.warning("the update cannot be recorded as a CUDA graph, and is made as usual: %s", reason_of(error))
            self._has_room = False
            self._recorder.works = isinstance(error, NoRoom)
            return None
        return _Recording(inputs, replay, update, self._step.own_gradients())

    def _replay(self, recording: _Recording, inputs: list[_Input]) -> Update:
        for held, batch in zip(recording.inputs, inputs, strict=True):
            held.copy_from(batch)
        recording.replay()
        if not self._is_latest:
            self._step.adopt(recording.gradients)
            self._is_latest = True
        self._rest()
        return Update(recording.update.loss.clone(), recording.update.errors.clone())


def _sizes_of(inputs: Sequence[_Input]) -> tuple[int, ...]:
    return tuple(len(batch.samples) for batch in inputs)


def _sizes(update: Sequence[Bounds]) -> tuple[int, ...]:
    return tuple(stop - start for start, stop in update)
