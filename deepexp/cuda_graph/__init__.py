"""Work recorded once as a CUDA graph, and from then on replayed with a few calls of the CPU.

A graph does what the device did while it was recorded, on the same memory (https://docs.nvidia.com/cuda/
cuda-c-programming-guide/#cuda-graphs). So what differs between replays is written to tensors that the graph reads.
What is recorded is in `updates.py` and `evaluation.py`, and how in `recorder.py`.
"""

import logging
from collections.abc import Sequence
from functools import partial

from deepexp.cuda_graph.evaluation import RecordedScores
from deepexp.cuda_graph.recorder import can_record, make_recorder
from deepexp.cuda_graph.updates import RecordedUpdates
from deepexp.data.order import Bounds
from deepexp.training.evaluation import Scorer, score
from deepexp.training.updates import EagerUpdates, UpdateMaker

__all__ = ["arrange", "can_record"]

log = logging.getLogger(__name__)


def arrange(
    eager: EagerUpdates, updates: Sequence[Sequence[Bounds]], *, refused: str | None, asked: bool | str
) -> tuple[UpdateMaker, Scorer]:
    """Choose recorded updates and evaluations, or the usual ones if there is a reason against it (`refused`).

    `updates`: those of a whole epoch; `asked`: the config's `cuda_graph`.
    """
    loss = eager.step.objective.loss
    if refused is None:
        recorder = make_recorder(eager.device)
        return RecordedUpdates(eager, recorder, updates), RecordedScores(recorder, eager.device, loss)
    if asked is True or (asked == "auto" and can_record(eager.device)):
        level = logging.WARNING if asked is True else logging.INFO
        log.log(level, "cuda_graph: updates are not recorded: %s", refused)
    eager.choice = f"no, {refused}"
    return eager, partial(score, loss=loss)
