"""Recorded updates and evaluations equal those made one call after the other, bit for bit.

Without a GPU they are recorded on a tape (`tape.py`) that behaves as a CUDA graph does; tests that need CUDA are at
the end.
"""

import json
import math
from functools import partial

import pytest
import torch

from deepexp import cuda_graph, trainer
from deepexp.cuda_graph import recorder
from deepexp.cuda_graph.recorder import CudaRecorder
from deepexp.errors import InputError, Interrupted
from deepexp.models.mnist_net import MnistNet
from deepexp.step import Update
from deepexp.trainer import Trainer
from deepexp.training.evaluation import Scores, evaluate

from ..resumed import resume
from ..same_run import assert_same_run, lines
from ..tape import Refusing, Tape
from ..test_exact_resume import stop_after

SMALL = ["data.subset=230", "data.resize=22", "batch_size=50", "epochs=3", "cuda_graph=true"]
SMALL_MONSTER = ["model=monster", "model.pretrained=false", "model.nb_residual_blocks=1", "model.nb_channels=8"]
UPDATES, WARM_UP = 4, 3  # in an epoch, of full size, which are recorded; the last batch has 30 samples


def choice(result) -> str:
    return json.loads((result.directory / "provenance.json").read_text())["choices"]["cuda_graph"]


CASES = {
    "plain": [],
    "momentum, one cycle": ["optim=momentum", "optim.lr=0.02", "schedule=one_cycle"],
    "nesterov, clipped": ["optim=nesterov", "optim.lr=0.02", "clip_grad_norm=0.5"],
    "adam, cosine, averaged": ["optim=adam", "schedule=cosine", "ema=0.9", "val_fraction=0.1"],
    "adamw, groups": ["optim=adamw", "optim.groups=[{pattern: '*.bias', lr_mult: 0.5, weight_decay: 0}]"],
    "rmsprop, clipped, averaged": ["optim=rmsprop", "clip_grad_norm=0.5", "ema=0.9"],
    "dropout, batch norm": ["dropout=0.3", "batch_norm=true"],
    "accumulated": ["accumulate=2", "batch_size=25"],
    "augmented": ["augment=crop_flip_cutout"],
    "mixed, focal": ["augment=mixup", "loss=focal"],
    "smoothed, summed": ["label_smoothing=0.1", "class_weights=balanced", "loss_reduction=sum", "optim.lr=0.001"],
    "bf16": [*SMALL_MONSTER, "freeze=[]", "precision=bf16"],  # few maps, as bf16 is slow on most CPUs
    "resnet": ["model=resnet", "model.depth=8", "model.width=4"],
}


@pytest.fixture
def batches_of_110(monkeypatch):
    """Evaluations take the 359 test samples in three batches of full size, and a last one of 29."""
    monkeypatch.setattr(trainer, "evaluate", partial(evaluate, batch_size=110))


@pytest.mark.parametrize("words", CASES.values(), ids=CASES.keys())
def test_a_recorded_run_equals_an_unrecorded_one_bit_for_bit(run, graph, batches_of_110, words):
    """Losses, errors, gradient norms, weights, optimizer, averages, random numbers, predictions, evaluations.

    Evaluations are replayed for batches of full size, from the second pass over a split on.
    """
    tape = graph(Tape())
    recorded = run([*SMALL, *words], folder="recorded")
    assert (tape.recorded[Update], tape.replayed[Update]) == (1, 3 * UPDATES - WARM_UP)
    scored = [3, 1] if "val_fraction=0.1" in words else [3]  # batches of full size in each split
    assert (tape.recorded[Scores], tape.replayed[Scores]) == (len(scored), 2 * sum(scored))
    graph(Refusing())
    assert_same_run(recorded.directory, run([*SMALL, *words], folder="usual").directory)


FROZEN = [*SMALL_MONSTER, "epochs=5"]


@pytest.mark.parametrize("keep", ["cache_frozen=true", "cache_frozen=false"])
@pytest.mark.parametrize("optim", ["sgd", "momentum", "adam"])
def test_updates_are_recorded_again_when_a_layer_thaws(run, graph, keep, optim):
    """First from cached features (from the second epoch on), then from pictures once the layer moves."""
    words = [*SMALL, *FROZEN, "freeze=[{pattern: features.*, epochs: 3}]", keep, f"optim={optim}", "optim.lr=0.01"]
    tape = graph(Tape())
    recorded = run(words, folder="recorded")
    phases = (
        [2, 2] if keep == "cache_frozen=true" else [3, 2]
    )  # epochs of each; the one that fills the cache is not recorded
    assert tape.recorded[Update] == 2
    assert tape.replayed[Update] == sum(epochs * UPDATES - WARM_UP for epochs in phases)
    graph(Refusing())
    assert_same_run(recorded.directory, run(words, folder="usual").directory)


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate_every=2"],
        [*FROZEN, "freeze=[{pattern: features.*, epochs: 3}]", "precision=bf16"],
    ],
    ids=lambda words: " ".join(words[-2:]),
)
def test_recorded_evaluations_equal_unrecorded_ones_bit_for_bit(run, graph, batches_of_110, words):
    """Where some epochs have no evaluation, and where a layer thaws."""
    tape = graph(Tape())
    recorded = run([*SMALL, *words, "epochs=5"], folder="recorded")
    assert tape.recorded[Scores] and tape.replayed[Scores] >= 3 * tape.recorded[Scores]
    graph(Refusing())
    assert_same_run(recorded.directory, run([*SMALL, *words, "epochs=5"], folder="usual").directory)


