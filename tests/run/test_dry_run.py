"""What a dry run says of memory; one whose update fails gives the same message as a run."""

import pytest
import torch

import deepexp
from deepexp.errors import RunFailed
from deepexp.models import onednn
from deepexp.models.mnist_net import MnistNet
from deepexp.run import dry_run

from ..files import write

MODEL = """
from torch import nn

class Net(nn.Module):
    def __init__(self, *, shape, classes):
        super().__init__()
        self.fc = nn.Linear(shape[0] * shape[1] * shape[2], classes)

    def forward(self, x):
        if len(x) > 2:
            raise ValueError("too many")
        return self.fc(x.flatten(1))
"""
SMALL = ["data.subset=60", "batch_size=20", "threads=1", "device=cpu", "dry_run=true"]


def test_a_users_model_that_fails_is_named_with_its_line(tmp_path, monkeypatch):
    write(tmp_path / "picky_model.py", MODEL)
    write(tmp_path / "conf" / "model" / "picky.yaml", "# Takes two pictures\n_target_: picky_model.Net\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunFailed, match=r"^picky_model\.py:11: ValueError: too many$"):
        deepexp.train(["model=picky", *SMALL], quiet=True)


def test_too_little_memory_is_reported_with_advice(monkeypatch):
    def refuse(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(torch.nn.functional, "conv2d", refuse)
    with pytest.raises(RunFailed, match=r"^out of memory: lower batch_size"):
        deepexp.train(["model=resnet", "model.depth=8", *SMALL], quiet=True)


@pytest.mark.parametrize("blocked", [False, True], ids=["torch's order", "oneDNN's order"])
def test_maps_kept_for_the_backward_pass_are_counted(monkeypatch, blocked):
    monkeypatch.setattr(onednn, "pays", lambda x, weight: blocked and torch.backends.mkldnn.is_available())
    pictures = torch.rand(70, 1, 28, 28)
    kept = dry_run._bytes_kept_for_backward(MnistNet(shape=(1, 28, 28), classes=10), pictures)
    first, second, places = 32 * 24 * 24 + 32 * 8 * 8, 64 * 4 * 4 + 64 * 2 * 2, 32 * 8 * 8 + 64 * 2 * 2
    maps = 4 * 70 * (28 * 28 + first + second)
    assert maps < kept < maps + 8 * 70 * places + 4 * 70 * 3000  # with the places of maxima, and behind the maps
