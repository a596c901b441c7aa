"""A user's model that is no module, or gives no logits, is refused before anything is written."""

import importlib
import random
import sys

import pytest
import torch

from deepexp import build, cli
from deepexp.errors import InputError
from deepexp.sweep import points as points_of_a_sweep

MODULE = """
import random
import numpy
import torch
from torch import nn
MEAN = torch.tensor([0.5])
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

class Detached(Net):
    def forward(self, x):
        return super().forward(x).detach()

class Wide(Net):
    def __init__(self, *, shape, classes):
        super().__init__(shape=shape, classes=classes + 3)

class Narrow(Net):
    def __init__(self, *, shape, classes):
        super().__init__(shape=(1, 1, 1), classes=classes)

class TwoInputs(Net):
    def forward(self, x, y):
        return super().forward(x)

class NoShape(Net):
    def __init__(self, *, classes):
        super().__init__(shape=(1, 28, 28), classes=classes)

class Auxiliary(Net):
    def forward(self, x):
        return (super().forward(x), x) if self.training else super().forward(x)

class Counts(Net):
    def __init__(self, *, shape, classes):
        super().__init__(shape=shape, classes=classes)
        self.rates = [rate.item() for rate in torch.linspace(0, 0.1, 3)]

class GivenWeights(Net):
    def __init__(self, *, shape, classes):
        super().__init__(shape=shape, classes=classes)
        self.fc.weight.data = torch.from_numpy(numpy.zeros((classes, 784), numpy.float32))

class Groups(Net):
    def forward(self, x):
        if self.training and len(x) % 4:
            raise ValueError("in groups of four")
        return super().forward(x)

class Conv(Net):
    def __init__(self, *, shape, classes):
        super().__init__(shape=(4, 26, 26), classes=classes)
        self.conv = nn.Conv2d(shape[0], 4, 3)

    def forward(self, x):
        return super().forward(self.conv(x))

class View(Conv):
    def forward(self, x):
        return self.fc(self.conv(x).view(len(x), -1))

class Double(Net):
    def __init__(self, *, shape, classes):
        super().__init__(shape=shape, classes=classes)
        self.double()

class Half(Net):
    def __init__(self, *, shape, classes):
        super().__init__(shape=shape, classes=classes)
        self.half()

class Lazy(nn.Module):
    def __init__(self, *, shape, classes):
        super().__init__()
        self.fc = nn.LazyLinear(classes)

    def forward(self, x):
        return self.fc(x.flatten(1))

class LazyButCalled(Lazy):
    def __init__(self, *, shape, classes):
        super().__init__(shape=shape, classes=classes)
        self(torch.zeros(1, *shape))

class Fails(Net):
    def forward(self, x):
        if len(x) > 2:
            raise ValueError("too many")
        return super().forward(x)

class Constant(Net):
    def forward(self, x):
        return super().forward(x - MEAN)

class Exits(Net):
    def forward(self, x):
        raise SystemExit

class ExitsLater(Net):
    def forward(self, x):
        if len(x) > 2:
            raise SystemExit("enough")
        return super().forward(x)

class ExitsAtOnce(Net):
    def __init__(self, *, shape, classes):
        raise SystemExit

class Refuses(Net):
    def __init__(self, *, shape, classes):
        raise ValueError("odd sizes only")

class Loose(Net):
    def __init__(self, *, shape, classes):
        super().__init__(shape=shape, classes=classes)
        self.own = (self.fc, [self.fc])
        self.fc.hidden = {"more": nn.Linear(2, 2)}

class Loop(Net):
    def training_step(self, batch, index):
        raise NotImplementedError

    def configure_optimizers(self):
        raise NotImplementedError

class Bare(nn.Module):
    def __init__(self, *, shape, classes):
        super().__init__()

class NoModule:
    def __init__(self, *, shape, classes):
        pass

class Complex(Net):
    def __init__(self, *, shape, classes):
        super().__init__(shape=shape, classes=classes)
        self.factor = nn.Parameter(torch.ones(classes, dtype=torch.complex64))

    def forward(self, x):
        return (super().forward(x) * self.factor).abs()

class Grows(Net):
    def __init__(self, *, shape, classes):
        super().__init__(shape=shape, classes=classes)
        self.register_buffer("seen", torch.zeros(0))

    def forward(self, x):
        if self.training:
            self.seen = torch.cat([self.seen, x.mean().detach()[None]])
        return super().forward(x)

class GrowsLater(Grows):
    def forward(self, x):
        return super().forward(x) if len(x) > 2 else self.fc(x.flatten(1))

class GrowsAndLoads(Grows):
    def _load_from_state_dict(self, state, prefix, *rest):
        self.seen = state[prefix + "seen"].clone()
        return super()._load_from_state_dict(state, prefix, *rest)

class Sparse(Net):
    def __init__(self, *, shape, classes):
        super().__init__(shape=shape, classes=classes)
        self.register_buffer("links", torch.eye(classes).to_sparse())

    def forward(self, x):
        return torch.sparse.mm(self.links, super().forward(x).t()).t()

class LeavesOut(Net):
    def state_dict(self, *args, **kwargs):
        state = super().state_dict(*args, **kwargs)
        del state["fc.bias"]
        return state

class Remembers(Net):
    rate = 0.5

    def get_extra_state(self):
        return {"rate": self.rate, "size": torch.Size([1])}

    def set_extra_state(self, state):
        assert float(state["rate"]) == self.rate

class RemembersArray(Remembers):
    rate = numpy.float64(0.5)

class Wired(Net):
    def __init__(self, *, shape, classes):
        super().__init__(shape=shape, classes=classes)
        self.wires = nn.Linear(random.randrange(1, 1000), numpy.random.randint(1, 1000))
        self.register_buffer("chosen", torch.nonzero(torch.rand(1000) < 0.5))

class Volume(Net):
    def __init__(self, *, shape, classes):
        super().__init__(shape=(4, 26, 26), classes=classes)
        self.conv, self.norm = nn.Conv3d(1, 4, (1, 3, 3)), nn.BatchNorm3d(4)

    def forward(self, x):
        return super().forward(self.norm(self.conv(x.unsqueeze(1))).squeeze(2))

class LazyStatistics(Net):
    def __init__(self, *, shape, classes):
        super().__init__(shape=shape, classes=classes)
        self.norm = nn.LazyBatchNorm2d(affine=False)

    def forward(self, x):
        return super().forward(self.norm(x))

class Softmax(Net):
    def forward(self, x):
        return super().forward(x).softmax(1)
"""
NAMES = [line.split()[1].partition("(")[0].rstrip(":") for line in MODULE.splitlines() if line.startswith("class")]
SMALL = ["data.subset=100", "epochs=1", "threads=1", "device=cpu"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "their_model.py").write_text(MODULE)
    for name in NAMES:
        yaml = f"_target_: their_model.{name}\ninput: {{channels: 1, height: 28, width: 28}}\n"
        (tmp_path / "conf" / "model" / f"{name}.yaml").write_text(yaml)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [
        *("Net", "Looks", "Counts", "GivenWeights", "Groups", "Conv", "Volume", "LazyButCalled", "Constant", "Sparse"),
        *("GrowsAndLoads", "Remembers", "Wired"),  # Wired: its layers depend on the seed, which resuming sets again
    ],
)
def test_a_correct_model_is_trained(here, name):
    assert cli.main(["train", f"model={name}", *SMALL]) == 0


