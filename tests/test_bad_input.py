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
    """The message of `deepexp train`, which must refuse these words and write nothing."""
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
        ([f"model={'a' * 300}"], ["model: 'aaaa", "is not allowed; one of mnist_net"]),
        (["optmi=adam"], ["optmi", "did you mean 'optim'?"]),
        (["lr=0.1"], ["lr", "did you mean 'optim.lr'?"]),
        (["batch_size=0"], ["batch_size: 0 is not allowed; a whole number ≥ 1 or 'full'"]),
        (["batch_size=abc"], ["batch_size: 'abc' is not allowed; a whole number ≥ 1 or 'full'"]),
        (["batch_size=5000"], ["batch_size: 5000 is more than the 1,438 training samples; at most 1438, or full"]),
        (["dropout=1.5"], ["dropout: 1.5 is not allowed; a number ≥ 0.0 and < 1.0 or null"]),
        (["val_fraction=1"], ["val_fraction: 1 is not allowed"]),
        (["device=cuda:7"], ["device: 'cuda:7' is not there", "allowed here: auto, cpu"]),
        (["device=gpu"], ["device: 'gpu' is no device", "auto, cpu"]),
        (["device=cpu", "precision=fp16"], ["precision: fp16 is for CUDA devices"]),
        (
            ["model=monster", "data=synthetic", "model.pretrained=none.pt"],
            ["model.pretrained: none.pt cannot be read (No such file"],
        ),
        (["data.resize=8"], ["model: ", "8x8", "22x22"]),
        (["data.normalise=imagenet"], ["data.normalise: imagenet is for pictures of 3 channels, and the model"]),
        (["optim.lr=-1"], ["optim.lr: -1 is not allowed; a number ≥ 0\n"]),
        (["optim=adamw", "optim.betas=[0.9]"], ["[0.9] is not allowed (2 values are", "default is [0.9, 0.999]"]),
        (["optim=nesterov", "optim.momentum=0"], ["optim.nesterov: true is not allowed", "requires a momentum"]),
        (["~optim"], ["optim: is missing or empty; choose an option of this group that has a _target_"]),
        (["optim.lr=abc"], ["optim.lr: 'abc' is not allowed; a number"]),
        (["optim.groups=[{pattern: fcc.*, lr_mult: 2}]"], ["optim.groups[0]", "fcc.*"]),
        (["optim.groups=[{pattern: fc1.*, wieght_decay: 2}]"], ["wieght_decay", "did you mean 'weight_decay'?"]),
        (["optim.groups.foo=1"], ["optim.groups.foo: optim.groups is a list", "set all of it with optim.groups=[…]"]),
        (["optim.groups.0.lr_mult=0.1"], ["optim.groups is a list without such an element"]),
        (["optim={lr: 0.1, nme: sgd}"], ["optim.nme: there is no such key", "an option is chosen as optim=NAME"]),
        (
            ["checkpoint={every: 1}"],
            ["checkpoint.every: there is no such key (did you mean 'checkpoint.every_minutes'?)"],
        ),
        (["model={input: {wide: 1}}"], ["model.input.wide: there is no such key; model.input has channels, height"]),
        (["freeze=[{pattern: nothing.*, share: 0.5}]"], ["freeze[0]", "nothing.*"]),
        (["schedule.warmup=100000"], ["schedule: ", "warmup", "100000"]),
        (["optim=lbfgs", "optim.groups=[{pattern: fc1.*, lr_mult: 2}]"], ["optim.groups", "LBFGS"]),
        (["model=torchvision", "model.name=resnet18", "batch_norm=false"], ["batch_norm"]),
        (["model=resnet", "batch_size=full"], ["batch_size: full", "batch normalisation", "batch_norm=false"]),
        (["model=resnet", "on_oom=halve"], ["on_oom: halve", "batch normalisation"]),
        (["model=resnet", "model.depth=21"], ["model: depth", "21"]),
        (["data.subset=5000"], ["data.subset: 5000 is more than the 1,438 training samples; at most 1438"]),
        (["data=synthetic", "data.classes=1"], ["data: the only class is '0', and a model tells at least two apart"]),
        (["hydra.sweeper.samples=3"], ["hydra.sweeper.samples: is for a sweep; add -m"]),
        (["hydra.run.dir=there"], ["hydra.run.dir: has no effect; output_dir and name say where runs lie"]),
        (["hydra.job.chdir=true"], ["hydra.job.chdir: has no effect; a run stays in the folder that it"]),
        (["hydra/job_logging=none"], ["hydra/job_logging: has no effect; the whole log of a run is in its run.log"]),
        (["hydra.verbose=true"], ["hydra.verbose: has no effect; the whole log of a run is in its run.log"]),
        (["-m", "seed=0,1", "hydra.searchpath=[file://x]"], ["hydra.searchpath: has no effect; options of your"]),
        (["+hydra.job.env_set.A=1"], ["hydra.job.env_set.A: has no effect; of Hydra's own keys, those of"]),
        (["-m", "hydra/output=default", "seed=0,1"], ["hydra/output: has no effect; of Hydra's own keys"]),
        (["+hydra.callbacks.mine._target_=mine.Mine"], ["hydra.callbacks.mine._target_: is for a sweep; add -m"]),
        (["-m", "hydra.sweep.dir=there", "seed=0,1"], ["hydra.sweep.dir: has no effect; output_dir and name say"]),
        (["hydra/launcher=basic"], ["hydra/launcher: is for a sweep; add -m"]),
        (["resume="], ["resume: is empty; give the directory"]),
        (["-m", "resume="], ["resume: is empty; give the directory"]),
        (["-m", "resume=choice(a,b)"], ["resume=choice(a,b): takes one run or sweep at a time"]),
        (["freeze=[{pattern: '*'}]"], ["freeze[0]: needs either share or epochs"]),
        (["early_stop=3"], ["early_stop: needs validation data"]),
        (["init_from="], ["init_from: is empty; give a run or a file of weights, or leave it out"]),
        (["output_dir="], ["output_dir: is empty; give a folder"]),
        (["resume=~nosuchuser/x"], ["~nosuchuser/x is not a run: there is nothing of that name"]),
        (["data=mnist", "data.download=false", "data.root=~nosuchuser/x"], ["~nosuchuser/x"]),
        (["augment=mixup", "augment.alpha=-1"], ["augment: alpha", "-1"]),
        (["freeze=[{pattern: '*', share: 1.0}]"], ["freeze: every parameter is frozen"]),
        (["batch_size=1", "batch_norm=true"], ["batch_size: 1 leaves batch normalisation"]),
        (["batch_size=1", "model=resnet", "model.family=imagenet", "model.depth=18"], ["batch_size: 1 leaves batch"]),
        (["seed=99999999999999999999999"], ["seed: 99999999999999999999999 is not allowed"]),
        (["accumulate=50"], ["accumulate: an update of 5,000 samples is more than the 1,438 training samples"]),
        (["+new=1"], ["new"]),
        (["epochs"], ["epochs", "KEY=VALUE"]),
        (["batch_size=10,100"], ["several values", "-m"]),
        (["-x"], ["-x: there is no such flag"]),
        (["name=a/b", "dry_run=true"], ["name: 'a/b' is not allowed; the name of one folder, without a slash"]),
        (["dropout=50%"], ["dropout: '50%' is not allowed; a number ≥ 0.0 and < 1.0 or null"]),
        (["batch_norm=yes"], ["batch_norm: 'yes' is not allowed; true or false or null"]),
        (["-m", "batch_norm=choice(true, null)"], ["batch_norm: choice() takes no null; give the values with commas"]),
        (["~dropout"], ["dropout: is null as it is, and nothing to delete; leave it out"]),
        (["+model.dropot=0.5"], ["model.dropot: deepexp.models.mnist_net.MnistNet takes no argument of this name"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and "=" in value[0] else None,
)
def test_a_mistake_gets_a_clear_line(here, capsys, words, expected):
    text = refused(capsys, *words)
    for part in expected:
        assert part in text
    assert len(text.strip().splitlines()) == 1


def test_all_mistakes_are_reported_together(here, capsys):
    text = refused(capsys, "batch_size=0", "dropout=2", "data.mode=nowhere")
    assert len(text.strip().splitlines()) == 3
    text = refused(capsys, "data.resize=8", "optim.lr=-1", "freeze=[{pattern: x, share: 1.0}]", "device=cuda:9")
    assert len(text.strip().splitlines()) >= 3
    # Checks across keys need right values, but arguments of parts are checked all the same.
    text = refused(capsys, "seed=1.5", "optim.lr=fast", "model.dropout=high", "optim._target_=3")
    assert keys_in(text) == ["model.dropout", "optim._target_", "seed"]
    text = refused(capsys, "seed=1.5", "optim.lr=fast")
    assert "seed: 1.5 is not allowed" in text and "optim.lr: 'fast' is not allowed; a number" in text
    text = refused(capsys, "seed=1.5", "optim.lr=-1", "optim.momentum=-1", "augment=mixup", "augment.alpha=-1")
    assert keys_in(text) == ["augment", "optim.lr", "optim.momentum", "seed"]
    text = refused(capsys, "data=synthetic", "data.subset=60", "ema=1", "device=tpu", "early_stop=2")
    assert keys_in(text) == ["batch_size", "device", "early_stop", "ema"]
    text = refused(capsys, "optm=adam", "optim.foo=3", "ema=1", "device=tpu", "freeze=[{pattern: x, share: 1.0}]")
    assert keys_in(text) == ["device", "ema", "freeze[0].pattern", "optim.foo", "optm"]


def keys_in(text: str) -> list[str]:
    return sorted(line.removeprefix("deepexp: ").split(": ")[0] for line in text.strip().splitlines())


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["val_fraction=1.5", "early_stop=3"], "val_fraction"),
        (["batch_size=0", "data.subset=50", "model=resnet"], "batch_size"),
        (["epochs=0", "schedule.warmup=500"], "epochs"),
        (["optim.groups=5"], "optim.groups"),
        (["optim.groups=[5]"], "optim.groups[0]"),
        (["checkpoint=5"], "checkpoint"),
        (["data=mnits", "batch_size=5000"], "data"),
        (["data.subset=-1", "batch_size=5000"], "data.subset"),
        (["model=monstre", "data.resize=8"], "model"),
        (["epohcs=3", "schedule.warmup=500"], "epohcs"),
    ],
)
def test_keys_that_depend_on_a_wrong_value_are_not_reported(here, capsys, words, key):
    (line,) = refused(capsys, *words).strip().splitlines()
    assert line.startswith(f"deepexp: {key}: ")


