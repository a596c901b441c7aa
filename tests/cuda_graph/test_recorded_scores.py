"""Recorded evaluations alone; `test_cuda_graph.py` has whole runs."""

import pytest
import torch
from torch import nn

from deepexp.cuda_graph.evaluation import RecordedScores
from deepexp.training.evaluation import Scores, score
from deepexp.training.losses import USUAL

from ..tape import Tape

SAMPLES, CLASSES = 40, 3
ORDER = torch.arange(SAMPLES)
ODD_FIRST = [(0, 4), (4, 16), (16, 28), (28, 40)]


class Memory:
    """A loader of pictures that lie in memory, or of none."""

    def __init__(self, *, is_resident: bool = True) -> None:
        self.pixels, self.labels = torch.randn(SAMPLES, 5), torch.randint(CLASSES, (SAMPLES,))
        self.gather = self.take if is_resident else None

    def take(self, samples):
        return self.pixels[samples], self.labels[samples]

    def batches(self, order, bounds):
        for start, stop in bounds:
            yield self.take(order[start:stop])

    def gatherer(self, order, bounds):
        return self.gather

    def close(self): ...


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, CLASSES))


@pytest.fixture
def tape():
    return Tape()


@pytest.fixture
def scores(tape):
    return RecordedScores(tape, torch.device("cpu"), USUAL)


def assert_as_usual(scores, model, loader, precision=torch.float32, bounds=ODD_FIRST):
    found = []
    for scorer in (scores, score):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            found.append(list(scorer(model, loader, ORDER, bounds)))
    for ours, usual in zip(*found, strict=True):
        assert torch.equal(ours.loss, usual.loss) and torch.equal(ours.errors, usual.errors)
        assert torch.equal(ours.predicted, usual.predicted)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_each_replay_uses_the_present_weights(scores, tape, model, precision):
    """In bfloat16 too, although autocast caches copies of the weights."""
    loader = Memory()
    for passes in range(4):
        assert_as_usual(scores, model, loader, precision)
        assert tape.replayed[Scores] == 3 * passes
        with torch.no_grad():
            model[0].weight += torch.randn_like(model[0].weight)
    assert tape.recorded[Scores] == 1


def test_each_split_has_its_own_recording(scores, tape, model):
    loaders = [Memory(), Memory()]
    for loader in loaders * 3:
        assert_as_usual(scores, model, loader)
    assert (tape.recorded[Scores], tape.replayed[Scores]) == (2, 2 * 2 * 3)


def test_other_memory_models_or_batch_sizes_are_recorded_again(scores, tape, model):
    loader, moved, other = Memory(), Memory(), nn.Sequential(nn.Linear(5, CLASSES))
    for _ in range(2):
        assert_as_usual(scores, model, loader)
    loader.gather, loader.batches = moved.take, moved.batches
    for _ in range(2):
        assert_as_usual(scores, model, loader)
    for _ in range(2):
        assert_as_usual(scores, other, loader)
    for _ in range(2):
        assert_as_usual(scores, other, loader, bounds=[(0, 20), (20, 40)])
    assert (tape.recorded[Scores], tape.replayed[Scores]) == (4, 3 * 3 + 2)


def test_data_that_are_not_in_memory_are_not_recorded(scores, tape, model):
    loader = Memory(is_resident=False)
    for _ in range(3):
        assert_as_usual(scores, model, loader)
    assert not tape.recorded


def test_a_model_that_cannot_be_recorded_is_logged_once(scores, tape, caplog):
    class Looks(nn.Module):
        def forward(self, x):
            return x[:, :CLASSES] * x.sum().item()

    model, loaders = Looks(), [Memory(), Memory()]
    for loader in loaders * 3:
        assert_as_usual(scores, model, loader)
    assert not tape.recorded and caplog.text.count("evaluation cannot be recorded as a CUDA graph") == 1
