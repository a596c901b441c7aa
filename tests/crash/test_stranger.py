"""A run directory from a stranger can neither run code nor have anything written outside it."""

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
from PIL import Image

from deepexp import cli
from deepexp.data import download, picture_cache
from deepexp.data.image_folder import ImageFolder
from deepexp.inference import saved_model
from deepexp.models import pretrained
from deepexp.user_code import trust

from .strangers import Bomb, everything_below


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
def test_a_saved_target_that_runs_code_is_refused(run, tmp_path, bomb, mark, capsys, name):
    tamper(run, **attacks(tmp_path, bomb, mark)[name])
    assert resumed(run) == 2
    assert "saved config" in capsys.readouterr().err
    assert not mark.exists()


@pytest.mark.parametrize("name", NAMES)
def test_without_the_guard_such_a_target_runs_code(run, tmp_path, bomb, mark, capsys, monkeypatch, name):
    tamper(run, **attacks(tmp_path, bomb, mark)[name])
    monkeypatch.setattr(trust, "check_targets", lambda node: None)
    resumed(run)
    assert mark.exists()


@pytest.mark.parametrize("name", NAMES)
def test_loading_a_model_refuses_a_saved_target_that_runs_code(run, tmp_path, bomb, mark, name):
    tamper(run, **attacks(tmp_path, bomb, mark)[name])
    with pytest.raises(Exception, match="saved config"):
        saved_model.load(run)
    assert not mark.exists()


def sealed(content: bytes) -> bytes:
    """The content with its right digest, which anyone can compute."""
    return content + b"\ndeepexp-sha256:" + hashlib.sha256(content).hexdigest().encode() + b"\n"


def test_pickled_code_in_a_checkpoint_is_not_run(run, bomb, mark, capsys):
    for name in ("last.pt", "previous.pt"):
        (run / "checkpoints" / name).write_bytes(sealed(bomb.read_bytes()))
    assert resumed(run) == 2
    assert "more than tensors and plain values" in capsys.readouterr().err
    assert not mark.exists()


def test_without_weights_only_pickled_code_in_a_checkpoint_runs(run, bomb, mark, monkeypatch):
    (run / "checkpoints" / "last.pt").write_bytes(sealed(bomb.read_bytes()))
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **k: load(*a, **{**k, "weights_only": False}))
    resumed(run)
    assert mark.exists()


def cut_off_early(run: Path) -> None:
    """Make the run look as if it was cut off before its first checkpoint, so that it begins anew."""
    (run / "summary.json").unlink()
    for checkpoint_file in (run / "checkpoints").iterdir():
        checkpoint_file.unlink()


@pytest.fixture
def run_with_pickled_weights(run, bomb):
    """A run cut off before its first checkpoint, so that it loads its first layer: from a pickle that runs code."""
    cut_off_early(run)
    monster = {"_target_": "deepexp.models.monster.Monster", "input": {"channels": 3, "height": 32, "width": 32}}
    sizes = {"nb_residual_blocks": 1, "nb_channels": 8, "dropout": None, "batch_norm": None}
    tamper(run, model={**monster, **sizes, "pretrained": str(bomb)})
    return run


def test_pickled_code_in_pretrained_weights_is_not_run(run_with_pickled_weights, bomb, mark, capsys):
    assert resumed(run_with_pickled_weights) == 2
    streams = capsys.readouterr()
    assert str(bomb) in streams.err + streams.out
    assert "Traceback" not in streams.err
    assert not mark.exists()


def test_without_weights_only_pickled_code_in_pretrained_weights_runs(run_with_pickled_weights, mark, monkeypatch):
    load = torch.load
    monkeypatch.setattr(pretrained.torch, "load", lambda *a, **k: load(*a, **{**k, "weights_only": False}))
    resumed(run_with_pickled_weights)
    assert mark.exists()


@pytest.fixture
def elsewhere(run, tmp_path, monkeypatch):
    """A folder of pictures for the run; the user's own cache and data folders are others."""
    folder = tmp_path / "elsewhere"
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (folder / "pictures" / split / name).mkdir(parents=True)
            for index in range(4):
                Image.new("L", (28, 28), 40 * index).save(folder / "pictures" / split / name / f"{index}.png")
    (folder / "precious").mkdir()
    (folder / "precious" / "file").write_text("not to be touched")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("DEEPEXP_DATA", str(tmp_path / "own data"))
    cut_off_early(run)
    return folder


