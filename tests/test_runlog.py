import dataclasses
import errno
import json
import logging
import math
import os
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata as hparams_metadata
from torch import nn

from deepexp.disk import storage
from deepexp.errors import RunFailed
from deepexp.metrics import EpochMetrics, Summary
from deepexp.run.rundir import HydraFiles, RunDirectory
from deepexp.runlog import Description, RunLog
from deepexp.text.console import Console, Header, Horizon

METRIC_KEYS = """format epoch step train_loss train_error_rate test_loss test_errors test_error_rate
    val_loss val_error_rate lr grad_norm samples_per_second train_seconds test_seconds
    elapsed_seconds""".split()
SUMMARY_KEYS = """format status model data optim seed epochs steps test_errors test_samples
    test_error_rate test_loss val_error_rate best_epoch train_seconds total_seconds
    samples_per_second device precision pretrained parameters""".split()
TAGS = {
    *("train/loss", "train/epoch_loss", "train/error_rate", "train/lr", "train/grad_norm"),
    *("test/loss", "test/error_rate", "test/errors", "val/loss", "val/error_rate"),
    "speed/samples_per_second",
}
CLASSES = ["zero", "one", "two"]


def epoch_metrics(epoch, **changes):
    values = EpochMetrics(
        epoch=epoch,
        step=3 * epoch,
        train_loss=1 / epoch,
        train_error_rate=0.25,
        test_loss=2 / epoch,
        test_errors=9,
        test_error_rate=0.09,
        val_loss=0.5,
        val_error_rate=0.125,
        lr=0.1,
        grad_norm=1.5,
        samples_per_second=1000.0,
        train_seconds=1.0,
        test_seconds=0.5,
        elapsed_seconds=1.5 * epoch,
    )
    return dataclasses.replace(values, **changes)


SUMMARY = Summary(
    status="done",
    model="mnist_net",
    data="digits",
    optim="adam",
    seed=0,
    epochs=2,
    steps=6,
    test_errors=1,
    test_samples=4,
    test_error_rate=0.25,
    test_loss=0.5,
    val_error_rate=0.125,
    best_epoch=2,
    train_seconds=2.0,
    total_seconds=3.0,
    samples_per_second=1000.0,
    device="cpu",
    precision="fp32",
    pretrained=None,
    parameters=10,
)


@pytest.fixture
def run(tmp_path):
    made = RunDirectory.create(tmp_path, "net", HydraFiles("", "", ""))
    yield made
    made.unlock()


@pytest.fixture
def log(run):
    opened = RunLog(run, Console("quiet"))
    yield opened
    opened.close()


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 3))


def describe(log, net):
    images = torch.arange(6 * 64, dtype=torch.uint8).view(6, 1, 8, 8)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    example = torch.zeros(1, 1, 8, 8)
    hparams = {"model": "mnist_net", "optim.lr": 0.1}
    log.describe(Description("seed: 0", hparams, net, example, images, labels, CLASSES))


def train(log, epochs):
    """Log epochs as a trainer does, with figures that depend only on the step."""
    for epoch in epochs:
        first = 3 * epoch - 2
        losses = [1 / (first + i) for i in range(3)]
        for step in range(first, first + 3):
            log.tick(step, 10)
        log.steps(first, losses, lr=0.1, grad_norm=1.5, samples_per_second=1000.0)
        log.epoch(epoch_metrics(epoch))


def finish(log, net):
    predicted, target = torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 2, 1])
    log.finish(SUMMARY, early=None, model=net, predicted=predicted, target=target, classes=CLASSES)


def events_of(path):
    sizes = {"scalars": 0, "images": 0, "tensors": 0}
    return EventAccumulator(str(path), size_guidance=sizes).Reload()