def test_complex_weights_are_trained_by_an_optimizer_that_deepexp_would_fuse(here):
    assert cli.main(["train", "model=Complex", "optim=adam", *SMALL]) == 0


def test_a_checkpoint_that_does_not_fit_the_model_is_refused(here, capsys):
    assert cli.main(["train", "model=GrowsLater", *SMALL]) == 0
    (run,) = (here / "outputs" / "GrowsLater").iterdir()
    for words in (["eval", f"run={run}"], ["train", f"resume={run}", "epochs=2"]):
        assert cli.main(words) == 2
        assert "size mismatch for seen" in " ".join("".join(capsys.readouterr()).split())


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Loose", "Loose keeps layers in a plain list or dict (fc.hidden), so they are neither trained nor saved"),
        ("Softmax", "their_model.Softmax gives probabilities, and the loss applies a softmax to them once more"),
        ("Loop", "no training_step or configure_optimizers of their_model.Loop is called: the loss is"),
    ],
)
def test_what_a_model_has_in_vain_is_reported_and_logged(here, capsys, name, told):
    assert cli.main(["train", f"model={name}", *SMALL]) == 0
    (run,) = (here / "outputs" / name).iterdir()
    for text in ("".join(capsys.readouterr()), (run / "run.log").read_text()):
        assert " ".join(text.split()).count(told) == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Pair", "model: their_model.Pair gives a tuple for two pictures; a float tensor of shape (2, 10) is needed"),
        ("Nothing", "gives None for two pictures"),
        ("Predicts", "gives torch.int64 of shape (2,) for two pictures"),
        ("Detached", "model: what their_model.Detached gives in training mode has no gradient, so it could not be"),
        ("Wide", "gives torch.float32 of shape (2, 13) for two pictures; a float tensor of shape (2, 10)"),
        ("Narrow", "their_model.Narrow fails for two pictures of 1×28×28: their_model.py:13: RuntimeError: "),
        ("View", "View fails for two pictures of 1×28×28: their_model.py:82: RuntimeError: view size is not"),
        ("Double", "mat1 and mat2 must have the same dtype"),
        ("Half", "mat1 and mat2 must have the same dtype"),
        ("TwoInputs", "fails for two pictures of 1×28×28: TypeError: TwoInputs.forward() missing 1 required"),
        ("Auxiliary", "gives a tuple for two pictures in training mode; a float tensor of shape (2, 10) is needed"),
        ("NoShape", "NoShape: got an unexpected keyword argument 'shape' (deepexp gives it shape and classes)"),
        ("Lazy", "model._target_: their_model.Lazy has a lazy layer (fc.weight), whose size is open; set its size, or"),
        ("LazyStatistics", "their_model.LazyStatistics has a lazy layer (norm.running_mean), whose size is open"),
        ("Exits", "their_model.Exits fails for two pictures of 1×28×28: their_model.py:119: SystemExit"),
        ("ExitsAtOnce", "model: their_model.ExitsAtOnce failed: their_model.py:129: SystemExit"),
        ("Refuses", "model: their_model.py:133: odd sizes only"),
        ("Bare", "model._target_: their_model.Bare has no parameters, so there is nothing to train"),
        (
            "Grows",
            "no run of their_model.Grows could be resumed, since load_state_dict fails for what state_dict gives",
        ),
        ("Grows", "size mismatch for seen: copying a param with shape torch.Size([1]) from checkpoint, the shape in"),
        ("LeavesOut", 'Missing key(s) in state_dict: "fc.bias"'),
        ("RemembersArray", "model: what their_model.RemembersArray saves: model._extra_state.rate is of type numpy."),
        ("NoModule", "model._target_: their_model.NoModule gives a NoModule, and a torch.nn.Module is needed"),
    ],
)
def test_a_wrong_model_is_refused_in_one_line(here, capsys, name, expected):
    assert cli.main(["train", f"model={name}", *SMALL]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line and not (here / "outputs").exists()


def test_the_model_is_tried_once_for_all_points_of_a_sweep(here, monkeypatch):
    made = []
    real = build._made_on_cpu
    monkeypatch.setattr(build, "_made_on_cpu", lambda *of: made.append(of) or real(*of))
    points = [["model=Net", f"optim.lr={lr}", *SMALL] for lr in (0.1, 0.2, 0.3)]
    generators = random.getstate(), torch.get_rng_state().tolist()
    points_of_a_sweep.check_points(points, {"model"}, needs_validation=False)
    assert len(made) == 1 and (random.getstate(), torch.get_rng_state().tolist()) == generators
    (here / "their_model.py").write_text(MODULE.replace("self.fc(x.flatten(1))", "x.no_such()"))
    importlib.reload(sys.modules["their_model"])
    with pytest.raises(InputError, match="no attribute 'no_such'"):
        points_of_a_sweep.check_points(points, {"model"}, needs_validation=False)


def test_runs_of_an_option_in_a_subfolder_are_named_without_it(here):
    (here / "conf" / "model" / "sub").mkdir()
    (here / "conf" / "model" / "Net.yaml").rename(here / "conf" / "model" / "sub" / "deep.yaml")
    assert cli.main(["train", "model=sub/deep", *SMALL]) == 0
    assert cli.main(["train", "-m", "model=sub/deep", "seed=1,2", "hydra.launcher.jobs=1", *SMALL]) == 0
    assert cli.main(["train", "-m", "model=sub/deep", "hydra.launcher.jobs=1", *SMALL]) == 0
    assert len(list((here / "outputs" / "deep").iterdir())) == 3


def test_a_model_is_not_tried_in_another_precision(here):
    """The trial is on the CPU in fp32, where a model may fail that works on its device or in its precision."""
    words = ["model=Narrow", *SMALL, "dry_run=true"]
    assert cli.main(["train", *words]) == 2
    assert cli.main(["train", *words, "precision=bf16"]) == 1


@pytest.mark.parametrize("name", ["Grows", "LeavesOut"])
def test_saving_and_loading_is_tried_in_another_precision_too(here, name):
    words = [f"model={name}", *SMALL, "precision=bf16", "dry_run=true"]
    assert cli.main(["train", *words]) == 2
    assert cli.main(["train", "model=GrowsAndLoads", *words[1:]]) == 0


def test_a_failure_in_a_model_names_its_line(here, capsys):
    assert cli.main(["train", "model=Fails", *SMALL]) == 1
    place = next(number for number, line in enumerate(MODULE.splitlines(), 1) if "too many" in line)
    assert f"their_model.py:{place}: ValueError: too many" in "".join(capsys.readouterr())


def test_a_model_that_raises_systemexit_fails_the_run(here, capsys):
    assert cli.main(["train", "model=ExitsLater", *SMALL]) == 1
    assert "SystemExit: enough" in "".join(capsys.readouterr())
    (run,) = (here / "outputs" / "ExitsLater").iterdir()
    assert '"failed"' in (run / "status.json").read_text()


def test_a_module_that_raises_systemexit_on_import_is_refused(here, capsys):
    (here / "their_model.py").write_text(MODULE + "raise SystemExit\n")
    assert cli.main(["train", "model=Net", *SMALL]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "SystemExit" in line and "if __name__ == '__main__'" in line


def test_arguments_that_deepexp_gives_are_refused_in_the_yaml(here, capsys):
    with (here / "conf" / "model" / "Net.yaml").open("a") as file:
        file.write("classes: 10\n")
    assert cli.main(["train", "model=Net", *SMALL]) == 2
    told = "Net.yaml:3: model.classes: is given to their_model.Net by deepexp; leave it out of its YAML\n"
    assert capsys.readouterr().err.endswith(told)
