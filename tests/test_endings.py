"""How runs end: by signals at various points, by limits, or diverged; and what is kept when they are extended."""

import errno
import functools
import json
import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import deepexp
from deepexp import build, checkpoint, cli, trainer
from deepexp.errors import InputError, Interrupted, RunFailed
from deepexp.models.mnist_net import MnistNet
from deepexp.runlog import RunLog
from deepexp.trainer import Trainer
from deepexp.training import evaluation

from .resumed import resume
from .same_run import assert_equal, assert_same_run, state
from .test_exact_resume import stop_after

SMALL = ["epochs=3", "data.subset=60", "data.resize=22", "batch_size=20", "log_every=2"]  # three updates an epoch


def status(directory):
    return json.loads((directory / "status.json").read_text())


def stopped_in(folder, tmp_path):
    (path,) = (tmp_path / folder).glob("*/*")
    return path


@pytest.mark.parametrize("batch", [1, 9])  # the scored batch with the signal, counted over all evaluations
@pytest.mark.parametrize(
    "words",
    [
        ["dropout=0.3", "batch_norm=true"],
        ["data.mode=streamed", "data.workers=0", "dropout=0.3"],
        ["ema=0.9", "val_fraction=0.2"],
        ["optim=momentum", "max_steps=5"],  # the ninth batch is in the last evaluation, within an epoch
    ],
    ids=" ".join,
)
def test_a_signal_during_an_evaluation_stops_after_the_batch_and_resumes_exactly(
    run, monkeypatch, tmp_path, words, batch
):
    words = [*SMALL, *words]
    monkeypatch.setattr(trainer, "evaluate", functools.partial(evaluation.evaluate, batch_size=60))  # of 359: six
    whole = run(words, folder="whole")
    score, scored = evaluation.scores_of, []

    def with_signal(*arguments):
        scored.append(arguments)
        if len(scored) == batch:
            os.kill(os.getpid(), signal.SIGTERM)
        return score(*arguments)

    monkeypatch.setattr(evaluation, "scores_of", with_signal)
    with pytest.raises(Interrupted, match="the run was saved"):
        run(words, folder="stopped")
    assert len(scored) == batch
    path = stopped_in("stopped", tmp_path)
    resume(path)
    assert_same_run(path, whole.directory)


def test_a_signal_during_the_last_evaluation_keeps_the_checkpoints(run, monkeypatch, tmp_path):
    """The weights are saved already; saving them again would replace `previous.pt`, which has the epoch before."""
    evaluate, looks, kept = trainer.evaluate, [], {}

    def with_signal(*arguments, **options):
        looks.append(arguments)
        if len(looks) == 2:  # the first is at the end of the first epoch
            kept.update((path, path.read_bytes()) for path in tmp_path.glob("**/*.pt"))
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(*arguments, **options)

    monkeypatch.setattr(trainer, "evaluate", with_signal)
    with pytest.raises(Interrupted, match="after step 5; the run was saved"):
        run([*SMALL, "max_steps=5"])
    assert sorted(path.name for path in kept) == ["last.pt", "previous.pt"]
    assert all(path.read_bytes() == content for path, content in kept.items())


def test_saves_within_an_epoch_are_every_minutes_apart(run, monkeypatch):
    """On a clock where an update takes a minute; the minutes count from the last save, also one at an epoch's end."""
    clock = SimpleNamespace(minutes=0)
    one_update, save, saved = Trainer._one_update, checkpoint.save, []

    def in_a_minute(*arguments):
        clock.minutes += 1
        return one_update(*arguments)

    def noted(path, content, **options):
        saved.append(content["progress"]["step"])
        save(path, content, **options)

    monkeypatch.setattr(trainer, "time", SimpleNamespace(perf_counter=lambda: 60.0 * clock.minutes))
    monkeypatch.setattr(Trainer, "_one_update", in_a_minute)
    monkeypatch.setattr(checkpoint, "save", noted)
    run([*SMALL, "data.subset=100", "epochs=2", "checkpoint.every_minutes=3.5"])
    assert saved == [4, 5, 9, 10]


