"""`deepexp eval`: its results against those that the run saved, and which files it leaves alone."""

import csv
import errno
import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import deepexp
from deepexp import checkpoint
from deepexp.commands import eval as module
from deepexp.commands.eval import main
from deepexp.data.digits import Digits
from deepexp.errors import InputError, RunFailed
from deepexp.inference.retest import Retest
from deepexp.run.rundir import RunDirectory

WORDS = ["threads=1", "device=cpu", "epochs=3", "data.normalise=scalar", "val_fraction=0.1", "ema=0.9"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return deepexp.train([*WORDS, f"output_dir={tmp_path_factory.mktemp('outputs')}"], quiet=True)


@pytest.fixture
def directory(trained, tmp_path):
    """A copy, for tests that change it."""
    return shutil.copytree(trained.directory, tmp_path / "run")


def found(capsys, *words):
    assert main([*words, "device=cpu", "json=true"]) == 0
    return json.loads(capsys.readouterr().out)


def state_of(directory):
    return {path: hashlib.sha256(path.read_bytes()).digest() for path in directory.rglob("*") if path.is_file()}


def test_eval_finds_the_test_results_of_the_run(trained, capsys):
    before = state_of(trained.directory)
    answer = found(capsys, f"run={trained.directory}")
    assert state_of(trained.directory) == before, "nothing of the run is changed"
    assert (answer["test_errors"], answer["test_samples"]) == (trained.test_errors, trained.test_samples)
    assert answer["test_loss"] == pytest.approx(trained.test_loss, rel=1e-6)
    assert (answer["step"], answer["epoch"], answer["averaged"]) == (trained.steps, 3, True)
    low, high = answer["test_error_interval"]
    assert low < answer["test_error_rate"] < high


def test_eval_finds_the_test_results_of_a_plain_loop(trained, capsys):
    """Pictures normalised by hand, with the mean and deviation of the training data; the model from Python."""
    training, test = Digits().load()  # includes validation data, which change mean and deviation a little
    answer = found(capsys, f"run={trained.directory}", "mistakes=1000")
    pixels, images = (
        F.interpolate(split.images, (28, 28), mode="bilinear", antialias=True).double() for split in (training, test)
    )
    images = ((images - pixels.mean()) / pixels.std()).float()
    with torch.inference_mode():
        logits = trained.model(images)
    assert answer["test_loss"] == pytest.approx(F.cross_entropy(logits, test.labels).item(), rel=0.02)
    cells = np.zeros((10, 10), int)
    for true, predicted in zip(test.labels.tolist(), logits.argmax(1).tolist(), strict=True):
        cells[true, predicted] += 1
    assert np.abs(cells - np.array(answer["confusion"])).sum() <= 4
    assert np.array(answer["confusion"]).sum(1).tolist() == test.labels.bincount().tolist()


def test_the_worst_mistakes_are_wrong_and_the_surest_first(trained, capsys):
    answer = found(capsys, f"run={trained.directory}", "mistakes=3")
    with np.load(trained.directory / "predictions.npz") as arrays:
        predicted, target = arrays["predicted"], arrays["target"]
    worst = answer["mistakes"]
    assert len(worst) == answer["test_errors"], "in JSON all of them"
    for one in worst:
        assert (one["predicted"], one["true"]) == (str(predicted[one["sample"]]), str(target[one["sample"]]))
        assert one["predicted"] != one["true"]
    sure = [one["probability"] for one in worst]
    assert sure == sorted(sure, reverse=True) and 0.1 <= sure[-1] <= sure[0] <= 1


def test_checkpoint_best_tests_other_weights(directory, capsys):
    checkpoints = directory / "checkpoints"
    shutil.copy(checkpoints / "previous.pt", checkpoints / "best.pt")
    last, best = found(capsys, f"run={directory}"), found(capsys, f"run={directory}", "checkpoint=best")
    assert (last["checkpoint"], best["checkpoint"]) == ("last.pt", "best.pt")
    assert best["step"] < last["step"] and best["test_loss"] != last["test_loss"]
    assert main([f"run={directory}", "checkpoint=best", "device=cpu"]) == 0
    assert "the run's own test" not in capsys.readouterr().out, "it was of other weights"


def test_the_text_has_rates_confusions_and_mistakes(trained, capsys):
    assert main([f"run={trained.directory}", "device=cpu", "mistakes=2"]) == 0
    out = capsys.readouterr().out
    rate = 100 * trained.test_error_rate
    assert f"test error   {rate:.2f}%  ({trained.test_errors} of 359; 95% interval " in out
    assert "mnist_net on digits, cpu (" in out and "averaged weights" in out
    assert "the run's own test took each sample for the same class as this one" in out
    rows = dict(re.findall(r"^(\d) +\d+ +(\d+) +[\d.]+%", out, re.M))
    assert len(rows) == 10 and sum(map(int, rows.values())) == trained.test_errors
    assert "true class (row)" in out
    assert len(out.partition("worst mistakes")[2].splitlines()) == 2 + 2


def test_differences_from_the_runs_own_test_are_counted(directory, capsys):
    with np.load(directory / "predictions.npz") as arrays:
        predicted, target = arrays["predicted"].copy(), arrays["target"]
    predicted[:2] = (predicted[:2] + 1) % 10
    np.savez(directory / "predictions.npz", predicted=predicted, target=target)
    assert main([f"run={directory}", "device=cpu"]) == 0
    assert "the run's own test took 2 samples for another class, on cpu (1 thread)" in capsys.readouterr().out


def test_an_unfinished_run_can_be_tested(directory, capsys):
    (directory / "summary.json").unlink()
    status = json.loads((directory / "status.json").read_text())
    (directory / "status.json").write_text(json.dumps({**status, "status": "killed-by-signal"}))
    assert main([f"run={directory}", "device=cpu"]) == 0
    out = capsys.readouterr().out
    assert "test error" in out and "the run's own test" not in out


def test_pictures_and_answers_are_written_once(trained, tmp_path, capsys):
    folder = tmp_path / "new" / "folder"
    assert main([f"run={trained.directory}", "device=cpu", f"to={folder}"]) == 0
    written = sorted(path.name for path in folder.iterdir())
    assert written == ["answers.csv", "confusion.png", "confusion.svg", "mistakes.png", "mistakes.svg"]
    with (folder / "answers.csv").open(newline="") as file:
        answers = list(csv.DictReader(file))
    with np.load(trained.directory / "predictions.npz") as arrays:
        assert [int(row["predicted"]) for row in answers] == arrays["predicted"].tolist()
        assert [int(row["true"]) for row in answers] == arrays["target"].tolist()
    capsys.readouterr()
    before = state_of(folder)
    with pytest.raises(InputError, match="is there and is not empty; give a new folder"):
        main([f"run={trained.directory}", "device=cpu", f"to={folder}"])
    assert state_of(folder) == before


def test_mistakes_on_picture_files_name_the_files(run, tmp_path, capsys, monkeypatch):
    """No cache is written beside the pictures: the config could be a stranger's."""
    generator = torch.Generator().manual_seed(0)
    for index in range(40):
        file = tmp_path / "data" / "ab"[index % 2] / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(0, 256, (8, 8, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(file)
    words = ["data=image_folder", f"data.root={tmp_path / 'data'}", "model=resnet", "model.depth=8", "epochs=1"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    result = run([*words, "data.test_fraction=0.5", "batch_size=10"])
    shutil.rmtree(tmp_path / ".deepexp-cache")
    answer = found(capsys, f"run={result.directory}", f"to={tmp_path / 'to'}")
    assert not (tmp_path / ".deepexp-cache").exists()
    assert answer["test_errors"] == result.test_errors > 0
    for one in answer["mistakes"]:
        assert one["file"].startswith(str(tmp_path / "data" / one["true"]))
    assert (tmp_path / "to" / "answers.csv").read_text().startswith("sample,true,predicted,probability,file\n0,a,")
    (tmp_path / "data").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    assert found(capsys, f"run={result.directory}", "data.root=moved")["test_errors"] == result.test_errors
    (tmp_path / "moved" / "a" / "0.png").unlink()
    with pytest.raises(InputError, match="are not those that the run was trained on"):
        main([f"run={result.directory}", "data.root=moved"])


def test_a_table_of_many_classes_has_those_with_the_highest_error_rates():
    """Of 40 classes with 10 samples each, class i has i // 4 errors, and one has no samples."""
    cells = np.diag(np.full(41, 10))
    for index in range(40):
        cells[index, index] -= index // 4
        cells[index, (index + 1) % 40] += index // 4
    cells[40, 40] = 0
    table = module._by_class(cells, [f"c{index}" for index in range(41)])
    assert len(table.rows) == 30 and table.caption == "and 10 more classes, with error rates of at most 20.00%"
    assert [row[0] for row in table.rows[:4]] == ["c36", "c37", "c38", "c39"]
    assert table.rows[0] == ["c36", "10", "9", "90.00%", "c37 (9)"]


def test_a_narrow_terminal_keeps_the_column_of_errors(trained, monkeypatch):
    target = torch.tensor([0, 1, 1])
    answers = Retest(
        torch.zeros(3, 1, 2, 2), target, torch.eye(2)[[0, 1, 0]], ("a" * 20, "b" * 20), None, 0.5, None, "fp32"
    )
    monkeypatch.setattr(module, "_what", lambda *_: [])
    monkeypatch.setattr(module, "_compared", lambda *_: None)
    for columns in (40, 80):
        lines = list(module._lines(None, answers, [2], "cpu", columns))
        table = [line for line in lines if line.startswith(("class", "aaaa", "bbbb"))][:3]
        assert max(map(len, table)) <= columns and any("50.00%" in line for line in table)
        assert any("(row)" in line for line in lines) is (columns == 80)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "run: of which run"),
        (["run="], "run: of which run"),
        (["run=nowhere"], "nowhere: there is nothing of that name"),
        (["somewhere"], "somewhere: is no KEY=VALUE; run=somewhere"),
        (["rum=x"], "rum: there is no such key (did you mean 'run'?)"),
        (["run=x", "checkpoint=first"], "checkpoint: 'first' is not allowed; 'last' or 'best'"),
        (["run=x", "mistakes=-1"], "mistakes: -1 is not allowed"),
        (["run=x", "data.root="], "data.root: is empty; give the folder that the data lie in"),
        (["run=x", "data_root=y"], "data_root: there is no such key (did you mean 'data.root'?)"),
    ],
)
def test_a_mistake_is_one_line(words, expected):
    with pytest.raises(InputError) as caught:
        main(words)
    assert expected in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_a_folder_above_a_run_and_a_missing_device_are_refused(trained):
    with pytest.raises(InputError, match=f"is no run; the first one below it is {trained.directory}"):
        main([f"run={trained.directory.parent}"])
    with pytest.raises(InputError, match="device: 'cuda:7'"):
        main([f"run={trained.directory}", "device=cuda:7"])
    for to in ("", str(trained.directory), str(trained.directory / "new")):
        with pytest.raises(InputError, match="is not allowed; a folder outside the run"):
            main([f"run={trained.directory}", f"to={to}"])


def test_checkpoint_best_needs_validation_data(directory):
    (directory / "checkpoints" / "best.pt").unlink()
    with pytest.raises(InputError, match=r"best\.pt: is not there; a run with val_fraction has one"):
        main([f"run={directory}", "checkpoint=best", "device=cpu"])


def test_batches_halved_for_lack_of_memory_count_each_sample_once(trained, capsys, monkeypatch):
    expected = found(capsys, f"run={trained.directory}")
    forward = deepexp.models.mnist_net.MnistNet.forward

    def short(self, x):
        if len(x) > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, x)

    monkeypatch.setattr(deepexp.models.mnist_net.MnistNet, "forward", short)
    assert found(capsys, f"run={trained.directory}")["confusion"] == expected["confusion"]