def folder_of_pictures(elsewhere: Path, cache: Path | None) -> dict[str, Any]:
    return {
        "_target_": "deepexp.data.image_folder.ImageFolder", "root": str(elsewhere / "pictures"), "size": None,
        "channels": None, "test_fraction": 0.2, "split_seed": 0, "cache": None if cache is None else str(cache),
        "mode": "auto", "workers": 0, "resize": None, "normalise": "channel", "subset": None, "replicate": 1,
    }  # fmt: skip


@pytest.mark.parametrize("where", ["precious", "new", None])
def test_pictures_are_not_decoded_into_a_folder_from_the_saved_config(run, elsewhere, tmp_path, capsys, where):
    tamper(run, data=folder_of_pictures(elsewhere, where and elsewhere / where), batch_size=4)
    before = everything_below(elsewhere)
    assert resumed(run) == 0, capsys.readouterr().err
    assert everything_below(elsewhere) == before
    assert list((tmp_path / "cache" / "deepexp").glob("*/*/train.npy"))


def test_without_the_guard_pictures_are_decoded_into_the_saved_folder(run, elsewhere, monkeypatch):
    tamper(run, data=folder_of_pictures(elsewhere, elsewhere / "precious"), batch_size=4)
    monkeypatch.setattr(ImageFolder, "keep_out_of", lambda self, places: None)
    assert resumed(run) == 0
    assert list((elsewhere / "precious").glob("*/*/train.npy"))


def test_a_cache_named_in_the_saved_config_is_read(run, elsewhere, tmp_path, monkeypatch, capsys):
    """Resuming one's own run must find its cache."""
    source = ImageFolder(
        root=elsewhere / "pictures",
        size=None,
        channels=None,
        test_fraction=0.2,
        split_seed=0,
        cache=str(tmp_path / "c"),
    )
    source.load()
    tamper(run, data=folder_of_pictures(elsewhere, tmp_path / "c"), batch_size=4)
    monkeypatch.setattr(picture_cache, "_build", None)
    assert resumed(run) == 0, capsys.readouterr().err


def test_pictures_are_decoded_beside_a_root_that_the_user_gives(run, elsewhere, capsys):
    tamper(run, data=folder_of_pictures(elsewhere, elsewhere / "precious"), batch_size=4)
    root = elsewhere / "pictures"
    assert cli.main(["train", f"resume={run}", f"data.root={root}"]) == 0, capsys.readouterr().err
    assert list((elsewhere / ".deepexp-cache").glob("*/*/train.npy"))
    assert len(list((elsewhere / "precious").iterdir())) == 1


@pytest.mark.parametrize(("name", "target"), [("mnist", "mnist.mnist"), ("cifar10", "cifar.cifar10")])
def test_nothing_is_downloaded_into_a_folder_from_the_saved_config(run, elsewhere, capsys, monkeypatch, name, target):
    monkeypatch.setattr(download, "_download", lambda path, *_: path.write_bytes(b"loaded"))
    common = {"mode": "auto", "workers": 0, "resize": None, "normalise": "channel", "subset": None, "replicate": 1}
    place = {"root": str(elsewhere / "precious"), "download": True}
    tamper(run, data={"_target_": f"deepexp.data.{target}", **place, **common})
    before = everything_below(elsewhere)
    assert resumed(run) == 2
    assert "give data.root=DIR" in capsys.readouterr().err
    assert everything_below(elsewhere) == before
    cli.main(["train", f"resume={run}", f"data.root={elsewhere / 'precious'}"])
    assert everything_below(elsewhere) != before  # without the guard, something would be written


def test_pickled_code_in_a_cache_of_pictures_is_not_run(tmp_path, mark):
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
def test_a_named_pipe_does_not_block(run, capsys, name):
    (run / name).unlink()
    os.mkfifo(run / name)
    assert resumed(run) == 2
    assert name in capsys.readouterr().err


@pytest.mark.parametrize("name", ["metrics.jsonl", "run.log", "provenance.json", "events.*", "checkpoints/previous.pt"])
def test_a_folder_in_place_of_a_file_is_refused_before_writing(run, capsys, name):
    for path in [*run.glob(name)] or [run / name]:
        path.unlink(missing_ok=True)
        path.mkdir()
    before = sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*") if path.name != ".lock")
    assert resumed(run) == 2
    assert "is a folder, and a run has a file there; remove it" in capsys.readouterr().err
    assert sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*") if path.name != ".lock") == before


def test_a_summary_cannot_be_moved_out_of_the_run(run, tmp_path, capsys):
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
