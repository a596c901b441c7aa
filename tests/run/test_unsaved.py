"""State of the user's code that no checkpoint holds is reported, since resuming would not be exact without it."""

import pytest

from deepexp import cli

MODULE = """
import random
import numpy
import torch
from torch import nn
from torch.nn.utils import prune

class Net(nn.Module):
    def __init__(self, *, shape, classes):
        super().__init__()
        self.fc = nn.Linear(shape[0] * shape[1] * shape[2], classes)
        self.set_up()

    def set_up(self):
        pass

    def forward(self, x):
        self.change()
        return self.fc(x.flatten(1))

    def change(self):
        pass

class Usual(Net):
    def set_up(self):
        self.calls = 0
        self.register_buffer("seen", torch.zeros(()))
        self.table = None
        self.shapes = []

    def change(self):
        self.seen += 1
        self.table = self.table if self.table is not None else torch.ones(3)  # made when it is needed
        self.shapes.append(3)

class Counts(Net):
    def set_up(self):
        self.calls = 0

    def change(self):
        self.calls += 1

class Own(nn.Linear):
    pass

class Made(Net):
    def set_up(self):
        self.fc = Own(self.fc.in_features, self.fc.out_features)
        prune.l1_unstructured(self.fc, "weight", 0.5)
        self.norm = nn.BatchNorm2d(1)
        self.views, self.odd = [self.fc.bias.data, self.norm.running_mean], torch.nested.nested_tensor([torch.ones(2)])

    def forward(self, x):
        return super().forward(self.norm(x))

class Saves(Counts):
    def get_extra_state(self):
        return {"calls": self.calls}

    def set_extra_state(self, state):
        self.calls = state["calls"]

class Hidden(Net):
    def set_up(self):
        self.register_buffer("mean", torch.zeros(2), persistent=False)

    def change(self):
        self.mean += 1

class Draws(Net):
    def set_up(self):
        self.first, self.held = torch.Generator(), [numpy.random.default_rng(0)]
        self.second, self.old = random.Random(0), numpy.random.RandomState(0)

    def change(self):
        torch.rand(1, generator=self.first), self.held[0].random(), self.second.random(), self.old.rand()

class Noise:
    def __init__(self):
        self.calls = 0

    def draw(self, samples, shape, generator):
        return {}

    def apply(self, images, draws):
        self.calls += 1
        return images, None

class Warm(torch.optim.SGD):
    def __init__(self, params, lr):
        super().__init__(params, lr)
        self.updates = 0

    def step(self, closure=None):
        self.updates += 1
        super().step()

class WarmAndSaved(Warm):
    def state_dict(self):
        return super().state_dict() | {"updates": self.updates}

    def load_state_dict(self, state):
        self.updates = state["updates"]
        super().load_state_dict(state)

class Curriculum:
    def __init__(self):
        self.hardness = 0.0

    def __call__(self, logits, labels):
        self.hardness += 0.1
        return torch.nn.functional.cross_entropy(logits, labels, reduction="none") * self.hardness

class Inner(torch.optim.SGD):
    def __init__(self, params, lr):
        super().__init__(params, lr)
        groups = [{"params": group["params"]} for group in self.param_groups]
        self.inner = torch.optim.SGD(groups, lr, momentum=0.9)

    def step(self, closure=None):
        self.inner.step()
"""
_INPUT = "input: {channels: 1, height: 28, width: 28}\n"
SMALL = ["data.subset=100", "epochs=1", "threads=1", "device=cpu"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "unsaved_parts.py").write_text(MODULE)
    for group, names, more in (
        ("model", ["Usual", "Counts", "Saves", "Hidden", "Draws", "Made"], _INPUT),
        ("augment", ["Noise"], ""),
        ("loss", ["Curriculum"], ""),
        ("optim", ["Warm", "WarmAndSaved", "Inner"], "_partial_: true\nlr: 0.1\n"),
    ):
        (tmp_path / "conf" / group).mkdir(parents=True)
        for name in names:
            (tmp_path / "conf" / group / f"{name}.yaml").write_text(f"_target_: unsaved_parts.{name}\n{more}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "part", "names"),
    [
        (["model=Counts"], "model", "calls"),
        (["model=Hidden"], "model", "mean"),
        (["model=Draws"], "model", "first, held[0], second and 1 more"),
        (["augment=Noise"], "augment", "calls"),
        (["loss=Curriculum"], "loss", "hardness"),
        (["optim=Warm"], "optim", "updates"),
        (["optim=Inner"], "optim", "inner"),
    ],
)
def test_state_that_changes_and_is_not_saved_is_reported_and_logged(here, capsys, words, part, names):
    assert cli.main(["train", *words, *SMALL]) == 0
    verbs = ("change", "are") if "," in names else ("changes", "is")
    told = f"{part}: {names} {verbs[0]} in training and {verbs[1]} not saved: if results depend on it, a resumed run"
    (log,) = here.glob("outputs/*/*/run.log")
    for text in ("".join(capsys.readouterr()), log.read_text()):
        assert " ".join(text.split()).count(told) == 1


@pytest.mark.parametrize(
    "words", [["model=Usual"], ["model=Made"], ["model=Saves"], ["optim=WarmAndSaved"], ["optim=adam"], []]
)
def test_saved_and_recomputed_state_is_not_reported(here, words):
    assert cli.main(["train", *words, *SMALL]) == 0
    (log,) = here.glob("outputs/*/*/run.log")
    assert "not saved" not in log.read_text()
