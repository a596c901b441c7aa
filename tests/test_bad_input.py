"""A user's mistakes: one clear message each, no traceback, the right exit status, and nothing left behind."""

import os
import stat
from pathlib import Path

import pytest

from deepexp import cli


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys, *words: str, status: int = 2) -> str:
    """What `deepexp train` says about these words, having refused them."""
    assert cli.main(["train", *words]) == status
    streams = capsys.readouterr()
    text = streams.out + streams.err
    assert "Traceback" not in text
    assert not list(Path("outputs").glob("*/*")), "a run directory was left behind"
    return text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["model=monstre"], ["model", "'monstre'", "did you mean 'monster'?", "resnet"]),
        (["optmi=adam"], ["optmi", "did you mean 'optim'?"]),
        (["lr=0.1"], ["lr", "did you mean 'optim.lr'?"]),
        (["batch_size=0"], ["batch_size: 0 is not allowed; a whole number ≥ 1 or 'full'"]),
        (["batch_size=abc"], ["batch_size: 'abc' is not allowed; a whole number ≥ 1 or 'full'"]),
        (["batch_size=5000"], ["batch_size: 5000 is more than the 1438 training samples"]),
        (["dropout=1.5"], ["dropout: 1.5 is not allowed; a number ≥ 0.0 and < 1.0 or null"]),
        (["val_fraction=1"], ["val_fraction: 1 is not allowed"]),
        (["device=cuda:7"], ["device: 'cuda:7' is not there", "allowed here: auto, cpu"]),
        (["device=gpu"], ["device: 'gpu' is no device", "auto, cpu"]),
        (["device=cpu", "precision=fp16"], ["precision: fp16 is for CUDA devices"]),
        (["data.resize=8"], ["model: ", "8x8", "22x22"]),
        (["optim.lr=-1"], ["optim: ", "learning rate", "-1"]),
        (["optim.lr=abc"], ["optim.lr: 'abc' is not allowed; a number"]),
        (["optim.groups=[{pattern: fcc.*, lr_mult: 2}]"], ["optim.groups[0]", "fcc.*"]),
        (["optim.groups=[{pattern: fc1.*, wieght_decay: 2}]"], ["wieght_decay", "did you mean 'weight_decay'?"]),
        (["freeze=[{pattern: nothing.*, share: 0.5}]"], ["freeze[0]", "nothing.*"]),
        (["schedule.warmup=100000"], ["schedule: ", "warmup", "100000"]),
        (["optim=lbfgs", "optim.groups=[{pattern: fc1.*, lr_mult: 2}]"], ["optim.groups", "LBFGS"]),
        (["model=torchvision", "model.name=resnet18", "batch_norm=false"], ["batch_norm"]),
        (["model=resnet", "batch_size=full"], ["batch_size: full", "batch normalisation", "batch_norm=false"]),
        (["model=resnet", "on_oom=halve"], ["on_oom: halve", "batch normalisation"]),
        (["model=resnet", "model.depth=21"], ["model: depth", "21"]),
        (["data.subset=5000"], ["data.subset: 5000 is more than the 1438"]),
        (["early_stop=3"], ["early_stop: needs validation data"]),
        (["augment=mixup", "augment.alpha=-1"], ["augment: alpha", "-1"]),
        (["freeze=[{pattern: '*', share: 1.0}]"], ["freeze: every parameter is frozen"]),
        (["batch_size=1", "batch_norm=true"], ["batch_size: 1 leaves batch normalisation"]),
        (["optim=adam", "optim.betas=[0.9]"], ["optim: ", "index"]),
        (["seed=99999999999999999999999"], ["seed: 99999999999999999999999 is not allowed"]),
        (["accumulate=50"], ["accumulate: an update of 5000 samples", "1438"]),
        (["+new=1"], ["new"]),
        (["epochs"], ["epochs", "KEY=VALUE"]),
        (["batch_size=10,100"], ["several values", "-m"]),
        (["-x"], ["-x: there is no such flag"]),
        (["name=a/b"], ["name", "a/b"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and "=" in value[0] else None,
)
def test_a_mistake_gets_a_clear_line(here, capsys, words, expected):
    text = refused(capsys, *words)
    for part in expected:
        assert part in text
    assert len(text.strip().splitlines()) == 1


def test_all_mistakes_are_told_together(here, capsys):
    text = refused(capsys, "batch_size=0", "dropout=2", "data.mode=nowhere")
    assert len(text.strip().splitlines()) == 3
    text = refused(capsys, "data.resize=8", "optim.lr=-1", "freeze=[{pattern: x, share: 1.0}]", "device=cuda:9")
    assert len(text.strip().splitlines()) >= 3


def test_a_data_root_that_is_a_file(here, capsys):
    (here / "data").write_text("not a folder")
    assert "data" in refused(capsys, "data=mnist", "data.root=data")
    assert str(here / "data") in refused(capsys, "data=image_folder", f"data.root={here / 'data'}")


def test_an_unreadable_picture_is_named(here, capsys):
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            folder = here / "pictures" / split / name
            folder.mkdir(parents=True)
            for index in range(2):
                write_picture(folder / f"{index}.png")
    (here / "pictures" / "train" / "dog" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    text = refused(capsys, "data=image_folder", "data.root=pictures", "model=resnet", "batch_size=2")
    assert "broken.png" in text


def write_picture(path: Path) -> None:
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(len(str(path))).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def test_a_truncated_mnist_file_is_named(here, capsys, real_data):
    raw = here / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in (real_data / "MNIST" / "raw").glob("*-ubyte"):
        (raw / file.name).write_bytes(file.read_bytes()[: 100_000 if "train-images" in file.name else None])
    assert "train-images-idx3-ubyte" in refused(capsys, "data=mnist", "data.root=data")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_folder_that_is_read_only(here, capsys):
    (here / "locked").mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
    assert "locked" in refused(capsys, "output_dir=locked")


def test_an_output_folder_that_is_a_file(here, capsys):
    (here / "taken").write_text("a file")
    assert "taken" in refused(capsys, "output_dir=taken")


def test_resuming_what_is_no_run(here, capsys):
    (here / "folder").mkdir()
    assert "folder is not a run" in refused(capsys, "resume=folder")
    assert "nothing of that name" in refused(capsys, "resume=nowhere")


@pytest.mark.parametrize("name", ["a b", "ü", "x=1,y", "(1)", "#", "~/d", "it's", "a\\b"])
def test_folders_of_any_name_work(here, capsys, monkeypatch, name):
    monkeypatch.setenv("HOME", str(here / "home"))
    words = ["data.subset=100", "epochs=1", "threads=1", "device=cpu", f"output_dir={name}", f"data.root={name}"]
    assert cli.main(["train", *words]) == 0, capsys.readouterr().err
    (run,) = Path(os.path.expanduser(name)).glob("mnist_net/*")
    assert cli.main(["train", f"resume={run}"]) == 0