def test_a_run_cut_off_between_its_two_checkpoints_keeps_its_best(run, monkeypatch, tmp_path):
    words = [*SMALL, "val_fraction=0.2", "optim.lr=0"]  # all epochs are equal, so that the first is the best
    whole = run(words, folder="whole")
    save, saved = checkpoint.save, []

    def once(path, content, **options):
        if saved:
            raise RunFailed("cut off")
        saved.append(path)
        save(path, content, **options)

    with monkeypatch.context() as patched, pytest.raises(RunFailed, match="cut off"):
        patched.setattr(checkpoint, "save", once)
        run(words, folder="stopped")
    path = stopped_in("stopped", tmp_path)
    resume(path)
    assert_same_run(path, whole.directory)


@pytest.mark.parametrize("words", [["max_steps=6"], ["max_steps=6", "val_fraction=0.2"]])
def test_a_run_stopped_after_its_last_update_ends_its_epoch_on_resuming(run, monkeypatch, tmp_path, words):
    whole = run([*SMALL, *words], folder="whole")
    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        patched.setattr(Trainer, "_save_is_due", stop_after(5))
        run([*SMALL, *words, "checkpoint.every_minutes=10"], folder="stopped")
    path = stopped_in("stopped", tmp_path)
    result = resume(path)
    assert result.epochs == whole.epochs == 2
    assert_same_run(path, whole.directory)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_before_the_first_update_saves_a_checkpoint(tmp_path, monkeypatch, capsys, name):
    model = build.model

    def with_signal(config, shape, classes, device, **options):
        if device != "meta":
            os.kill(os.getpid(), getattr(signal, name))
        return model(config, shape, classes, device, **options)

    monkeypatch.setattr(build, "model", with_signal)
    assert cli.main(["train", *SMALL, "device=cpu", f"output_dir={tmp_path}"]) == 128 + getattr(signal, name)
    monkeypatch.undo()
    path = stopped_in(".", tmp_path)
    assert status(path)["reason"] == "stopped by a signal after step 1; the run was saved"
    assert "go on with: deepexp train" in capsys.readouterr().out
    assert cli.main(["train", f"resume={path}"]) == 0


def test_a_signal_after_training_leaves_the_run_done(run, monkeypatch):
    fit = Trainer.fit

    def with_signal(self):
        outcome = fit(self)
        os.kill(os.getpid(), signal.SIGTERM)
        return outcome

    monkeypatch.setattr(Trainer, "fit", with_signal)
    assert status(run(SMALL).directory)["status"] == "done"


def test_a_test_loss_that_is_not_finite_fails_the_run(run, tmp_path):
    with pytest.raises(RunFailed, match=r"the test loss is nan after step 2 \(epoch 2\); .* Try a lower optim\.lr"):
        run(["data=synthetic", "data.subset=100", "epochs=2", "optim.lr=1e9"])
    path = stopped_in("outputs", tmp_path)
    assert status(path)["status"] == "failed"
    assert not (path / "summary.json").exists()


@pytest.mark.parametrize(
    ("words", "early", "shown"),
    [
        (["max_steps=5"], "max_steps=5", "after 1 of 3 epochs (max_steps=5), "),
        (["max_steps=1"], "max_steps=1", "after 1 update (max_steps=1), "),
        (["max_steps=9"], None, "after 3 epochs, "),
        (
            ["epochs=50", "val_fraction=0.2", "early_stop=1", "optim.lr=1e-9"],
            "early_stop=1",
            "after 2 of 50 epochs (early_stop=1), ",
        ),
    ],
)
def test_the_limit_that_ended_a_run_is_reported(tmp_path, capsys, words, early, shown):
    assert cli.main(["train", *SMALL, *words, "device=cpu", f"output_dir={tmp_path}"]) == 0
    path = stopped_in(".", tmp_path)
    assert shown in capsys.readouterr().out
    assert status(path)["reason"] == early
    assert (path / "run.log").read_text().strip().endswith(f"ended by {early}" if early else "samples wrong")