def test_a_reason_of_several_lines_is_cut_at_its_first_full_stop(here, capsys):
    (here / "conf" / "optim").mkdir(parents=True)
    (here / "conf" / "optim" / "evil.yaml").write_text("# x\n_target_: os.system\n_partial_: true\ncommand: ls\n")
    text = refused(capsys, "data=synthetic", "optim=evil")
    assert "it allows config data to control executable behavior or belongs to an execution-capable" in text


def test_a_folder_name_may_begin_with_a_tilde(run, here):
    result = run(["data=synthetic", "data.subset=60", "batch_size=60", "epochs=1", "output_dir=~nosuchuser/x"])
    assert result.directory.is_relative_to(here / "~nosuchuser" / "x")


def test_a_data_root_that_is_a_file_is_refused(here, capsys):
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
def test_a_read_only_output_folder_is_refused(here, capsys):
    (here / "locked").mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
    assert "locked" in refused(capsys, "output_dir=locked")


def test_an_output_folder_that_is_a_file_is_refused(here, capsys):
    (here / "taken").write_text("a file")
    assert "taken" in refused(capsys, "output_dir=taken")


def test_resuming_a_folder_that_is_no_run_is_refused(here, capsys):
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


def make_pictures(root: Path) -> None:
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for index in range(2):
                write_picture(root / split / name / f"{index}.png")


