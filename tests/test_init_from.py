"""A run that begins with the weights of another: fine-tuning, for the same classes or for others."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

import deepexp
from deepexp import build
from deepexp.check import typed_and_planned
from deepexp.config.compose import compose
from deepexp.run.rundir import RunDirectory
from deepexp.sweep.command import run_sweep
from deepexp.sweep.points import config_hash
from deepexp.text.console import Console

from .resumed import resume
from .same_run import assert_same_run

SMALL = ["data=synthetic", "data.train_samples=60", "data.test_samples=20", "batch_size=20", "threads=1", "device=cpu"]


@pytest.fixture
def first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run for ten classes, whose path is given relative to the working directory."""
    monkeypatch.chdir(tmp_path)
    deepexp.train([*SMALL, "epochs=1", "ema=0.5", "name=first"], quiet=True)
    (run,) = Path("outputs/first").iterdir()
    return run


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.pt", weights_only=True)["model"]


def test_a_run_begins_with_the_weights_of_another_and_records_it(first: Path) -> None:
    result = deepexp.train([*SMALL, f"init_from={first}", "optim.lr=0", "epochs=1", "seed=3"], quiet=True)
    averaged = deepexp.load_run(first).model.state_dict()  # the averaged weights, with which the other run was tested
    assert all(torch.equal(tensor, averaged[name]) for name, tensor in weights(result.directory).items())
    assert not all(torch.equal(tensor, averaged[name]) for name, tensor in weights(first).items())
    for file in ("summary.json", "provenance.json"):
        assert json.loads((result.directory / file).read_text())["pretrained"] == str(first.absolute())
    digest = hashlib.sha256((first / "checkpoints" / "last.pt").read_bytes()).hexdigest()
    assert json.loads((result.directory / "provenance.json").read_text())["pretrained_sha256"] == digest
    events = EventAccumulator(str(result.directory)).Reload().PluginTagToContent(metadata.PLUGIN_NAME)
    compared_by = metadata.parse_session_start_info_plugin_data(events[metadata.SESSION_START_INFO_TAG]).hparams
    assert compared_by["init_from"].string_value == str(first.absolute())
    assert f"begins with: {first}" in (result.directory / "run.log").read_text()


EXPANDED = """
import torch
from torch import nn

class Net(nn.Linear):
    def __init__(self, *, shape, classes):
        super().__init__(shape[0] * shape[1] * shape[2], classes)
        self.register_buffer("scale", torch.ones(1).expand(classes))

    def forward(self, x):
        return super().forward(x.flatten(1)) * self.scale
"""


def test_buffers_made_by_expand_are_taken_too(first: Path) -> None:
    Path("conf/model").mkdir(parents=True)
    Path("conf/model/expanded.yaml").write_text("_target_: expanded_net.Net\n")
    Path("expanded_net.py").write_text(EXPANDED)
    words = [*SMALL, "model=expanded", "epochs=1"]
    before = deepexp.train(words, quiet=True)
    result = deepexp.train([*words, "optim.lr=0", f"init_from={before.directory}"], quiet=True)
    there = weights(before.directory)
    assert all(torch.equal(tensor, there[name]) for name, tensor in weights(result.directory).items())


def test_for_other_classes_the_last_layer_has_initial_weights(first: Path) -> None:
    words = [*SMALL, "data.classes=4", "optim.lr=0", "epochs=1"]
    result = deepexp.train([*words, f"init_from={first}"], quiet=True)
    there, drawn = deepexp.load_run(first).model.state_dict(), weights(deepexp.train(words, quiet=True).directory)
    for name, tensor in weights(result.directory).items():
        assert torch.equal(tensor, drawn[name] if name.startswith("fc2.") else there[name]), name
    assert "as they are not for 4 classes: fc2.weight, fc2.bias" in (result.directory / "run.log").read_text()


def test_a_run_resumes_exactly_without_its_init_from(first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*SMALL, f"init_from={first}"]
    whole = deepexp.train([*words, "epochs=3"], quiet=True)
    part = deepexp.train([*words, "epochs=1"], quiet=True)
    shutil.rmtree(first)
    gone_on = resume(part, "epochs=3")
    assert_same_run(gone_on.directory, whole.directory)
    with pytest.raises(deepexp.InputError, match=r"init_from: cannot be changed"):
        resume(part, "init_from=elsewhere", "epochs=4")


