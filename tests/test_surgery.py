"""Runs that begin with layers of others: what they record, how they resume, and how they are swept."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import deepexp
from deepexp.run.rundir import RunDirectory
from deepexp.sweep.command import run_sweep
from deepexp.sweep.points import config_hash
from deepexp.text.console import Console

from .resumed import resume
from .same_run import assert_same_run

SMALL = ["data=synthetic", "data.train_samples=60", "data.test_samples=20", "batch_size=20", "threads=1", "device=cpu"]
RESNET = [*SMALL, "model=resnet", "model.depth=8", "model.width=4"]
STAYS = [*RESNET, "epochs=1", "freeze=[{pattern: 'st*', share: 1.0}]", "optim.lr=0"]
"""A run that changes no weights, nor running statistics."""
GRAFTED = "stages.0.0."


@pytest.fixture
def monster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run of a small Monster, whose path is given relative to the working directory."""
    monkeypatch.chdir(tmp_path)
    words = ["model=monster", "model.pretrained=false", "model.nb_residual_blocks=1", "model.nb_channels=4"]
    deepexp.train([*SMALL, *words, "epochs=1", "name=donor"], quiet=True)
    (run,) = Path("outputs/donor").iterdir()
    return run


def surgery(run: Path, to: str = "stages.0.*") -> str:
    return f"surgery=[{{from: {run}, layers: blocks.*, to: {to}}}]"


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.pt", weights_only=True)["model"]


def assert_grafted(run: Path, donor: Path, others: dict[str, torch.Tensor]) -> None:
    """The block is Monster's, and the other tensors are `others`."""
    here, there = weights(run), weights(donor)
    assert sum(name.startswith(GRAFTED) for name in here) == 12
    for name, tensor in here.items():
        is_grafted = name.startswith(GRAFTED)
        assert torch.equal(tensor, there[name.replace("stages.0.", "blocks.")] if is_grafted else others[name]), name


def test_layers_are_taken_and_the_others_have_the_initial_weights_of_the_seed(monster: Path) -> None:
    without = deepexp.train(STAYS, quiet=True)
    result = deepexp.train([*STAYS, surgery(monster)], quiet=True)
    assert_grafted(result.directory, monster, weights(without.directory))


def test_layers_are_taken_on_top_of_the_weights_of_init_from(monster: Path) -> None:
    first = deepexp.train([*RESNET, "epochs=1", "seed=3"], quiet=True).directory
    result = deepexp.train([*STAYS, f"init_from={first}", surgery(monster)], quiet=True)
    assert_grafted(result.directory, monster, weights(first))
    origin = json.loads((result.directory / "provenance.json").read_text())
    assert origin["pretrained"] == f"{first}, {monster.absolute()}"
    files = [run / "checkpoints" / "last.pt" for run in (first, monster)]
    assert origin["pretrained_sha256"] == ", ".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)


def test_frozen_layers_stay_while_the_others_are_trained(monster: Path) -> None:
    words = [*RESNET, "epochs=2", "freeze=[{pattern: stages.0.0.*, share: 1.0}]", surgery(monster)]
    result = deepexp.train(words, quiet=True)
    here = weights(result.directory)
    assert_grafted(result.directory, monster, here)
    without = weights(deepexp.train(STAYS, quiet=True).directory)
    assert not any(torch.equal(here[name], without[name]) for name in ("stem.0.weight", "fc.weight", "fc.bias"))


def test_a_run_records_where_its_layers_come_from(monster: Path) -> None:
    run = deepexp.train([*RESNET, "epochs=1", surgery(monster)], quiet=True).directory
    place = str(monster.absolute())
    assert json.loads((run / "summary.json").read_text())["pretrained"] == place
    origin = json.loads((run / "provenance.json").read_text())
    digest = hashlib.sha256((monster / "checkpoints" / "last.pt").read_bytes()).hexdigest()
    assert (origin["pretrained"], origin["pretrained_sha256"]) == (place, digest)
    assert f"begins with: blocks.* of {monster} as stages.0.*" in (run / "run.log").read_text()
    saved = OmegaConf.load(run / ".hydra" / "config.yaml")
    assert saved.surgery == [{"from": place, "layers": "blocks.*", "to": "stages.0.*"}]


def test_a_run_resumes_exactly_without_the_other(monster: Path) -> None:
    words = [*RESNET, surgery(monster)]
    whole = deepexp.train([*words, "epochs=3"], quiet=True)
    part = deepexp.train([*words, "epochs=1"], quiet=True)
    shutil.rmtree(monster)
    gone_on = resume(part, "epochs=3")
    assert_same_run(gone_on.directory, whole.directory)
    with pytest.raises(deepexp.InputError, match=r"surgery: cannot be changed"):
        resume(part, "surgery=null", "epochs=4")


def test_what_does_not_fit_is_refused_before_anything_is_written(monster: Path) -> None:
    words = [*RESNET, "name=second"]
    with pytest.raises(deepexp.InputError, match=r"surgery\[0\]: this model has no stages\.9\.0\.conv1\.weight"):
        deepexp.train([*words, surgery(monster, to="stages.9.*")], quiet=True)
    with pytest.raises(
        deepexp.InputError, match=r"^surgery\[0\]\.layers: is missing\nsurgery\[1\]\.of: there is no such"
    ):
        deepexp.train([*words, "surgery=[{from: a}, {from: b, layers: c, of: d}]"], quiet=True)
    run = RunDirectory.open(monster)
    run.lock()
    with pytest.raises(deepexp.InputError, match=rf"^surgery\[0\]\.from: {monster.absolute()} is still running"):
        deepexp.train([*words, surgery(monster)], quiet=True)
    run.unlock()
    assert not Path("outputs/second").exists()


def test_surgery_can_be_swept(monster: Path) -> None:
    words = [*RESNET, "epochs=1", "name=swept"]
    swept = run_sweep([*words, f"surgery=null,{surgery(monster).removeprefix('surgery=')}"], Console("quiet"))
    assert not swept.failures
    origins = {row.summary and row.summary["pretrained"] for row in swept.rows}
    assert origins == {None, str(monster.absolute())}
    with pytest.raises(deepexp.InputError, match=r"this model has no stages\.9.*\nnothing was started"):
        run_sweep([*words, surgery(monster, to="stages.9.*"), "seed=0,1"], Console("quiet"))


def test_surgery_null_does_not_change_the_hash_of_a_job() -> None:
    assert config_hash({"seed": 1, "surgery": None}) == config_hash({"seed": 1})
    assert config_hash({"seed": 1, "surgery": [{"from": "a"}]}) != config_hash({"seed": 1})
