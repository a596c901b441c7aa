"""Work recorded once as a CUDA graph, and from then on replayed with a few calls of the CPU.

A graph does what the device did while it was recorded, on the same memory (https://docs.nvidia.com/cuda/
cuda-c-programming-guide/#cuda-graphs). What differs from one time to the next lies in tensors that stay where they are.
What is recorded is in `updates.py` and `evaluation.py`, and by what in `recorder.py`.
"""

import logging
from collections.abc import Sequence

from deepexp.cuda_graph.evaluation import RecordedScores
from deepexp.cuda_graph.recorder import can_record, make_recorder
from deepexp.cuda_graph.updates import RecordedUpdates
from deepexp.training.evaluation import Scorer, score
from deepexp.training.updates import Bounds, EagerUpdates, UpdateMaker

__all__ = ["arrange", "can_record"]

log = logging.getLogger(__name__)


def arrange(
    eager: EagerUpdates, updates: Sequence[Sequence[Bounds]], *, refused: str | None, asked: bool | str
) -> tuple[UpdateMaker, Scorer]:
    """Have updates and evaluations recorded, unless there is a reason against it, which is told.

    `updates`: of a whole epoch; `asked`: the config's `cuda_graph`.
    """
    if refused is None:
        recorder = make_recorder(eager.device)
        return RecordedUpdates(eager, recorder, updates), RecordedScores(recorder, eager.device)
    if asked is True or (asked == "auto" and can_record(eager.device)):
        level = logging.WARNING if asked is True else logging.INFO
        log.log(level, "cuda_graph: updates are made one call after the other: %s", refused)
    eager.choice = f"no, {refused}"
    return eager, score
