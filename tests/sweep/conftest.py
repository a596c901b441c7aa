"""A folder for a sweep, with a user's model that fails in the way that `model.trouble` says."""

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from deepexp.sweep.command import SweepResult, run_sweep
from deepexp.text.console import Console

SMALL = ("data.subset=100", "batch_size=50", "epochs=1", "threads=1", "device=cpu")

MODULE = """
    import os, pathlib, signal, time
    import torch


    class Model(torch.nn.Module):
        def __init__(self, *, shape, classes, trouble):
            super().__init__()
            self.trouble = trouble
            self.flat = torch.nn.Flatten()
            self.linear = torch.nn.Linear(shape[0] * shape[1] * shape[2], classes)

        def forward(self, x):
            if self.training and len(x) > 2:  # not in the checks before the run
                self.act()
            logits = self.linear(self.flat(x))
            return logits * float("nan") if self.trouble == "diverge" else logits

        def act(self):
            if self.trouble == "raise":
                raise OverflowError("too much for me")
            if self.trouble == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.trouble == "stop":
                os.kill(os.getpid(), signal.SIGTERM)
            if self.trouble == "sleep":
                time.sleep(600)
            if self.trouble == "slow":
                time.sleep(0.15)
            if self.trouble == "once" and not pathlib.Path("was_here").exists():
                pathlib.Path("was_here").touch()
                raise OverflowError("only this once")
"""

Sweeper = Callable[..., SweepResult]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with `model=troubled model.trouble=raise|kill|stop|diverge|sleep|slow|once|none` in it."""
    (tmp_path / "troubled_model.py").write_text(textwrap.dedent(MODULE))
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "troubled.yaml").write_text(
        "# goes wrong\n_target_: troubled_model.Model\ntrouble: none\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def sweep(folder: Path) -> Sweeper:
    """Runs a sweep of small jobs with the given words; unless `quiet`, its output can be captured."""

    def run(*words: str, quiet: bool = False) -> SweepResult:
        small = () if any(word.startswith("resume=") for word in words) else SMALL
        return run_sweep([*small, *words], Console("quiet" if quiet else "plain"))

    return run
