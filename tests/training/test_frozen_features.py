"""Caching the outputs of frozen first layers gives the same run as computing them each time, bit for bit."""

import json
import logging
from collections.abc import Iterator

import pytest
import torch
import torchvision
from torch import Tensor, nn

from deepexp.data.features import FeatureLoader
from deepexp.data.resident import ResidentLoader
from deepexp.data.source import Split
from deepexp.models.monster import Monster
from deepexp.optim.ema import Ema
from deepexp.optim.freeze import FreezePlan
from deepexp.step import Objective, Precision, Step
from deepexp.training import frozen_features
from deepexp.training.frozen_features import FrozenFeatures, arrange

from ..resumed import resume
from ..same_run import assert_same_run

CPU = torch.device("cpu")
SMALL = ["model=monster", "model.pretrained=false", "model.nb_residual_blocks=1", "model.nb_channels=8",
         "data.subset=230", "data.resize=22", "batch_size=50", "epochs=5",
         "freeze=[{pattern: features.*, epochs: 3}]"]  # fmt: skip
BATCHES = 5  # in an epoch, the last of 30 samples
UPDATES = {50: 4, 30: 1}


def choice(result) -> str:
    return json.loads((result.directory / "provenance.json").read_text())["choices"]["cache_frozen"]


CASES = {
    "plain": [],
    "bf16": ["precision=bf16"],
    "validated, averaged": ["val_fraction=0.2", "ema=0.9"],
    "accumulated": ["accumulate=2", "clip_grad_norm=0.5"],
    "last batch dropped": ["drop_last=true"],
    "replicated, momentum, weight decay": [
        *("data.subset=70", "data.replicate=3", "optim=momentum", "optim.lr=0.02", "optim.weight_decay=0.01")
    ],
    "adamw, cosine": ["optim=adamw", "optim.lr=0.002", "schedule=cosine"],
    "with replacement": ["order=with_replacement"],
    "sequential, dropout": ["order=sequential", "dropout=0.3"],
    "full": ["batch_size=full", "batch_norm=false"],
    "lbfgs": ["optim=lbfgs", "optim.max_iter=2"],
    "streamed": ["data.mode=streamed", "data.workers=1"],
    "evaluated seldom, bf16, averaged": ["evaluate_every=2", "precision=bf16", "ema=0.99", "val_fraction=0.1"],
}


@pytest.mark.parametrize("words", CASES.values(), ids=CASES.keys())
def test_a_run_with_cached_features_equals_one_without_bit_for_bit(run, words):
    """Over the frozen epochs and beyond: losses, errors, weights, optimizer, predictions."""
    kept = run([*SMALL, *words], folder="kept")
    computed = run([*SMALL, *words, "cache_frozen=false"], folder="computed")
    assert choice(kept).startswith("yes") and choice(computed) == "no, cache_frozen=false"
    assert_same_run(kept.directory, computed.directory)