@pytest.mark.parametrize("words", [[], ["optim=momentum", "schedule=cosine", "ema=0.9"], ["optim=rmsprop"]])
def test_a_stopped_recorded_run_resumes_exactly(run, graph, monkeypatch, words):
    graph(Tape())
    words = [*SMALL, *words, "checkpoint.every_minutes=10", "log_every=2"]
    whole = run(words, folder="whole")
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_save_is_due", stop_after(7))
        with pytest.raises(Interrupted):
            run(words, folder="stopped")
    (stopped,) = (whole.directory.parents[2] / "stopped").glob("*/*")
    resume(stopped)
    assert_same_run(stopped, whole.directory)


@pytest.mark.parametrize(
    "words",
    [
        ["optim=sgd"],
        ["optim=momentum"],
        ["optim=momentum", "optim.dampening=0.5"],
        ["optim=momentum", "optim.groups=[{pattern: '*.weight', dampening: 0.5}]"],
        ["optim=momentum", "optim.dampening=0.5", "freeze=[{pattern: 'conv1.*', epochs: 1}]"],
        ["optim=adam"],
        ["optim=rmsprop"],
    ],
    ids=" ".join,
)
def test_losses_equal_those_of_cuda_graph_false_but_for_rounding(run, graph, words):
    """Over 15 updates, relative 1e-4: recorded steps are torch's fused ones, with learning rates in float32."""
    tape = graph(Tape())
    words = [*SMALL, *words, "schedule=linear"]
    recorded, usual = run(words, folder="recorded"), run([*words, "cuda_graph=false"], folder="usual")
    assert tape.replayed[Update] and choice(usual) == "no, cuda_graph=false"
    losses = [
        [line["train_loss"] for line in lines(result.directory / "metrics.jsonl")] for result in (recorded, usual)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize(
    "words, reason",
    [
        (["optim=lbfgs", "optim.max_iter=2"], "evaluates the loss several times"),
        (["data.mode=streamed", "data.workers=0"], "data.mode=streamed has the CPU make the batches"),
        (["on_oom=halve"], "on_oom=halve may change the batches"),
    ],
)
def test_options_that_prevent_recording_are_logged(run, graph, words, reason):
    tape = graph(Tape())
    result = run([*SMALL, *words], folder="asked")
    assert not tape.recorded and reason in choice(result)
    log = (result.directory / "run.log").read_text()
    assert log.count("updates are not recorded") == 1 and reason in log
    assert_same_run(result.directory, run([*SMALL, *words, "cuda_graph=false"], folder="not asked").directory)


@pytest.mark.parametrize(
    "words, chosen",
    [
        ([], "yes"),
        (["optim=lbfgs", "optim.max_iter=2"], "no, its optimizer evaluates the loss several times"),
        (["data.mode=streamed", "data.workers=0"], "no, data.mode=streamed"),
        (["model._target_=strangers_net.Net"], "no, model is strangers_net.Net, which may choose anew"),
        (["augment=crop_flip", "augment._target_=strangers_net.Augment"], "no, augment is strangers_net.Augment"),
        (["loss._target_=strangers_net.Loss"], "no, loss is strangers_net.Loss, which may choose anew"),
    ],
)
def test_auto_records_only_deepexps_own_parts(run, graph, monkeypatch, tmp_path, words, chosen):
    (tmp_path / "strangers_net.py").write_text(
        "from deepexp.data.augment import CropFlip as Augment\nfrom deepexp.models.mnist_net import MnistNet as Net\n"
        "from deepexp.training.losses import CrossEntropy as Loss\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    graph(Tape())
    result = run([*SMALL, "cuda_graph=auto", "epochs=1", *words])
    assert choice(result).startswith(chosen)
    told = "cuda_graph: updates are not recorded: "
    assert (result.directory / "run.log").read_text().count(told) == chosen.startswith("no")


def test_auto_records_nothing_on_a_device_without_graphs(run):
    result = run(["data.subset=50", "batch_size=25", "epochs=1"])
    assert choice(result) == "no, the device is cpu"
    assert "cuda_graph" not in (result.directory / "run.log").read_text()


def test_a_model_that_reads_values_on_the_cpu_is_not_recorded(run, graph, monkeypatch):
    forward = MnistNet.forward

    def looks(self, images):
        assert math.isfinite(images.sum().item())
        return forward(self, images)

    monkeypatch.setattr(MnistNet, "forward", looks)
    tape = graph(Tape())
    result = run(SMALL, folder="looks")
    log = (result.directory / "run.log").read_text()
    told = "cannot be recorded as a CUDA graph, and is made as usual: operation not permitted when stream is capturing"
    assert not tape.recorded and log.count(told) == log.count(f"the update {told}") == 1
    graph(Refusing())
    assert_same_run(result.directory, run(SMALL, folder="usual").directory)


def test_provenance_says_what_is_recorded(run, graph):
    graph(Tape())
    assert choice(run([*SMALL, "epochs=1"])) == "yes"
    assert choice(run([*SMALL, "epochs=1", "optim=rmsprop"])).startswith("yes, but for the optimizer's step")


def test_a_device_without_graphs_is_refused(run):
    with pytest.raises(InputError, match="cuda_graph: true is for CUDA devices, and this run is on cpu; use"):
        run(["cuda_graph=true"])


def test_full_batch_updates_are_recorded_after_three_epochs(run, graph):
    """Three updates warm up, and each epoch has one."""
    tape = graph(Tape())
    run([*SMALL, "batch_size=full", "epochs=5"])
    assert (tape.recorded[Update], tape.replayed[Update]) == (1, 2)


def test_the_tape_keeps_cpu_numbers_as_a_cuda_graph_does():
    """A replay uses numbers of the CPU as recorded, and tensors with their present values."""
    total, step, scale = torch.zeros(()), torch.ones(()), 2.0
    replay, update = Tape().record(lambda: Update(total.add_(step * scale), total + 1), size=1)
    assert total == 0
    step, scale = step.fill_(3.0), 5.0
    replay()
    assert total == 6 and update.errors == 7
    with pytest.raises(RuntimeError, match="not permitted"):
        Tape().record(lambda: Update(total, torch.tensor(total.item())), size=1)


@pytest.fixture
def cuda():
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")


class RefusingCuda(CudaRecorder):
    def record(self, work, size):
        raise RuntimeError("no")


CUDA_CASES = {
    **CASES,
    **{f"optim={name}": [f"optim={name}"] for name in ("adagrad", "adadelta", "adamax", "nadam", "muon")},
    "tf32": ["precision=tf32"],
    "bf16, mnist_net": ["precision=bf16"],
    "compiled": ["compile=true"],
    "fp16": ["precision=fp16", "optim=adam"],
    "thawing": [*FROZEN, "freeze=[{pattern: features.*, epochs: 3}]", "optim=momentum", "optim.lr=0.01"],
    "thawing, not kept": [*FROZEN, "freeze=[{pattern: features.*, epochs: 3}]", "cache_frozen=false"],
    "torchvision": ["model=torchvision", "model.name=mobilenet_v3_small"],
    "all at once": ["batch_size=full", "epochs=6"],
}


@pytest.mark.gpu
@pytest.mark.parametrize("words", CUDA_CASES.values(), ids=CUDA_CASES.keys())
def test_a_recorded_run_on_cuda_equals_an_unrecorded_one_bit_for_bit(run, cuda, monkeypatch, words):
    words = [*SMALL, "device=cuda", "deterministic=true", *words]
    recorded = run(words, folder="recorded")
    assert choice(recorded).startswith("yes")
    assert "is made as usual" not in (recorded.directory / "run.log").read_text()
    monkeypatch.setattr(cuda_graph, "make_recorder", RefusingCuda)
    assert_same_run(recorded.directory, run(words, folder="usual").directory)


@pytest.mark.gpu
@pytest.mark.parametrize("words", [[], ["optim=adam", "dropout=0.3"]])
def test_a_failed_recording_leaves_cuda_usable(run, cuda, monkeypatch, words):
    """Also after random numbers were drawn in it."""
    forward = MnistNet.forward

    def looks(self, images):
        logits = forward(self, images)
        assert math.isfinite(logits.sum().item())
        return logits

    monkeypatch.setattr(MnistNet, "forward", looks)
    result = run([*SMALL, *words, "device=cuda", "deterministic=true"], folder="looks")
    assert "cannot be recorded as a CUDA graph" in (result.directory / "run.log").read_text()
    monkeypatch.setattr(cuda_graph, "make_recorder", RefusingCuda)
    usual = run([*SMALL, *words, "device=cuda", "deterministic=true"], folder="usual")
    assert_same_run(result.directory, usual.directory)


@pytest.mark.gpu
def test_nothing_is_recorded_where_memory_is_too_short(run, cuda, monkeypatch):
    monkeypatch.setattr(recorder, "_MOST_MEMORY", 0.0)
    result = run([*SMALL, "device=cuda"])
    log = (result.directory / "run.log").read_text()
    told = "cannot be recorded as a CUDA graph, and is made as usual: a recording keeps its memory, and"
    assert log.count(f"the update {told}") == log.count(f"evaluation {told}") == 1


@pytest.mark.gpu
def test_after_a_failed_recording_another_can_be_made(cuda):
    device = torch.device("cuda")
    recorded, ones = CudaRecorder(device), torch.ones(4, device=device)
    with pytest.raises(RuntimeError):
        recorded.record(lambda: (torch.rand(4, device=device) + ones).sum().item(), size=1)
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    torch.cuda.empty_cache()
    drawn = torch.rand(4, device=device)
    replay, tripled = recorded.record(lambda: 3 * ones, size=1)
    replay()
    assert tripled.tolist() == [3] * 4 and not torch.equal(drawn, torch.rand(4, device=device))
