"""A run that a signal stops in the middle of an epoch ends as if nothing had been: with every option that there is.

In one process, with little data. The options are read from `conf/`, so that a new one is tried without being listed;
the real command under SIGKILL is in `crash/test_kills.py`.
"""

import json
import signal

import pytest

import deepexp
from deepexp import paths
from deepexp.errors import Interrupted
from deepexp.trainer import Trainer

from .same_run import assert_same_run

SMALL = ["epochs=3", "data.subset=60", "data.resize=22", "batch_size=20", "log_every=2", "checkpoint.every_minutes=10"]
STOPPED_AFTER = 5  # of nine updates, three an epoch

MODELS = {
    "mnist_net": ["dropout=0.3"],
    "resnet": ["model.depth=8", "model.width=4"],
    "monster": ["model.pretrained=false", "model.nb_residual_blocks=1", "model.nb_channels=8"],
    "torchvision": ["model.name=squeezenet1_1", "data.resize=32"],
}
NEEDED = {"lbfgs": ["optim.max_iter=2"], "muon": ["optim.lr=0.005"]}
COMBINED = {
    "bf16": ["precision=bf16", "data.resize=22"],  # small, since not every CPU has bf16
    "streamed by processes": ["data.mode=streamed", "data.workers=1", "augment=crop_flip"],
    "streamed": ["data.mode=streamed", "data.workers=0"],
    "averaged": ["ema=0.9", "batch_norm=true"],
    "accumulated": ["accumulate=2", "drop_last=true"],
    "clipped": ["clip_grad_norm=0.5", "label_smoothing=0.1"],
    "sum": ["loss_reduction=sum", "optim.lr=0.001"],
    "full": ["batch_size=full", "epochs=9"],
    "with replacement": ["order=with_replacement"],
    "sequential": ["order=sequential"],
    "frozen": ["freeze=[{pattern: conv1.*, share: 0.7}]", "optim=adamw"],
    "groups": ["optim.groups=[{pattern: fc*, lr_mult: 2}]", "optim=momentum", "schedule=cosine", "schedule.warmup=2"],
    "validated": ["val_fraction=0.2", "early_stop=2", "data.replicate=2"],
    "xavier": ["init=xavier", "deterministic=true"],
}


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (paths.CONF_DIR / group).glob("*.yaml"))


CASES = {
    **{f"model={name}": [f"model={name}", *MODELS[name]] for name in options("model")},
    **{f"optim={name}": [f"optim={name}", *NEEDED.get(name, [])] for name in options("optim")},
    **{f"schedule={name}": [f"schedule={name}"] for name in options("schedule")},
    **{f"augment={name}": [f"augment={name}", "dropout=0.2"] for name in options("augment")},
    **COMBINED,
}


@pytest.mark.parametrize("words", CASES.values(), ids=CASES.keys())
def test_a_run_that_was_stopped_comes_to_the_same_end(run, monkeypatch, words):
    whole = run([*SMALL, *words], folder="whole")
    monkeypatch.setattr(Trainer, "_save_is_due", stop_after(STOPPED_AFTER))
    with pytest.raises(Interrupted, match="the run was saved"):
        run([*SMALL, *words], folder="stopped")
    monkeypatch.undo()
    (stopped,) = (whole.directory.parents[2] / "stopped").glob("*/*")
    last = json.loads((stopped / "status.json").read_text())
    made = STOPPED_AFTER + ("batch_size=full" not in words)  # of one update an epoch: an evaluation comes next
    assert last["status"] == "killed-by-signal" and f"after step {made};" in last["reason"]
    assert deepexp.train([f"resume={stopped}"], quiet=True) is not None
    assert_same_run(stopped, whole.directory)


def stop_after(steps: int):
    """What notes a signal once so many updates are made; the run then ends after the one that follows."""

    def due(self: Trainer) -> bool:
        if self.progress.step == steps:
            self._stop._note(signal.SIGTERM, None)
        return False

    return due
