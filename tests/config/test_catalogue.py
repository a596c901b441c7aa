"""A file in the user's conf that is not used, since deepexp's own option has its name, is told where that is chosen."""

import pytest

import deepexp
from deepexp.sweep.command import run_sweep
from deepexp.text.console import Console

from ..files import write

SMALL = ["data.subset=20", "batch_size=20", "epochs=1", "threads=1", "device=cpu"]
LINE = "is not used: {0}={1} is an option of deepexp's own; rename the file"


@pytest.fixture(autouse=True)
def conf(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("model/mnist_net", "model/resnet", "optim/adam", "optim/mine"):
        write(tmp_path / "conf" / f"{name}.yaml", "_target_: torch.optim.SGD\n_partial_: true\nlr: 0.1\n")
    return tmp_path / "conf"


def test_a_run_warns_of_files_whose_name_deepexps_own_option_has(capsys):
    result = deepexp.train([*SMALL, "optim=mine"])
    said = f"conf/model/mnist_net.yaml {LINE.format('model', 'mnist_net')}"
    for text in ((result.directory / "run.log").read_text(), capsys.readouterr().err):
        assert text.count(said) == text.count("is not used") == 1


def test_a_dry_run_warns_too(capsys):
    deepexp.train([*SMALL, "optim=adam", "dry_run=true"])
    err = capsys.readouterr().err
    assert f"conf/optim/adam.yaml {LINE.format('optim', 'adam')}" in err
    assert err.count("is not used") == 2


def test_a_sweep_warns_once_for_all_jobs(capsys):
    run_sweep([*SMALL, "optim=adam,mine", "seed=0,1"], Console("plain"))
    err = capsys.readouterr().err
    assert err.count(LINE.format("optim", "adam")) == err.count(LINE.format("model", "mnist_net")) == 1
    assert err.count("is not used") == 2
