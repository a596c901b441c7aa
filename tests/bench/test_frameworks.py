"""Contenders that need a package which deepexp does not need; skipped where it is not installed."""

import json

import pytest
import torch

from deepexp.bench import contest
from deepexp.bench.contender import Unsuited
from deepexp.cli import main
from deepexp.errors import InputError
from deepexp.models.mnist_net import MnistNet

from .setting import planned

QUICK = ["rounds=1", "warm_up=false", "data.subset=60", "batch_size=20", "threads=1", "device=cpu"]


def test_bench_epoch_measures_every_installed_contender(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "epoch", "json=true", *QUICK]) == 0
    out, _ = capfd.readouterr()
    report = json.loads(out)
    rivals, missing = contest.rivals("all")
    assert set(report["seconds"]["epoch"]) == {"deepexp", *rivals}
    assert report["notes"] == missing
    assert report["limit"]["epoch_seconds"] > 0
    assert all(0 <= report["test_error_rate"][name] <= 1 for name in ("deepexp", *rivals))
    assert not list(tmp_path.iterdir())


def test_a_contender_that_is_named_must_be_installed(monkeypatch):
    monkeypatch.setattr(contest, "_is_installed", lambda package: package == "keras")
    assert contest.rivals("all") == (["plain", "bare", "keras"], ["lightning is left out: it is not installed"])
    assert contest.rivals("keras,plain,keras") == (["keras", "plain"], [])
    with pytest.raises(InputError, match="lightning is not installed; pip install lightning"):
        contest.rivals("plain,lightning")
    with pytest.raises(InputError, match=r"'kreas' is not allowed .*'keras'"):
        contest.rivals("kreas")


def test_keras_has_the_same_network(monkeypatch):
    pytest.importorskip("keras")
    from deepexp.bench import keras_loop

    config, plan = planned()
    net = MnistNet(shape=(1, 28, 28), classes=10)
    images = torch.randn(4, 1, 28, 28)
    with keras_loop.opened(config, plan):
        theirs = keras_loop.sequential(net, (1, 28, 28))(images.permute(0, 2, 3, 1).numpy())
    torch.testing.assert_close(torch.from_numpy(theirs.numpy()), net(images).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("word", ["model=resnet", "dropout=0.5", "optim=muon", "optim.weight_decay=0.1"])
def test_options_that_keras_lacks_are_named(word):
    pytest.importorskip("keras")
    from deepexp.bench import keras_loop

    config, plan = planned(word)
    with pytest.raises(Unsuited, match="only"), keras_loop.opened(config, plan):
        pass


def test_lightning_counts_its_test_errors():
    pytest.importorskip("lightning")
    from deepexp.bench import lightning_loop

    config, plan = planned("optim.lr=0.1")
    with lightning_loop.opened(config, plan) as loop:
        assert loop.steps(3) > 0
        assert loop.epoch().test_error_rate > loop.epoch().test_error_rate > 0


def test_keras_measures_again_where_a_longer_call_took_no_longer():
    from deepexp.bench.keras_loop import Keras

    taken = iter([3.0, 2.5, 1.0, 5.0])
    loop = Keras.__new__(Keras)
    loop._fit_seconds = lambda steps: next(taken)
    assert loop.steps(4) == 1.0