@pytest.fixture
def alexnet(tmp_path) -> str:
    """A file with a state dict of torchvision's AlexNet, but for its two large layers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        weights = torchvision.models.alexnet().state_dict()
    torch.save({name: value for name, value in weights.items() if value.numel() < 1e6}, tmp_path / "alexnet.pt")
    return str(tmp_path / "alexnet.pt")


def test_features_of_a_pretrained_layer_are_cached_by_default(run, alexnet):
    words = [*SMALL, f"model.pretrained={alexnet}", "freeze=null", "epochs=4"]
    kept = run(words, folder="kept")
    assert choice(kept) == "yes, 2.4 MB for 2 epochs"  # 590 samples of 64 maps of 4×4
    assert "(features) instead of computing it in each epoch: yes" in (kept.directory / "run.log").read_text()
    assert_same_run(kept.directory, run([*words, "cache_frozen=false"], folder="computed").directory)


@pytest.fixture
def stem_calls(monkeypatch) -> Iterator[list[list[tuple[int, bool]]]]:
    """(samples, whether in training) of each call of a Monster's first layer, one list for each epoch.

    The first list has the calls before the first epoch.
    """
    epochs: list[list[tuple[int, bool]]] = [[]]
    init, begin = Monster.__init__, FrozenFeatures.begin_epoch

    def watched_init(self, **arguments):
        init(self, **arguments)
        self.features.register_forward_hook(
            lambda layer, inputs, _: epochs[-1].append((len(inputs[0]), layer.training))
        )

    def watched_begin(self, epoch):
        begin(self, epoch)
        epochs.append([])

    monkeypatch.setattr(Monster, "__init__", watched_init)
    monkeypatch.setattr(FrozenFeatures, "begin_epoch", watched_begin)
    yield epochs


def counts(calls: list[tuple[int, bool]]) -> tuple[dict[int, int], int]:
    """(calls in training by their size, calls in evaluation)"""
    training = [size for size, is_training in calls if is_training]
    return {size: training.count(size) for size in training}, len(calls) - len(training)


def test_the_first_layer_is_not_called_again_until_it_thaws(run, stem_calls):
    run(SMALL)
    _, filling, comparing, keeping, *thawed = map(counts, stem_calls)
    assert filling == (UPDATES, 1)
    assert comparing == ({50: 2, 30: 1}, 1)
    assert keeping == ({}, 0)
    assert thawed == [(UPDATES, 1)] * 2


def test_without_the_cache_the_layer_is_called_for_every_batch(run, stem_calls):
    run([*SMALL, "cache_frozen=false"])
    assert [counts(calls) for calls in stem_calls[1:]] == [(UPDATES, 1)] * 5


@pytest.mark.parametrize("after", [3, 7, 12], ids="in the {}th update".format)
def test_a_run_with_cached_features_resumes_exactly_within_an_epoch(run, after):
    whole = run([*SMALL, "ema=0.9"], folder="whole")
    cut = run([*SMALL, "ema=0.9", f"max_steps={after}"], folder="cut")
    assert cut.steps == after
    resume(cut, "max_steps=null")
    assert_same_run(cut.directory, whole.directory)


def test_cached_features_are_freed_at_the_thaw(run, monkeypatch):
    held: list[tuple[int, list[bool]]] = []
    begin = FrozenFeatures.begin_epoch

    def watched(self, epoch):
        begin(self, epoch)
        held.append((epoch, [loader._kept is not None for loader in self._loaders]))

    monkeypatch.setattr(FrozenFeatures, "begin_epoch", watched)
    run([*SMALL, "val_fraction=0.2"])
    nothing, all_of_them = [False] * 3, [True] * 3
    assert held == [(0, nothing), (1, all_of_them), (2, all_of_them), (3, nothing), (4, nothing)]


REFUSED = {
    "augment=crop_flip": "augment",
    "on_oom=halve": "on_oom=halve",
    "cache_frozen=false": "cache_frozen=false",
    "freeze=[{pattern: features.0.weight, share: 1.0}]": "features is not frozen as a whole",
    "freeze=[]": "features is not frozen as a whole",
    "freeze=[{pattern: features.*, epochs: 1}]": "one epoch only",
}


@pytest.mark.parametrize("words", REFUSED)
def test_features_are_not_cached_where_that_is_not_exact_or_useful(run, stem_calls, words):
    result = run([*SMALL, "batch_norm=false", "epochs=3", words])
    assert choice(result).startswith("no, ") and REFUSED[words] in choice(result)
    assert [sum(counts(calls)[0].values()) for calls in stem_calls[1:]] == [BATCHES] * 3


def test_models_that_name_no_first_layers_cache_nothing(run):
    result = run(["epochs=2", "data.subset=100", "freeze=[{pattern: conv1.*, share: 1.0}]"])
    assert choice(result) == "no, MnistNet names no first layers"


class Small(nn.Module):
    """A model around a first layer that may be cached or not."""

    stem_module = "first"

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3), *layers)
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.behind_stem(self.first(x))

    def behind_stem(self, features: Tensor) -> Tensor:
        return self.last(features.mean((2, 3)))


def arranged(model: nn.Module, precision: str = "fp32") -> FrozenFeatures:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (10, 3, 8, 8), generator=generator, dtype=torch.uint8)
    pictures = ResidentLoader(Split.of(images, torch.zeros(10, dtype=torch.int64)), torch.zeros(3), torch.ones(3), CPU)
    loaders = [FeatureLoader(pictures, 10, (3, 8, 8), CPU, name) for name in ("training", "test")]
    freeze = FreezePlan(model, [{"pattern": "first.*", "share": 0.5}], 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step = Step(model, optimizer, objective=Objective(), precision=Precision(CPU, precision))
    freeze.apply(0)
    return arrange(step, loaders, freeze, 8, None)


@pytest.mark.parametrize(
    ("layers", "refused"),
    [
        ([nn.Dropout2d(0.2)], "Dropout2d is random"),
        ([nn.RReLU()], "RReLU is random"),
        ([nn.BatchNorm2d(4, affine=False)], "the running statistics of BatchNorm2d change"),
        ([nn.Dropout(0.0), nn.ReLU()], None),
        ([nn.BatchNorm2d(4)], None),  # its statistics are frozen with its parameters
        ([nn.GroupNorm(2, 4)], None),
    ],
    ids=str,
)
def test_features_of_random_or_changing_layers_are_not_cached(layers, refused):
    arrangement = arranged(Small(*layers))
    assert arrangement.choice == ("yes, 11.5 kB for 4 epochs" if refused is None else f"no, {refused}")


def test_examining_a_model_does_not_change_it():
    model = Small(nn.BatchNorm2d(4))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    arranged(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_features_of_frozen_batch_normalisation_are_cached_exactly(run, monkeypatch):
    """A frozen first layer with running statistics, in a whole run."""

    def init(self, **arguments):
        original(self, **arguments)
        self.features.append(nn.BatchNorm2d(64))

    original = Monster.__init__
    monkeypatch.setattr(Monster, "__init__", init)
    kept = run([*SMALL, "ema=0.9"], folder="kept")
    assert choice(kept).startswith("yes")
    assert_same_run(kept.directory, run([*SMALL, "ema=0.9", "cache_frozen=false"], folder="computed").directory)


def test_cached_features_must_fit_into_half_of_the_memory_for_this_run(monkeypatch):
    """A run on one of four cores may use a quarter of the free memory: three others may start at the same time."""
    cores = 4 * torch.get_num_threads()
    monkeypatch.setattr(frozen_features, "available_cores", lambda: cores)
    needed = 20 * 8 * 6 * 6 * 4  # bytes: samples, maps, pixels
    for free, starts in ((8 * needed, "yes"), (8 * needed - 4, "no, 23.0 kB are more than half"), (None, "yes")):
        monkeypatch.setattr(frozen_features, "available_bytes", lambda device, free=free: free)
        assert arranged(Bigger()).choice.startswith(starts)


class Bigger(Small):
    """Twice as many maps."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(4, 8, 1))