def test_weights_that_do_not_fit_are_refused_before_anything_is_written(first: Path) -> None:
    with pytest.raises(deepexp.InputError, match=r"last\.pt does not fit: it has no stem\.0\.weight"):
        deepexp.train([*SMALL, "model=resnet", f"init_from={first}", "name=second"], quiet=True)
    with pytest.raises(deepexp.InputError, match=r"init_from: .*nowhere cannot be read"):
        deepexp.train([*SMALL, "init_from=nowhere", "name=second"], quiet=True)
    assert not Path("outputs/second").exists()


@pytest.mark.parametrize("key", ["init_from", "model.pretrained"])
def test_weights_of_a_running_run_are_refused(first: Path, key: str) -> None:
    words = [*SMALL, f"{key}={first}", "epochs=1", "name=second"]
    if key == "model.pretrained":
        words.append("model=monster")
    run = RunDirectory.open(first)
    run.lock()
    with pytest.raises(deepexp.InputError, match=rf"^{key}: {first.absolute()} is still running; wait until it ends"):
        deepexp.train(words, quiet=True)
    with pytest.raises(deepexp.InputError, match=r"is still running.*\nnothing was started"):
        run_sweep([*words, "seed=0,1"], Console("quiet"))
    run.unlock()
    assert not any(Path("outputs/second").rglob("*"))


def test_init_from_can_be_swept(first: Path) -> None:
    words = [
        *SMALL,
        "optim.lr=0",
        "epochs=1",
        "model=mnist_net",
        f"init_from=null,{first}",
        "data.classes=10,4",
    ]
    swept = run_sweep(words, Console("quiet"))
    assert not swept.failures
    came_to = {(row.varying["init_from"], row.varying["data.classes"]): row.summary for row in swept.rows}
    assert len(came_to) == 4
    for (beginning, _), summary in came_to.items():
        assert summary is not None
        assert summary["pretrained"] == (None if beginning == "null" else str(first.absolute()))
    with pytest.raises(deepexp.InputError, match=r"does not fit: it has no .*\nnothing was started"):
        run_sweep([*words[:-3], "model=resnet,mnist_net", f"init_from={first}"], Console("quiet"))


def test_a_sweep_is_refused_if_the_weights_do_not_fit_one_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "flat.yaml").write_text("# A layer\n_target_: flat_layer.Flat\n")
    lines = ["from torch import nn", "def Flat(*, shape, classes):", "    c, h, w = shape"]
    lines += ["    return nn.Sequential(nn.Flatten(), nn.Linear(c * h * w, 5), nn.Linear(5, classes))"]
    (tmp_path / "flat_layer.py").write_text("\n".join(lines))
    words = [*SMALL, "model=flat", "epochs=1"]
    there = deepexp.train([*words, "model.input.height=28"], quiet=True).directory
    with pytest.raises(deepexp.InputError, match=r"does not fit: 1\.weight is .*\nnothing was started"):
        run_sweep([*words, f"init_from={there}", "model.input.height=28,30"], Console("quiet"))


def test_init_from_null_does_not_change_the_hash_of_a_job() -> None:
    assert config_hash({"seed": 1, "init_from": None}) == config_hash({"seed": 1})
    assert len({config_hash({"seed": 1, "init_from": place}) for place in (None, "a", "b")}) == 3


def test_the_path_of_init_from_is_taken_literally(first: Path) -> None:
    place = Path("a b (1), =ü")
    first.rename(place)
    assert deepexp.train([*SMALL, f"init_from={place}", "max_steps=1"], quiet=True).directory.is_dir()


def test_lost_provenance_is_replaced_without_a_digest_of_the_weights(first: Path) -> None:
    run = deepexp.train([*SMALL, f"init_from={first}", "epochs=1"], quiet=True).directory
    resume(first, "epochs=2")  # its weights are no longer those that were taken
    (run / "provenance.json").unlink()
    resume(run, "epochs=2")
    origin = json.loads((run / "provenance.json").read_text())
    assert origin["pretrained"] == str(first.absolute())
    assert origin["pretrained_sha256"] is None


def test_init_from_expands_a_tilde(first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(first.parent.absolute()))
    config, plan = typed_and_planned(
        OmegaConf.to_container(compose([*SMALL, f"init_from=~/{first.name}"]).config, resolve=True)
    )
    model = build.model(config, plan.shape, len(plan.info.classes), plan.device)
    averaged = deepexp.load_run(first).model.state_dict()
    assert all(torch.equal(tensor, averaged[name]) for name, tensor in model.state_dict().items())
