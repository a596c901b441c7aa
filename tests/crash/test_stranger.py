"""A run directory from a stranger runs none of its code, and makes nothing be written outside it."""

import hashlib
import io
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from deepexp import checkpoint, cli, trust
from deepexp.saved_model import saved_model


class Bomb:
    """Unpickling it creates a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    words = ["epochs=2", "max_steps=3", "data.subset=60", "batch_size=20", "threads=1", "device=cpu"]
    assert cli.main(["train", *words, f"output_dir={folder}"]) == 0
    (run,) = folder.glob("*/*")
    return run


@pytest.fixture
def run(original, tmp_path):
    """A run that looks as if it had been cut off, for a test to tamper with."""
    copy = tmp_path / "run"
    shutil.copytree(original, copy)
    status = copy / "status.json"
    status.write_text(status.read_text().replace('"done"', '"running"'))
    return copy


def tamper(run: Path, **changes: Any) -> None:
    """Change keys of the saved config: `model__pretrained=…`."""
    path = run / ".hydra" / "config.yaml"
    config = yaml.safe_load(path.read_text())
    for key, value in changes.items():
        *above, last = key.split("__")
        node = config
        for part in above:
            node = node[part]
        node[last] = value
    path.write_text(yaml.safe_dump(config))


def resumed(run: Path) -> int:
    return cli.main(["train", f"resume={run}", "max_steps=null"])


@pytest.fixture
def mark(tmp_path):
    return tmp_path / "the-bomb-went-off"


@pytest.fixture
def bomb(tmp_path, mark):
    path = tmp_path / "bomb.pt"
    torch.save({"format": 1, "model": Bomb(mark)}, path)
    return path


def archive(tmp_path: Path) -> Path:
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("the-bomb-went-off")
        tar.addfile(member, io.BytesIO(b""))
    return path


def hub_folder(tmp_path: Path, mark: Path) -> Path:
    folder = tmp_path / "hub"
    folder.mkdir()
    (folder / "hubconf.py").write_text(f"open({str(mark)!r}, 'w').close()\ndef model(**_): ...\n")
    return folder


def attacks(tmp_path: Path, bomb: Path, mark: Path) -> dict[str, dict[str, Any]]:
    unpickle = {"f": str(bomb), "weights_only": False}
    load = {"_target_": "torch.optim.optimizer.torch.load", **unpickle}
    made = f"${{oc.create:{{_target_: torch.load, f: '{bomb}', weights_only: false}}}}"
    hub = {"repo_or_dir": str(hub_folder(tmp_path, mark)), "model": "model", "source": "local"}
    unpack = {"from_path": str(archive(tmp_path)), "to_path": str(tmp_path)}
    adam = {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 0.1, "groups": []}
    return {
        "torch.load": {"schedule": load},
        "torch.hub.load": {"schedule": {"_target_": "torch.optim.optimizer.torch.hub.load", **hub}},
        "extract_archive": {"schedule": {"_target_": "torchvision.datasets.utils.extract_archive", **unpack}},
        "nested": {"optim": {**adam, "betas": load}},
        "interpolated": {"optim": {**adam, "betas": made}},
    }


NAMES = ["torch.load", "torch.hub.load", "extract_archive", "nested", "interpolated"]


@pytest.mark.parametrize("name", NAMES)
def test_an_attack_through_a_target_does_not_run(run, tmp_path, bomb, mark, capsys, name):
    tamper(run, **attacks(tmp_path, bomb, mark)[name])
    assert resumed(run) == 2
    assert "saved config" in capsys.readouterr().err
    assert not mark.exists()


@pytest.mark.parametrize("name", NAMES)
def test_without_the_guard_it_does(run, tmp_path, bomb, mark, capsys, monkeypatch, name):
    tamper(run, **attacks(tmp_path, bomb, mark)[name])
    monkeypatch.setattr(trust, "check_targets", lambda node: None)
    resumed(run)
    assert mark.exists()


@pytest.mark.parametrize("name", NAMES)
def test_an_attack_on_who_loads_the_model_does_not_run(run, tmp_path, bomb, mark, name):
    tamper(run, **attacks(tmp_path, bomb, mark)[name])
    with pytest.raises(Exception, match="saved config"):
        saved_model(run)
    assert not mark.exists()


def sealed(content: bytes) -> bytes:
    """With a digest that fits, as anyone can make it."""
    return content + b"\ndeepexp-sha256:" + hashlib.sha256(content).hexdigest().encode() + b"\n"


def test_a_bomb_in_the_checkpoints_does_not_go_off(run, bomb, mark, capsys):
    for name in ("last.pt", "previous.pt"):
        (run / "checkpoints" / name).write_bytes(sealed(bomb.read_bytes()))
    assert resumed(run) == 2
    assert "more than tensors and plain values" in capsys.readouterr().err
    assert not mark.exists()


def test_without_weights_only_it_does(run, bomb, mark, monkeypatch):
    (run / "checkpoints" / "last.pt").write_bytes(sealed(bomb.read_bytes()))
    load = torch.load
    monkeypatch.setattr(checkpoint.torch, "load", lambda *a, **k: load(*a, **{**k, "weights_only": False}))
    resumed(run)
    assert mark.exists()


def test_a_bomb_that_pretrained_leads_to_does_not_go_off(run, bomb, mark, capsys):
    tamper(
        run,
        model={
            "_target_": "deepexp.models.monster.Monster",
            "input": {"channels": 3, "height": 32, "width": 32},
            "nb_residual_blocks": 1,
            "nb_channels": 8,
            "pretrained": str(bomb),
            "dropout": None,
            "batch_norm": None,
        },
    )
    assert resumed(run) in (1, 2)
    assert "Traceback" not in capsys.readouterr().err
    assert not mark.exists()


def test_pickled_arrays_in_a_cache_of_pictures_do_not_go_off(tmp_path, mark):
    import numpy as np

    from deepexp.data.source import Split

    path = tmp_path / "train.npy"
    np.save(path, np.array([Bomb(mark)], dtype=object), allow_pickle=True)
    with pytest.raises(Exception, match=r"Python objects|allow_pickle"):
        Split.mapped(path, torch.zeros(1, dtype=torch.int64))
    assert not mark.exists()


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "run.log", ".lock", "checkpoints/.last.pt.partial", ".hydra/.config.yaml.partial"]
)
def test_nothing_is_written_through_a_link(run, tmp_path, capsys, name):
    precious = tmp_path / "precious"
    precious.write_text("x" * 10_000)
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(precious)
    assert resumed(run) == 2
    assert name in capsys.readouterr().err
    assert precious.read_text() == "x" * 10_000


@pytest.mark.parametrize("name", [".hydra", "checkpoints"])
def test_nothing_is_written_through_a_linked_folder(run, tmp_path, capsys, name):
    shutil.move(run / name, tmp_path / "elsewhere")
    (run / name).symlink_to(tmp_path / "elsewhere")
    before = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "elsewhere").iterdir())
    assert resumed(run) == 2
    assert sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "elsewhere").iterdir()) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name here")
@pytest.mark.parametrize("name", ["checkpoints/last.pt", "metrics.jsonl", ".hydra/hydra.yaml"])
def test_a_pipe_is_not_waited_for(run, capsys, name):
    (run / name).unlink()
    os.mkfifo(run / name)
    assert resumed(run) == 2
    assert name in capsys.readouterr().err


def test_an_old_summary_stays_in_the_run(run, tmp_path, capsys):
    (run / "summary.epoch").mkdir()
    (run / "summary.json").write_text('{"format": 1, "epochs": "/../../moved"}')
    assert resumed(run) == 2
    assert not (tmp_path / "moved.json").exists()


def test_an_alias_bomb_is_refused_at_once(run, capsys):
    bomb = "a: &a [x, x, x, x, x, x, x, x]\n"
    for above, name in zip("abcdefghijk", "bcdefghijkl", strict=True):
        bomb += f"{name}: &{name} [{', '.join([f'*{above}'] * 8)}]\n"
    path = run / ".hydra" / "config.yaml"
    path.write_text(path.read_text() + bomb)
    assert resumed(run) == 2
    assert "alias" in capsys.readouterr().err
