"""A run that a signal stops in the middle of an epoch resumes exactly, with every option of every group.

In one process, with little data. The options are read from `conf/`, so that new ones are tested automatically;
the real command under SIGKILL is in `crash/test_kills.py`.
"""

import json
import random
import signal

import numpy as np
import pytest
import yaml

from deepexp import checkpoint, paths
from deepexp.errors import Interrupted
from deepexp.trainer import Trainer

from .resumed import resume
from .same_run import assert_same_run

SMALL = ["epochs=3", "data.subset=60", "data.resize=22", "batch_size=20", "log_every=2", "checkpoint.every_minutes=10"]
STOPPED_AFTER = 5  # of nine updates, three an epoch

MODELS = {
    "mnist_net": ["dropout=0.3"],
    "resnet": ["model.depth=8", "model.width=4"],
    "monster": ["model.pretrained=false", "model.nb_residual_blocks=1", "model.nb_channels=8"],
    "timm": ["model.name=test_vit", "data.resize=32"],
    "torchvision": ["model.name=squeezenet1_1", "data.resize=32"],
}
NEEDED = {"lbfgs": ["optim.max_iter=2"], "muon": ["optim.lr=0.005"]}
COMBINED = {
    "bf16": ["precision=bf16", "data.resize=22"],  # small, as bf16 is slow on most CPUs
    "large batches": ["data.subset=192", "batch_size=64", "data.resize=28"],
    "streamed by processes": ["data.mode=streamed", "data.workers=1", "augment=crop_flip"],
    "streamed": ["data.mode=streamed", "data.workers=0"],
    "averaged": ["ema=0.9", "batch_norm=true"],
    "accumulated": ["accumulate=2", "drop_last=true"],
    "clipped": ["clip_grad_norm=0.5", "label_smoothing=0.1", "class_weights=balanced"],
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
    **{f"loss={name}": [f"loss={name}", "augment=mixup"] for name in options("loss")},
    **COMBINED,
}


@pytest.mark.parametrize("words", CASES.values(), ids=CASES.keys())
def test_a_stopped_run_resumes_exactly(run, monkeypatch, tmp_path, words):
    whole = run([*SMALL, *words], folder="whole")
    stopped = stop_run(run, monkeypatch, tmp_path, words)
    last = json.loads((stopped / "status.json").read_text())
    made = STOPPED_AFTER + ("batch_size=full" not in words)  # with one update an epoch, an evaluation comes next
    assert last["status"] == "killed-by-signal" and f"after step {made};" in last["reason"]
    resume(stopped)
    assert_same_run(stopped, whole.directory)


RESIDENT, STREAMED = ["data.mode=resident"], ["data.mode=streamed", "data.workers=1"]


@pytest.mark.parametrize(
    ("before", "after"), [(RESIDENT, STREAMED), (STREAMED, RESIDENT)], ids=["streamed", "resident"]
)
def test_the_data_mode_may_change_on_resuming(run, monkeypatch, tmp_path, before, after):
    words = ["augment=crop_flip", "dropout=0.2"]
    whole = run([*SMALL, *words, *before], folder="whole")
    stopped = stop_run(run, monkeypatch, tmp_path, [*words, *before])
    resume(stopped, *after, "checkpoint.every_minutes=9")
    assert_same_run(stopped, whole.directory)
    saved = yaml.safe_load((stopped / ".hydra" / "config.yaml").read_text())
    assert [f"data.mode={saved['data']['mode']}", saved["checkpoint"]["every_minutes"]] == [after[0], 9]


THEIRS = """
import random
import numpy, torch
from torch import nn

class Draws(nn.Module):
    def __init__(self, *, shape, classes):
        super().__init__()
        weights = numpy.random.normal(0, 0.1, (classes, shape[1] * shape[2]))
        self.weight = nn.Parameter(torch.tensor(weights, dtype=torch.float32))
        self.bias = nn.Parameter(torch.tensor([random.gauss(0, 0.1) for _ in range(classes)]))

    def forward(self, x):
        scale = numpy.random.normal(1, 0.1) + random.gauss(0, 0.1) if self.training else 1
        return nn.functional.linear(scale * x.flatten(1), self.weight, self.bias)
"""


@pytest.fixture
def draws(monkeypatch, tmp_path):
    """Words for a model of the user's own that draws from NumPy's and Python's generators."""
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "draws.yaml").write_text("_target_: draws_of_its_own.Draws\n")
    (tmp_path / "draws_of_its_own.py").write_text(THEIRS)
    monkeypatch.chdir(tmp_path)
    return ["model=draws"]


def test_random_numbers_of_numpy_and_python_resume_exactly(run, monkeypatch, tmp_path, draws):
    whole = run([*SMALL, *draws], folder="whole")
    np.random.seed(99)
    random.seed(99)
    before = random.getstate(), np.random.get_state()[1].tolist()
    stopped = stop_run(run, monkeypatch, tmp_path, draws)
    resume(stopped)
    assert_same_run(stopped, whole.directory)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    other = run([*SMALL, *draws, "seed=1"], folder="other")
    assert other.metrics[0]["train_loss"] != whole.metrics[0]["train_loss"]


def test_a_checkpoint_without_states_of_numpy_and_python_is_resumed(run, monkeypatch, tmp_path, draws):
    stopped = stop_run(run, monkeypatch, tmp_path, draws)
    path = stopped / "checkpoints" / "last.pt"
    content = checkpoint.load(path)
    del content["random"]["numpy"], content["random"]["python"]
    checkpoint.save(path, content)
    assert resume(stopped).status == "done"


def stop_run(run, monkeypatch, folder, words):
    """The directory of a run with these words that a signal has stopped in the middle of an epoch."""
    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="the run was saved"):
        patch.setattr(Trainer, "_save_is_due", stop_after(STOPPED_AFTER))
        run([*SMALL, *words], folder="stopped")
    (stopped,) = (folder / "stopped").glob("*/*")
    return stopped


def stop_after(steps: int):
    """A `Trainer._save_is_due` that notes a signal after so many updates; the run ends one update later."""

    def due(self: Trainer) -> bool:
        if self.progress.step == steps:
            self._stop._note(signal.SIGTERM, None)
        return False

    return due