PICTURES = ["data=image_folder", "data.root=pictures", "model=resnet", "batch_size=2", "device=cpu", "threads=1"]


def enormous(path: Path) -> None:
    from PIL import Image

    Image.new("1", (10_000, 10_000)).save(path)


def with_nan(path: Path) -> None:
    import numpy as np
    from PIL import Image

    Image.fromarray(np.full((40, 40), np.nan, np.float32)).save(path)


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def cut_short(path: Path) -> None:
    write_picture(path)
    path.write_bytes(path.read_bytes()[:-200])


def closed(path: Path) -> None:
    if os.name == "nt" or os.geteuid() == 0:
        pytest.skip("root may read everything")
    write_picture(path)
    path.chmod(0)


@pytest.mark.parametrize("name", ["0.png", "9.tif"], ids=["first", "later"])
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (enormous, "too large, scale it down"),
        (with_nan, "32 bits a pixel"),
        (loop, "Too many levels of symbolic links"),
        (cut_short, "truncated"),
        (closed, "Permission denied"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_a_picture_that_cannot_be_used_is_named(here, capsys, make, expected, name):
    make_pictures(here / "pictures")
    path = here / "pictures" / "train" / "cat" / name
    path.unlink(missing_ok=True)
    if make is with_nan:
        path = path.with_suffix(".tif")
    elif name != "0.png":
        path = path.with_suffix(".png")
    make(path)
    text = refused(capsys, *PICTURES)
    assert str(path.relative_to(here)) in text and expected in text, text


def test_links_in_a_circle_end(here, capsys):
    make_pictures(here / "pictures")
    (here / "pictures" / "train" / "cat" / "again").symlink_to(here / "pictures" / "train")
    assert cli.main(["train", *PICTURES, "epochs=1", "model.depth=8", "model.width=2"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("split", ["train", "test"])
def test_classes_that_do_not_fit_are_named(here, capsys, split):
    make_pictures(here / "pictures")
    folder = here / "pictures" / split / "cow"
    folder.mkdir()
    if split == "test":
        write_picture(folder / "0.png")
    text = refused(capsys, *PICTURES)
    assert str(folder.relative_to(here)) in text
    assert ("is a class, and this one has no pictures" if split == "train" else "training has no such class") in text


SOURCE = """
import torch
from deepexp.data.source import DataInfo, Split

class Mine:
    def info(self):
        return DataInfo((1, 28, 28), tuple("abc"), 30, 9)

    def load(self):
        pixels, labels = torch.zeros(30, 1, 28, 28, dtype=torch.uint8), torch.arange(30) % 3
        train, test = Split(pixels, labels), Split(pixels[:9], labels[:9])
        {change}
        return train, test
"""


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("train = Split(pixels.float() * float('nan'), labels)", "training data: pictures torch.float32"),
        ("train = Split(pixels[:, 0], labels)", "(30, 28, 28)"),
        ("train = Split(pixels[:, :, :20], labels)", "shape (1, 20, 28)"),
        ("train = Split(pixels, labels + 1)", "labels from 1 to 3; for 3 classes 0 to 2 are allowed"),
        ("test = Split(pixels[:9], labels[:9] - 1)", "test data: labels from -1 to 1"),
        ("train = Split(pixels, labels.float())", "labels torch.float32"),
        ("train = Split(pixels, labels[:20])", "30 pictures of shape (1, 28, 28) with 20 labels"),
        ("train = Split(pixels, labels % 2)", "test data: no training samples of 1 class (c)"),
        ("train = Split(pixels.numpy(), labels)", "training data: the source gives a Split of ndarray and Tensor"),
        ("train = Split(pixels, labels.tolist())", "a Split of Tensor and list"),
        ("test = None", "test data: the source gives a NoneType"),
        ("test = Split(pixels[:0], labels[:0])", "test data: 0 pictures"),
    ],
)
def test_wrong_data_of_a_users_source_are_refused(here, capsys, monkeypatch, change, expected):
    module = f"source_{abs(hash(change))}"  # each its own, since modules are imported once
    (here / f"{module}.py").write_text(SOURCE.format(change=change))
    monkeypatch.syspath_prepend(here)
    (here / "conf" / "data").mkdir(parents=True)
    (here / "conf" / "data" / "mine.yaml").write_text(f"# Mine\n_target_: {module}.Mine\n")
    text = refused(capsys, "data=mine", "batch_size=10", "threads=1", "device=cpu")
    assert expected in text and len(text.strip().splitlines()) == 1, text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("_target_: deepexp.models.mnist_net.MnistNet\ndropout: [1]\nbatch_norm: null\n", "model.dropout"),
        ("_target_: deepexp.models.mnist_net.MnistNet\ninput: 3\n", "model"),
        ("_target_: 7\n", "_target_"),
        ("_target_: deepexp.models.mnist_net.MnistNett\n", "MnistNett"),
        ("hidden: 3\n", "_target_"),
        ("_target_: torch.nn.Linear\nin_feature: 9\n", "model.in_feature: torch.nn.Linear takes no argument of this"),
        ("a: 1\n\tb: 2\n", "conf/model/mine.yaml:3: a tab stands where only blanks may"),
        ("a: 1\na: 2\n", "conf/model/mine.yaml:3: found duplicate key a"),
        ("a: ${.b}\nb: ${.a}\n", "conf/model/mine.yaml:2: model.a: ${.b} cannot be resolved: Recursive"),
        ("a: ${model}\n", "model.a"),
        ("defaults:\n  - /modell: resnet\n", "conf/model/mine.yaml:3: there is no modell/resnet"),
        ("- 1\n", "conf/model/mine.yaml: is a list"),
    ],
)
def test_a_wrong_yaml_of_the_user_is_named(here, capsys, text, expected):
    (here / "conf" / "model").mkdir(parents=True)
    (here / "conf" / "model" / "mine.yaml").write_text(f"# Mine\n{text}")
    said = refused(capsys, "model=mine")
    assert expected in said.replace("\\", "/"), said


def test_an_option_file_with_another_ending_is_named(here, capsys):
    (here / "conf" / "model").mkdir(parents=True)
    (here / "conf" / "model" / "mine.yml").write_text("# Mine\n_target_: mine.Mine\n")
    said = refused(capsys, "model=mine")
    assert "mine.yml is not read, as files of options end in .yaml; rename it" in said


def test_a_run_under_torchrun_is_refused(here, capsys, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "2")
    text = refused(capsys, "data=synthetic")
    assert "torchrun: started 2 processes, and a run of deepexp has one; start deepexp without torchrun" in text


def test_all_unknown_arguments_of_a_model_are_named(here, capsys):
    first, second = refused(capsys, "+model.dropot=0.5", "+model.other=1").strip().splitlines()
    assert "model.dropot: " in first
    assert "model.other: " in second
