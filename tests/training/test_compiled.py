"""Compiled training passes: what is compiled, that results stay the same, and models that cannot be compiled."""

import json
import shutil

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters

from deepexp.errors import Interrupted
from deepexp.trainer import Trainer
from deepexp.training import compiled

from ..resumed import resume
from ..same_run import assert_same_run, lines
from ..test_exact_resume import stop_after

SMALL = [
    "data.subset=230",
    "data.resize=22",
    "batch_size=50",
    "epochs=3",
]  # five updates an epoch, the last of 30 samples
HAS_COMPILER = any(shutil.which(name) for name in ("g++", "c++", "clang++"))


@pytest.fixture
def counter(monkeypatch):
    """Counts compilations with a backend that traces and differentiates, but runs torch's operations unchanged."""
    torch._dynamo.reset()
    backend = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(compiled, "compiled", lambda model: torch.compile(model, dynamic=False, backend=backend))
    yield backend
    torch._dynamo.reset()


def choice(result) -> str:
    return json.loads((result.directory / "provenance.json").read_text())["choices"]["compile"]


CASES = {
    "plain": [],
    "dropout, batch norm": ["dropout=0.3", "batch_norm=true", "optim=momentum", "optim.lr=0.02"],
    "accumulated": ["accumulate=2", "batch_size=25", "ema=0.9"],
    "bf16": ["precision=bf16", "data.resize=22"],  # small, as bf16 is slow on most CPUs
    "resnet": ["model=resnet", "model.depth=8"],
    "lbfgs": ["optim=lbfgs", "optim.max_iter=2"],
}


@pytest.mark.parametrize("words", CASES.values(), ids=CASES.keys())
def test_a_run_is_the_same_bit_for_bit_and_compiled_once(run, counter, words):
    made = run([*SMALL, *words, "compile=true"], folder="compiled")
    assert counter.frame_count == 1 and choice(made) == "yes"
    usual = run([*SMALL, *words], folder="usual")
    assert counter.frame_count == 1 and choice(usual) == "no, compile=false"
    assert_same_run(made.directory, usual.directory)


FROZEN = ["model=monster", "model.pretrained=false", "model.nb_residual_blocks=1", "model.nb_channels=8", "epochs=4"]


@pytest.mark.parametrize("keep", ["cache_frozen=true", "cache_frozen=false"])
def test_the_model_is_compiled_again_when_a_layer_thaws(run, counter, keep):
    words = [*SMALL, *FROZEN, "freeze=[{pattern: features.*, epochs: 2}]", keep]
    made = run([*words, "compile=true"], folder="compiled")
    assert counter.frame_count == 2
    assert_same_run(made.directory, run(words, folder="usual").directory)


def test_a_stopped_compiled_run_resumes_exactly(run, counter, monkeypatch):
    words = [*SMALL, "compile=true", "dropout=0.3", "checkpoint.every_minutes=10", "log_every=2"]
    whole = run(words, folder="whole")
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_save_is_due", stop_after(4))
        with pytest.raises(Interrupted):
            run(words, folder="stopped")
    (stopped,) = (whole.directory.parents[2] / "stopped").glob("*/*")
    torch._dynamo.reset()
    resume(stopped)
    assert_same_run(stopped, whole.directory)


def test_a_model_that_cannot_be_compiled_runs_uncompiled_with_one_message(run, counter, monkeypatch):
    def refuses(graph, inputs):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(compiled, "compiled", lambda model: torch.compile(model, backend=refuses))
    made = run([*SMALL, "compile=true", "batch_norm=true"], folder="compiled")
    log = (made.directory / "run.log").read_text()
    assert log.count("the model cannot be compiled here, and is called as written") == 1 and "no compiler here" in log
    assert_same_run(made.directory, run([*SMALL, "batch_norm=true"], folder="usual").directory)


@pytest.mark.slow
@pytest.mark.skipif(not HAS_COMPILER, reason="there is no C++ compiler")
def test_losses_with_torchs_compiler_equal_those_without_but_for_rounding(run, monkeypatch):
    """Over 15 updates, relative 1e-4; dropout draws the same masks."""
    monkeypatch.setattr(torch._inductor.config, "compile_threads", 1)  # otherwise it starts processes that import torch
    torch._dynamo.reset()
    counters.clear()
    words = [*SMALL, "dropout=0.3"]
    losses = []
    for folder, more in (("compiled", ["compile=true"]), ("usual", [])):
        result = run([*words, *more], folder=folder)
        assert "cannot be compiled" not in (result.directory / "run.log").read_text()
        losses.append([line["train_loss"] for line in lines(result.directory / "metrics.jsonl")])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert counters["frames"]["ok"] == 1