def test_a_run_ended_within_an_epoch_cannot_be_shortened(run):
    result = run([*SMALL, "max_steps=5"])
    with pytest.raises(InputError, match="epochs: 1 is too few, since epoch 2 has begun; at least 2"):
        resume(result, "epochs=1", "max_steps=null")
    with pytest.raises(InputError, match="max_steps: 4 is less than the 5 that are trained already"):
        resume(result, "max_steps=4")


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ([], "epochs=N"),
        (["max_steps=5"], "a larger max_steps or max_steps=null (max_steps=5 ended it)"),
        (
            ["val_fraction=0.2", "early_stop=1", "optim.lr=1e-9"],
            "a larger early_stop or early_stop=null (early_stop=1 ended it)",
        ),
    ],
    ids=str,
)
def test_resuming_a_finished_run_advises_to_raise_the_limit_that_ended_it(run, capsys, words, advice):
    """More epochs would add no update to a run that another limit has ended."""
    directory = run([*SMALL, *words]).directory
    assert cli.main(["train", f"resume={directory}"]) == 0
    assert capsys.readouterr().out == f"{directory} has finished; train it further with {advice}\n"
    more = int(deepexp.load_run(directory).epochs) + 7
    assert cli.main(["train", f"resume={directory}", f"epochs={more}"]) == 0
    trained_further = advice == "epochs=N"
    assert (f"nothing was trained; train it further with {advice}\n" in capsys.readouterr().out) != trained_further


def test_summary_and_predictions_are_kept_each_time_a_run_is_extended(run):
    result = run([*SMALL, "max_steps=4"])
    came_to = []
    for steps in (5, 6, 7):
        came_to.append((json.loads((result.directory / "summary.json").read_text()), predictions(result.directory)))
        result = resume(result, f"max_steps={steps}")
    for (summary, predicted), name in zip(came_to, ["epoch1", "epoch1.step5", "epoch2"], strict=True):
        assert json.loads((result.directory / f"summary.{name}.json").read_text()) == summary
        assert np.array_equal(predictions(result.directory, name), predicted)
    assert result.steps == 7


def predictions(directory, name=None):
    return np.load(directory / (f"predictions.{name}.npz" if name else "predictions.npz"))["predicted"]


def test_an_extended_run_forgets_the_evaluation_within_an_epoch(run):
    """`best.pt` too is that of an uninterrupted run, and the forgotten best is kept under another name."""
    words = [*SMALL, "val_fraction=0.2", "data.subset=300", "optim=adam"]  # fifteen updates an epoch
    whole = run(words, folder="whole")
    cut = run([*words, "max_steps=40"], folder="cut")
    folder = cut.directory / "checkpoints"
    assert cut.best_epoch == 3, "the look within the third epoch is to be the best"
    seen = state(folder / "best.pt")
    resume(cut, "max_minutes=90")  # evaluates the same step again
    assert checkpoint.load(folder / "best_earlier.pt")["progress"]["step"] == 30
    resume(cut, "max_steps=null")
    assert_same_run(cut.directory, whole.directory)
    assert_equal(state(folder / "best.step40.pt"), seen)
    assert not (folder / "best_earlier.pt").exists()


def test_an_extended_run_forgets_an_evaluation_within_the_first_epoch(run):
    words = [*SMALL, "val_fraction=0.2", "data.subset=300"]
    cut = run([*words, "max_steps=5"], folder="cut")
    resume(cut, "max_steps=null")
    assert_same_run(cut.directory, run(words, folder="whole").directory)


SELDOM = [*SMALL, "val_fraction=0.2", "data.subset=100", "evaluate_every=2"]  # five updates an epoch