def test_cached_features_in_bf16_take_half_the_memory():
    assert arranged(Small(), "bf16").choice == "yes, 5.8 kB for 4 epochs"


def test_a_run_without_memory_for_the_cache_gives_the_same(run, monkeypatch):
    kept = run(SMALL, folder="kept")
    monkeypatch.setattr(frozen_features, "available_bytes", lambda device: 1000)
    monkeypatch.setattr(frozen_features, "available_cores", torch.get_num_threads)
    computed = run(SMALL, folder="computed")
    assert choice(computed) == "no, 2.4 MB are more than half of the memory for this run, 1.0 kB"
    assert_same_run(kept.directory, computed.directory)


def test_kernels_that_depend_on_the_batch_size_are_detected(run, monkeypatch, caplog):
    """The run then computes each batch, with a warning."""

    def inexact(layer, inputs, output):
        return output * (1 + 2**-20) if len(inputs[0]) == 30 else output

    def init(self, **arguments):
        original(self, **arguments)
        self.features.register_forward_hook(inexact)

    original = Monster.__init__
    monkeypatch.setattr(Monster, "__init__", init)
    computed = run([*SMALL, "cache_frozen=false"], folder="computed")
    with caplog.at_level(logging.WARNING):
        kept = run(SMALL, folder="kept")
    assert [record.levelname for record in caplog.records if "training samples" in record.message] == ["WARNING"]
    assert "would not be the same bit for bit" in (kept.directory / "run.log").read_text()
    assert_same_run(kept.directory, computed.directory)


def test_the_average_of_constant_weights_equals_them_bit_for_bit():
    model = nn.Linear(100, 100)
    before = model.weight.detach().clone()
    for decay in (0.1, 0.5, 0.9, 0.999, 0.99999):
        ema = Ema(model, decay)
        for _ in range(200):
            ema.update()
        with ema.averaged():
            assert torch.equal(model.weight, before)


def test_stem_and_behind_stem_together_equal_the_model():
    torch.manual_seed(0)
    model = Monster(shape=(3, 32, 32), classes=10, nb_residual_blocks=1).eval()
    x = torch.randn(3, 3, 32, 32)
    assert torch.equal(model(x), model.behind_stem(model.get_submodule(model.stem_module)(x)))
