"""A recording keeps its working memory; where that does not fit, the run goes on without it."""

import contextlib
from types import SimpleNamespace

import pytest
import torch

from deepexp.cuda_graph.recorder import CudaRecorder, NoRoom
from deepexp.cuda_graph.updates import RecordedUpdates
from deepexp.step import Update
from deepexp.training.evaluation import Scores

from ..same_run import assert_same_run
from ..tape import Refusing, Short, Tape
from .test_cuda_graph import SMALL, UPDATES, WARM_UP


@pytest.mark.parametrize(
    "needed, left, fits", [(30, 91, True), (30, 89, False), (0, 0, True)], ids=["enough", "too little", "nothing"]
)
def test_a_recording_needs_three_times_the_memory_of_the_last_pass(monkeypatch, needed, left, fits):
    """Beyond what stays allocated, such as pictures and cached features: here 40 GB."""
    memory = {"allocated": 40e9, "peak": 0.0}
    for name, stand_in in {
        "Stream": lambda device: None,
        "current_stream": lambda device: SimpleNamespace(wait_stream=lambda stream: None),
        "stream": lambda stream: contextlib.nullcontext(),
        "reset_peak_memory_stats": lambda device: memory.update(peak=memory["allocated"]),
        "max_memory_allocated": lambda device: memory["peak"],
        "memory_allocated": lambda device: memory["allocated"],
        "memory_reserved": lambda device: memory["allocated"] + 2e9,
        "mem_get_info": lambda device: (left * 1e9 - 2e9, 200e9),  # other processes have some
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    cuda = CudaRecorder(torch.device("cuda"))
    monkeypatch.setattr(cuda, "_stream", SimpleNamespace(wait_stream=lambda stream: None))
    for gigabytes in (95, needed):  # in the first pass libraries try out algorithms
        cuda.warm_up(lambda gigabytes=gigabytes: memory.update(peak=40e9 + gigabytes * 1e9), size=(50,))
    cuda.warm_up(lambda: memory.update(peak=41e9), size=(30,))
    with contextlib.nullcontext() if fits else pytest.raises(NoRoom, match=rf"{needed}\.0 GB are .* {left}\.0 GB left"):
        cuda._check_room(cuda._needed[50,])


@pytest.mark.parametrize("short, kept", [((50,), Scores), (359, Update)], ids=["updates", "evaluation"])
def test_the_rest_is_recorded_where_one_part_lacks_memory(run, graph, short, kept):
    """The digits' test set of 359 is one batch."""
    tape = graph(Short(short))
    result = run(SMALL, folder="short")
    assert set(tape.replayed) == {kept}
    assert (result.directory / "run.log").read_text().count("is made as usual: 32 GB are too much") == 1
    graph(Refusing())
    assert_same_run(result.directory, run(SMALL, folder="usual").directory)


def test_recording_is_tried_again_after_a_thaw(run, graph, monkeypatch):
    tape = graph(Short((50,)))
    thaw = RecordedUpdates._begin_phase

    def begin(self, gather):
        thaw(self, gather)
        tape.sizes = tape.sizes if self._step.model.conv1.weight.requires_grad is False else ()

    monkeypatch.setattr(RecordedUpdates, "_begin_phase", begin)
    result = run([*SMALL, "freeze=[{pattern: 'conv1.*', epochs: 2}]", "epochs=4", "cache_frozen=false"])
    assert (result.directory / "run.log").read_text().count("32 GB are too much") == 1
    assert tape.recorded[Update] == 1 and tape.replayed[Update] == 2 * UPDATES - WARM_UP


def test_a_failed_recording_frees_the_earlier_one(run, graph, monkeypatch):
    """Other work may need its memory."""
    held = []
    of_epoch = RecordedUpdates.of_epoch

    def watched(self, *args):
        yield from of_epoch(self, *args)
        held.append(self._recording is not None)

    monkeypatch.setattr(RecordedUpdates, "of_epoch", watched)
    tape = graph(Tape())
    record = tape.record
    monkeypatch.setattr(tape, "record", lambda work, size: record(work if size == (50,) else fail, size))
    run([*SMALL, "epochs=4"])
    assert held == [True, True, False, False], "the second evaluation is to be recorded"


def fail() -> None:
    raise RuntimeError("no")