def test_an_extended_run_forgets_a_last_evaluation_between_two_regular_ones(run):
    """Its figures, its `best.pt` and its effect on early_stop: the longer run has no evaluation there."""
    words = [*SELDOM, "optim=adam", "early_stop=9"]
    whole = run([*words, "epochs=5"], folder="whole")
    cut = run([*words, "epochs=3"], folder="cut")
    folder = cut.directory / "checkpoints"
    assert cut.best_epoch == 3, "the look at the end is to be the best"
    assert [row["epoch"] for row in cut.metrics] == [2, 3]
    seen = (folder / "best.pt").read_bytes()
    assert checkpoint.load(folder / "last.pt")["progress"]["val_epoch"] == 2
    resume(cut, "epochs=5")
    assert_same_run(cut.directory, whole.directory)
    assert (folder / "best.step15.pt").read_bytes() == seen


def test_a_run_killed_after_its_last_evaluation_makes_it_again(run, monkeypatch, tmp_path):
    whole = run([*SELDOM, "optim=adam"], folder="whole")

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(RunLog, "finish", killed)
        run([*SELDOM, "optim=adam"], folder="cut")
    path = stopped_in("cut", tmp_path)
    resume(path)
    assert_same_run(path, whole.directory)
    earlier = [folder / "checkpoints" / "best_earlier.pt" for folder in (path, whole.directory)]
    assert_equal(*map(state, earlier))


def test_the_last_epoch_has_one_line_on_the_console(tmp_path, capsys):
    assert cli.main(["train", *SELDOM, "device=cpu", f"output_dir={tmp_path}"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()[1:3] == "/3"]
    assert [(line[0], "-" in line) for line in lines] == [("1/3", True), ("2/3", False), ("3/3", False)]


def test_extra_state_of_a_module_is_saved_and_loaded(run, monkeypatch):
    monkeypatch.setattr(MnistNet, "get_extra_state", lambda self: {"seen": 7}, raising=False)
    monkeypatch.setattr(MnistNet, "set_extra_state", lambda self, state: setattr(self, "seen", state), raising=False)
    result = run(SMALL)
    assert result.model.seen == {"seen": 7}


class Tied(MnistNet):
    """A model with a weight under two names, and a buffer that is in no state dict."""

    def __init__(self, **options):
        super().__init__(**options)
        self.fc2_again = self.fc2
        self.register_buffer("scale", torch.ones(()), persistent=False)


def test_averages_of_tied_weights_and_unsaved_buffers_are_loaded(run, monkeypatch):
    monkeypatch.setattr("deepexp.models.mnist_net.MnistNet", Tied)
    result = run([*SMALL, "ema=0.5"])
    saved = checkpoint.load(result.directory / "checkpoints" / "last.pt")
    averages = saved["ema"]["averages"]
    assert "scale" in averages and not torch.equal(averages["fc2.weight"], saved["model"]["fc2.weight"])
    model = result.model
    assert torch.equal(model.fc2.weight, averages["fc2.weight"]) and model.fc2_again is model.fc2


def test_a_resumed_run_stays_in_its_directory(run, tmp_path, monkeypatch, capsys):
    """Another output_dir is refused, and not advised when the disk is full."""
    result = run(SMALL)
    words = ["train", f"resume={result.directory}", "epochs=4"]
    assert cli.main([*words, f"output_dir={tmp_path / 'elsewhere'}"]) == 2
    assert f"output_dir: {tmp_path / 'elsewhere'} is not where {result.directory} is" in capsys.readouterr().err

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert cli.main(words) == 1
    said = capsys.readouterr().err
    assert "make room there" in said and "output_dir" not in said
    assert cli.main([*words, f"output_dir={tmp_path / 'outputs'}"]) == 0


def test_none_is_ended_early_where_it_has_gone_on(run):
    stale = [*SMALL, "epochs=4", "val_fraction=0.2", "optim.lr=1e-9"]  # no epoch is better than the first
    begun = run(stale)
    resume = [f"resume={begun.directory}", "epochs=6"]
    with pytest.raises(InputError, match=r"early_stop: 2 .* after 2 epochs without a better .*; at least 3, or null"):
        deepexp.train([*resume, "early_stop=2"], quiet=True)
    ended = deepexp.train([*resume, "early_stop=3"], quiet=True)
    whole = run([*stale, "epochs=6", "early_stop=3"], folder="whole")
    assert_same_run(ended.directory, whole.directory)