def curves_of(path):
    events = events_of(path)
    return {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_a_run_leaves_all_its_files(run, log):
    net = model()
    log.start(
        Header("mnist_net", 10, "digits", "cpu", run.path),
        Horizon(epochs=2, steps_per_epoch=3, total_steps=6),
        has_validation=True,
    )
    describe(log, net)
    train(log, [1, 2])
    finish(log, net)

    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    assert [list(json.loads(line)) for line in lines] == [METRIC_KEYS] * 2
    assert json.loads(lines[1]) == {"format": 1, **dataclasses.asdict(epoch_metrics(2))}

    summary = json.loads((run.path / "summary.json").read_text())
    assert list(summary) == SUMMARY_KEYS
    assert summary == {"format": 1, **dataclasses.asdict(SUMMARY)}
    assert run.read_json("status.json")["status"] == "done"

    with np.load(run.path / "predictions.npz") as predictions:
        assert predictions["predicted"].tolist() == [0, 1, 2, 2]
        assert predictions["target"].tolist() == [0, 1, 2, 1]
        assert predictions["predicted"].dtype == predictions["target"].dtype == np.uint8
        assert predictions["format"] == 1

    events = events_of(run.path)
    assert set(events.Tags()["scalars"]) == TAGS
    visuals = {"train_samples", "first_layer", "test_confusion_matrix"}  # a section behind those of the curves
    assert set(events.Tags()["images"]) == {f"visuals/{name}" for name in visuals}
    assert events.Tags()["graph"]
    assert events.Tensors("config/text_summary")
    hparams = events.PluginTagToContent(hparams_metadata.PLUGIN_NAME)
    assert hparams_metadata.SESSION_START_INFO_TAG in hparams
    assert hparams_metadata.SESSION_END_INFO_TAG in hparams
    assert len(list(run.path.glob("events.out.tfevents.*"))) == 1
    assert len(list(run.path.rglob("events.out.tfevents.*"))) == 1, "an extra run in TensorBoard"


def test_curves_are_over_steps_or_epochs(run, log):
    train(log, [1, 2])
    curves = curves_of(run.path)
    losses = torch.tensor([1 / step for step in range(1, 7)]).tolist()
    assert curves["train/loss"] == list(zip(range(1, 7), losses, strict=True))
    assert curves["train/lr"] == [(3, pytest.approx(0.1)), (6, pytest.approx(0.1))]
    assert curves["train/epoch_loss"] == [(1, 1.0), (2, 0.5)]
    assert curves["test/errors"] == [(1, 9.0), (2, 9.0)]


def test_a_log_cut_back_and_continued_equals_an_uninterrupted_one(run, tmp_path):
    killed = RunLog(run, Console("quiet"))
    train(killed, [1])
    killed.flush(sync=True)
    offsets = killed.offsets()
    train(killed, [2])  # after the checkpoint
    killed.close()

    resumed = RunLog(run, Console("quiet"))
    resumed.cut_back(offsets)
    train(resumed, [2, 3])
    resumed.close()

    straight = RunDirectory.create(tmp_path, "straight", HydraFiles("", "", ""))
    uninterrupted = RunLog(straight, Console("quiet"))
    train(uninterrupted, [1, 2, 3])
    uninterrupted.close()
    straight.unlock()

    metrics = [(path / "metrics.jsonl").read_bytes() for path in (run.path, straight.path)]
    assert metrics[0] == metrics[1]
    assert curves_of(run.path) == curves_of(straight.path)
    assert len(list(run.path.glob("events.out.tfevents.*"))) == 1


def test_cutting_back_to_the_beginning(run, log):
    train(log, [1])
    log.cut_back({})
    assert log.offsets()["metrics.jsonl"] == 0
    train(log, [1])
    assert [step for step, _ in curves_of(run.path)["train/loss"]] == [1, 2, 3]


def test_the_log_keeps_what_came_after_a_checkpoint(run, log):
    offsets = log.offsets()
    logging.getLogger("deepexp.trainer").warning("the reason why it ended")
    log.cut_back(offsets)
    assert "the reason why it ended" in (run.path / "run.log").read_text()


def test_figures_that_are_not_finite_are_null(run, log):
    log.epoch(epoch_metrics(1, grad_norm=math.inf, test_loss=math.nan))
    line = (run.path / "metrics.jsonl").read_text()
    content = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert content["grad_norm"] is content["test_loss"] is None


def test_an_epoch_without_evaluation_has_a_curve_but_no_line(run, log):
    none = {"test_loss": None, "test_errors": None, "test_error_rate": None}
    log.epoch(epoch_metrics(1, **none, val_loss=None, val_error_rate=None))
    assert (run.path / "metrics.jsonl").read_bytes() == b""
    assert set(curves_of(run.path)) == {"train/epoch_loss", "train/error_rate"}


@pytest.mark.parametrize(("classes", "expected"), [(2, "u1"), (256, "u1"), (257, "u2")])
def test_predictions_take_the_smallest_integers(run, log, classes, expected):
    predicted = torch.tensor([classes - 1, 0])
    names = [str(index) for index in range(classes)]
    log.finish(SUMMARY, early=None, model=model(), predicted=predicted, target=predicted, classes=names)
    with np.load(run.path / "predictions.npz") as predictions:
        assert predictions["predicted"].dtype == np.dtype(expected)
        assert predictions["predicted"].tolist() == [classes - 1, 0]


def test_a_model_that_cannot_be_traced_does_not_end_the_run(run, log):
    class Stubborn(nn.Module):
        def forward(self, x):
            raise RuntimeError("not with me")

    describe(log, Stubborn())
    assert not events_of(run.path).Tags()["graph"]
    assert "no graph of the model in TensorBoard: not with me" in (run.path / "run.log").read_text()


def test_warnings_are_in_the_log(run, log):
    logging.getLogger("deepexp.data").warning("the last batch of one joins the one before")
    logging.getLogger("deepexp.data").info("decoded 100 pictures")
    logging.getLogger("deepexp.data").debug("a detail")
    warnings.warn("a warning of Python, ü", UserWarning, stacklevel=1)
    text = (run.path / "run.log").read_text(encoding="utf-8")
    assert "WARNING deepexp.data: the last batch of one joins" in text
    assert "INFO deepexp.data: decoded 100 pictures" in text
    assert "UserWarning: a warning of Python, ü" in text
    assert "a detail" not in text


def test_two_runs_in_one_process_have_separate_logs(tmp_path):
    logger, python = logging.getLogger("deepexp"), logging.getLogger("py.warnings")
    before = (logger.level, list(logger.handlers), list(python.handlers), warnings.showwarning)
    texts = []
    for name in ("first", "second"):
        run = RunDirectory.create(tmp_path, name, HydraFiles("", "", ""))
        with Console("quiet") as console:
            log = RunLog(run, console)
            logger.warning("from the %s", name)
            log.close()
            run.unlock()
        texts.append((run.path / "run.log").read_text())
    assert re.findall("from the .*", "".join(texts)) == ["from the first", "from the second"]
    after = (logger.level, list(logger.handlers), list(python.handlers), warnings.showwarning)
    assert after == before


def test_a_stopped_run_has_its_reason_and_no_summary(run, log):
    train(log, [1])
    log.stopped("failed", "the loss is nan in step 4")
    status = run.read_json("status.json")
    assert (status["status"], status["reason"]) == ("failed", "the loss is nan in step 4")
    assert "failed: the loss is nan in step 4" in (run.path / "run.log").read_text()
    assert not (run.path / "summary.json").exists()


@pytest.mark.parametrize("name", ["metrics.jsonl", "events.out.tfevents", "run.log"])
def test_a_full_disk_ends_the_run_and_is_named(run, log, monkeypatch, name):
    write, fds = os.write, "/proc/self/fd"
    if not Path(fds).exists():
        pytest.skip("only Linux tells which file a descriptor belongs to")

    def full_for_one(descriptor, data):
        if name in os.readlink(f"{fds}/{descriptor}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    train(log, [1])
    monkeypatch.setattr(os, "write", full_for_one)
    with pytest.raises(RunFailed, match=rf"{name}.*No space left on device \([\d,.]+ MB free"):
        train(log, [2])
    log.stopped("failed", "the disk is full")  # raises no second error
    logging.getLogger("deepexp").warning("nor does this")
    log.flush()
    monkeypatch.undo()
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["epoch"] == 1
    assert curves_of(run.path)["train/loss"][:3] == [(step, pytest.approx(1 / step)) for step in (1, 2, 3)]


@pytest.mark.parametrize(("module", "call", "name"), [
    (os, "open", "metrics.jsonl"), (os, "open", "events.out.tfevents"), (os, "open", "run.log"),
    (storage, "sync_directory", "metrics.jsonl"), (storage, "sync_directory", "run.log"),
    (os, "write", "events.out.tfevents"),
])  # fmt: skip
def test_a_file_that_cannot_be_opened_closes_the_others(run, monkeypatch, module, call, name):
    fds = Path("/proc/self/fd")
    if not fds.exists():
        pytest.skip("only Linux tells which file a descriptor belongs to")

    def opened():
        return sorted(os.readlink(fd) for fd in fds.iterdir() if fd.is_symlink() and str(run.path) in os.readlink(fd))

    real, before = getattr(module, call), opened()

    def refuse(what, *rest):
        if any(name in path for path in ([str(what)] if call == "open" else opened())):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return real(what, *rest)

    monkeypatch.setattr(module, call, refuse)
    with pytest.raises(RunFailed, match=rf"{name}.*Permission denied"):
        RunLog(run, Console("quiet"))
    monkeypatch.undo()
    assert opened() == before


def test_a_run_whose_predictions_cannot_be_written_has_no_summary(run, log):
    """A summary tells that the run is done, with all of its results."""
    (run.path / "predictions.npz").mkdir()
    with pytest.raises(RunFailed, match=r"cannot write .*predictions\.npz"):
        finish(log, model())
    assert not (run.path / "summary.json").exists() and run.read_status()["status"] == "running"


def test_a_python_warning_is_shown_in_one_line(run, capsys):
    log = RunLog(run, Console("plain"))
    warnings.warn("of Python", UserWarning, stacklevel=1)
    log.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: ")
    assert line.endswith("UserWarning: of Python")