@pytest.mark.gpu
def test_on_a_gpu_eval_finds_the_test_results_of_the_run(run, capsys):
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    for precision in ("fp32", "tf32", "fp16"):
        result = run(["device=cuda", "epochs=2", f"precision={precision}"])
        assert main([f"run={result.directory}", "device=cuda", "json=true"]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert abs(answer["test_errors"] - result.test_errors) <= 1 and answer["precision"] == precision
        assert main([f"run={result.directory}", "device=cpu", "mistakes=0"]) == 0
        assert ("(trained in" in capsys.readouterr().out) is (precision != "fp32")


def test_a_folder_that_cannot_be_written_is_refused_before_testing(trained, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("deepexp.inference.retest.retest", None)
    for to in (tmp_path / "file", tmp_path / "file" / "folder", tmp_path / ("x" * 300)):
        with pytest.raises(InputError, match="to: cannot write into "):
            main([f"run={trained.directory}", f"to={to}"])


def test_files_begun_on_a_full_disk_are_removed(trained, tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(module, "write_text", full)
    with pytest.raises(RunFailed, match="make room there, or choose another place with to=DIR"):
        main([f"run={trained.directory}", f"to={tmp_path / 'to'}", "device=cpu"])
    assert not (tmp_path / "to").exists()
    (tmp_path / "there").mkdir()
    with pytest.raises(RunFailed):
        main([f"run={trained.directory}", f"to={tmp_path / 'there'}", "device=cpu"])
    assert list((tmp_path / "there").iterdir()) == [], "it was there before"


def test_foreign_files_are_not_removed_after_a_full_disk(trained, tmp_path, monkeypatch):
    def full(path, data):
        (tmp_path / "to" / "theirs").write_text("")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(module, "write_text", full)
    with pytest.raises(RunFailed):
        main([f"run={trained.directory}", f"to={tmp_path / 'to'}", "device=cpu"])
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["theirs"]


def test_the_later_of_two_evals_into_one_folder_replaces_nothing(trained, tmp_path, monkeypatch, capsys):
    folder, first = tmp_path / "to", tmp_path / "to" / "answers.csv"

    def slow(path, text):
        path.write_text(text)
        first.write_text("of the other")  # another eval has ended meanwhile

    monkeypatch.setattr(module, "write_text", slow)
    with pytest.raises(InputError, match="is there and is not empty"):
        main([f"run={trained.directory}", f"to={folder}", "device=cpu"])
    assert "written" not in capsys.readouterr().out
    assert [path.name for path in folder.iterdir()] == ["answers.csv"] and first.read_text() == "of the other"


def test_of_two_evals_that_end_at_once_only_one_writes(trained, tmp_path, monkeypatch, capsys):
    first, check = tmp_path / "to" / "answers.csv", module._check_empty

    def checked(folder):
        check(folder)
        if list(folder.iterdir()):  # results are being written: another eval puts its own there right after the check
            first.write_text("of the other")

    monkeypatch.setattr(module, "_check_empty", checked)
    with pytest.raises(InputError, match="is there and is not empty"):
        main([f"run={trained.directory}", f"to={tmp_path / 'to'}", "device=cpu"])
    assert "written" not in capsys.readouterr().out
    assert list(first.parent.iterdir()) == [first] and first.read_text() == "of the other"


def test_after_an_eval_killed_while_writing_the_next_can_write(trained, tmp_path):
    script = (
        "import os, signal; from deepexp.commands import eval as module; "
        "module.write_text = lambda *_: os.kill(os.getpid(), signal.SIGKILL); "
        f"module.main(['run={trained.directory}', 'to={tmp_path / 'to'}', 'device=cpu'])"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == -signal.SIGKILL
    assert not any(path.is_file() for path in (tmp_path / "to").iterdir()), "all or nothing"
    assert main([f"run={trained.directory}", f"to={tmp_path / 'to'}", "device=cpu"]) == 0
    assert sorted(path.name for path in (tmp_path / "to").iterdir()) == [
        *("answers.csv", "confusion.png", "confusion.svg", "mistakes.png", "mistakes.svg")
    ]


def test_a_run_without_a_checkpoint_says_so(directory):
    shutil.rmtree(directory / "checkpoints")
    with pytest.raises(InputError, match="has no checkpoint; none was saved, or they were removed"):
        main([f"run={directory}", "device=cpu"])
    run = RunDirectory(directory)
    run.lock()
    try:
        with pytest.raises(InputError, match="is running, and has saved no checkpoint yet"):
            main([f"run={directory}", "device=cpu"])
    finally:
        run.unlock()


@pytest.mark.parametrize(
    "change",
    [
        {"shape": None},
        {"shape": [1, 28]},
        {"classes": None},
        {"progress": {"step": "x"}},
        {"pictures": {}},
        {"pictures": {"shape": [1, 8]}},
        {"pictures": {"shape": [1, -8, 8]}},
        {"pictures": {"mean": None}},
        {"pictures": {"mean": torch.zeros(3)}},
        {"pictures": {"std": torch.zeros(1)}},
        {"pictures": {"classes": ["a"]}},
    ],
    ids=repr,
)
def test_a_checkpoint_that_does_not_fit_the_model_is_refused(directory, change):
    path = directory / "checkpoints" / "last.pt"
    content = checkpoint.load(path)
    (name, value), *_ = change.items()
    content[name] = {**content[name], **value} if isinstance(value, dict) and value else value
    checkpoint.save(path, content)
    with pytest.raises(InputError, match=r"last\.pt: does not fit the model of "):
        main([f"run={directory}", "device=cpu"])


def test_a_loss_that_is_not_finite_is_null_in_json(directory, capsys):
    path = directory / "checkpoints" / "last.pt"
    content = checkpoint.load(path)
    content["ema"] = None
    content["model"]["fc2.weight"].mul_(1e38)
    checkpoint.save(path, content)
    assert main([f"run={directory}", "device=cpu", "json=true"]) == 0
    answer = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert answer["test_loss"] is None


def test_a_run_with_damaged_predictions_can_be_tested(directory, capsys):
    (directory / "predictions.npz").write_bytes(b"PK")
    assert main([f"run={directory}", "device=cpu"]) == 0
    assert "it cannot be compared with the run's own test: " in capsys.readouterr().out
