"""The update of a dry run is the first one of the run; if it fails, it gives the same message."""

import pytest
import torch

import deepexp
from deepexp.errors import RunFailed

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


def test_the_batch_is_the_first_of_the_run_with_its_loss(monkeypatch, tmp_path, capsys):
    """In the order of a folder of pictures, a batch would be of one class."""
    monkeypatch.chdir(tmp_path)
    words = [word for word in SMALL if word != "dry_run=true"] + ["epochs=1", "max_steps=1"]
    loss = deepexp.train(words, quiet=True).metrics[0]["train_loss"]
    assert deepexp.train([*words, "dry_run=true"]) is None
    assert f"one batch of 20: loss {loss:.4f}, " in capsys.readouterr().out


def test_too_little_memory_is_reported_with_advice(monkeypatch):
    def refuse(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(torch.nn.functional, "conv2d", refuse)
    with pytest.raises(RunFailed, match=r"^out of memory: lower batch_size"):
        deepexp.train(["model=resnet", "model.depth=8", *SMALL], quiet=True)
