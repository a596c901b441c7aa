"""A model of the user's own that is none, or gives no logits, is refused before anything is written."""

import pytest

from deepexp import cli

MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, *, shape, classes):
        super().__init__()
        self.fc = nn.Linear(shape[0] * shape[1] * shape[2], classes)

    def forward(self, x):
        return self.fc(x.flatten(1))

class Looks(Net):
    def forward(self, x):
        assert x.sum().item() == x.sum().item()  # no numbers to look at on the meta device
        return super().forward(x)

class Pair(Net):
    def forward(self, x):
        return super().forward(x), x

class Nothing(Net):
    def forward(self, x):
        super().forward(x)

class Predicts(Net):
    def forward(self, x):
        return super().forward(x).argmax(1)

class Wide(Net):
    def __init__(self, *, shape, classes):
        super().__init__(shape=shape, classes=classes + 3)

class Bare(nn.Module):
    def __init__(self, *, shape, classes):
        super().__init__()

class NoModule:
    def __init__(self, *, shape, classes):
        pass
"""
SMALL = ["data.subset=100", "epochs=1", "threads=1", "device=cpu"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "their_model.py").write_text(MODULE)
    for name in ("Net", "Looks", "Pair", "Nothing", "Predicts", "Wide", "Bare", "NoModule"):
        yaml = f"_target_: their_model.{name}\ninput: {{channels: 1, height: 28, width: 28}}\n"
        (tmp_path / "conf" / "model" / f"{name}.yaml").write_text(yaml)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["Net", "Looks"])
def test_one_that_gives_logits_is_trained(here, name):
    assert cli.main(["train", f"model={name}", *SMALL]) == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Pair", "model: their_model.Pair gives a tuple for two pictures; a float tensor of shape (2, 10) is needed"),
        ("Nothing", "gives None for two pictures"),
        ("Predicts", "gives torch.int64 of shape (2,) for two pictures"),
        ("Wide", "gives torch.float32 of shape (2, 13) for two pictures; a float tensor of shape (2, 10)"),
        ("Bare", "model._target_: their_model.Bare has no parameters, so there is nothing to train"),
        ("NoModule", "model._target_: their_model.NoModule gives a NoModule, and a torch.nn.Module is needed"),
    ],
)
def test_what_is_none_is_refused_in_one_line(here, capsys, name, expected):
    assert cli.main(["train", f"model={name}", *SMALL]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line and not (here / "outputs").exists()
