"""Which validation figure says that weights are the best so far: `monitor`."""

import dataclasses
import json

import pytest

import deepexp
from deepexp import cli
from deepexp.commands.train import train
from deepexp.errors import InputError, Paused
from deepexp.text.console import Console
from deepexp.trainer import Trainer

from ..resumed import SMALL, resume

LOSSES = [3.0, 2.0, 2.5, 2.6, 1.0]
ERRORS = [5, 6, 5, 4, 7]
WORDS = [*SMALL, "val_fraction=0.05", "epochs=5", "threads=1", "device=cpu"]


@pytest.fixture
def scripted(monkeypatch):
    """Have the validations of epochs 1 to 5 give `LOSSES` and `ERRORS`."""
    real = Trainer._evaluate

    def evaluate(self):
        test, val = real(self)
        place = self.progress.present_epoch - 1
        return test, dataclasses.replace(val, loss=LOSSES[place], errors=ERRORS[place])

    monkeypatch.setattr(Trainer, "_evaluate", evaluate)


@pytest.mark.parametrize(
    ("words", "epochs", "best"),
    [
        ([], 5, 4),
        (["monitor=loss"], 5, 5),
        (["monitor=loss", "early_stop=2"], 4, 2),
        (["early_stop=2"], 3, 1),
        (["monitor=loss", "early_stop=3"], 5, 5),
    ],
)
def test_the_best_epoch_and_the_end_follow_the_figure_that_is_monitored(run, scripted, words, epochs, best):
    result = run([*WORDS, *words])
    assert (result.epochs, result.summary["best_epoch"]) == (epochs, best)
    content = json.loads((result.directory / "summary.json").read_text())
    assert content["best_epoch"] == best


def test_the_best_weights_are_those_of_the_best_epoch(run, scripted):
    short = run([*WORDS, "epochs=2"], folder="short")
    best = run([*WORDS, "monitor=loss", "early_stop=2"]).best_model.state_dict()
    assert all(tensor.equal(best[name]) for name, tensor in short.model.state_dict().items())


def test_a_resumed_run_knows_the_best_loss_so_far(tmp_path, monkeypatch, scripted):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Paused):
        train([*WORDS, "monitor=loss", "early_stop=2"], Console("quiet"), until=3)
    (directory,) = tmp_path.glob("outputs/*/*")
    assert resume(directory).epochs == 4


def test_without_validation_data_there_is_nothing_to_monitor(capsys):
    assert cli.main(["train", "monitor=loss"]) == 2
    assert "monitor: needs validation data; set val_fraction" in capsys.readouterr().err
    with pytest.raises(InputError, match="monitor: 'accuracy' is not allowed"):
        deepexp.train(["monitor=accuracy", "val_fraction=0.1"], quiet=True)
