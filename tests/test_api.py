"""deepexp from Python: accepted arguments, results, and that runs do not affect each other."""

import copy
import pickle
import threading
import traceback
from pathlib import Path

import pytest

import deepexp
from deepexp.errors import InputError, Interrupted, RunFailed
from deepexp.result import Result
from deepexp.sweep.command import run_sweep
from deepexp.text.console import Console

SMALL = ["data.subset=100", "epochs=1", "threads=1", "device=cpu"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("model=resnet", "overrides: 'model=resnet' is not allowed; a list of words"),
        ([1], r"overrides: \[1\] is not allowed; a list of words"),
        (None, "overrides: None is not allowed; a list of words"),
        (3, "overrides: 3 is not allowed; a list of words"),
        ({"epochs": "1"}, "overrides: {'epochs': '1'} is not allowed; a list of words"),
        ({"epochs=1"}, "overrides: {'epochs=1'} is not allowed; a list of words"),
        (["-m", "seed=0,1"], "-m: flags are for the command line; here a sweep is a loop over deepexp.train"),
        (["seed=0,1"], "seed: 0,1 is several values; deepexp train -m runs them all"),
    ],
)
def test_arguments_that_are_no_list_of_overrides_are_refused(words, expected):
    with pytest.raises(InputError, match=expected) as caught:
        deepexp.train(words)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("wanted", ["0", "1"])
def test_the_traceback_of_a_mistake_ends_in_deepexp_train_unless_more_is_wanted(monkeypatch, wanted):
    monkeypatch.setenv("HYDRA_FULL_ERROR", wanted)
    with pytest.raises(InputError) as caught:
        deepexp.train(["epoch=3"])
    shown = traceback.format_exception(caught.value)
    assert shown[-1] == "deepexp.errors.InputError: epoch: there is no such key (did you mean 'epochs'?)\n"
    assert (
        len(traceback.extract_tb(caught.value.__traceback__)) == 2 if wanted == "0" else "compose.py" in "".join(shown)
    )
    assert ("direct cause" in "".join(shown)) is (wanted == "1")


def test_overrides_may_be_an_iterator(tmp_path):
    words = [*SMALL, "model=mnist_net", "seed=7", "batch_size=50", f"output_dir={tmp_path}"]
    result = deepexp.train(iter(words), quiet=True)
    assert (result.seed, result.epochs, result.steps, result.directory.parents[1]) == (7, 1, 2, tmp_path)


@pytest.mark.parametrize("directory", [None, 3, b"runs", ["runs"]])
def test_arguments_that_are_no_path_of_a_run_are_refused(directory):
    with pytest.raises(InputError, match="is not allowed; the path of a run directory"):
        deepexp.load_run(directory)


def test_the_directory_of_a_sweep_is_told_from_that_of_a_run(tmp_path):
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(InputError, match="is a sweep; give the directory of one of the runs in it"):
        deepexp.load_run(tmp_path)


def test_all_finished_runs_of_a_sweep_are_loaded_with_their_configs_in_the_order_of_its_grid(tmp_path, caplog):
    words = [*SMALL, f"output_dir={tmp_path}", "optim.lr=0.2,0.1", "seed=0,1", "hydra.launcher.jobs=1"]
    sweep = run_sweep(words, Console("quiet"))
    found = deepexp.load_runs(sweep.directory)
    points = [(run.config["optim"]["lr"], run.config["seed"]) for run in found]
    assert points == [(0.2, 0), (0.2, 1), (0.1, 0), (0.1, 1)] and not caplog.records
    assert [run.summary for run in found] == [deepexp.load_run(run.directory).summary for run in found]
    assert [run.seed for run in deepexp.load_runs(str(tmp_path), found[0].directory)] == [0, 1, 0, 1]
    (found[1].directory / "summary.json").unlink()
    (found[3].directory / "status.json").write_text('{"format": 1, "status": "failed", "reason": "x"}')
    assert [run.directory for run in deepexp.load_runs(tmp_path)] == [found[0].directory, found[2].directory]
    (record,) = caplog.records
    assert "2 runs without a result: " in record.getMessage() and str(found[3].directory) in record.getMessage()


@pytest.mark.parametrize("paths", [[], [None], ["."], ["nowhere"], [["a"]]], ids=repr)
def test_paths_without_runs_are_refused(paths, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError):
        deepexp.load_runs(*paths)


def test_a_run_that_was_cut_off_names_the_way_to_go_on(tmp_path):
    (tmp_path / "status.json").write_text("{}")
    with pytest.raises(InputError, match=r"has not finished .*; if it was cut off, deepexp\.train\(\['resume="):
        deepexp.load_run(tmp_path)


@pytest.mark.parametrize("raised", [RunFailed("diverged"), Interrupted(2, "stopped"), ValueError("a bug")], ids=repr)
def test_an_error_has_the_directory_of_its_run(tmp_path, monkeypatch, raised):
    def fit(trainer):
        raise raised

    monkeypatch.setattr("deepexp.trainer.Trainer.fit", fit)
    with pytest.raises((RunFailed, Interrupted)) as caught:
        deepexp.train([*SMALL, f"output_dir={tmp_path}"], quiet=True)
    error = caught.value
    assert (error.directory / "status.json").is_file() and error.directory.parents[1] == tmp_path
    assert f"run directory: {error.directory}" in traceback.format_exception(error)[-1]


def test_a_result_shows_its_directory_and_test_error():
    assert repr(Result(Path("a"), {"test_error_rate": 0.8273}, [])) == "Result('a', test error 82.73%)"


def test_runs_in_several_threads_give_the_same_as_alone(tmp_path):
    """Runs in one process wait for each other."""
    errors = {}

    def train(seed: int, folder: str) -> None:
        result = deepexp.train([*SMALL, f"seed={seed}", f"output_dir={tmp_path / folder}"], quiet=True)
        errors[folder, seed] = (result.test_loss, result.test_errors)

    threads = [threading.Thread(target=train, args=(seed, "together")) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(3):
        train(seed, "alone")
        assert errors["together", seed] == errors["alone", seed]


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda result: pickle.loads(pickle.dumps(result))],
    ids=["copy", "deep", "pickle"],
)
def test_a_result_can_be_copied_and_sent_to_another_process(copied):
    result = Result(Path("a"), {"test_error_rate": 0.25}, [{"epoch": 1}])
    assert copied(result) == result and copied(result).test_error_rate == 0.25
    with pytest.raises(AttributeError, match="a result has no 'loss'; its summary has test_error_rate"):
        copied(result).loss  # noqa: B018


def test_dir_of_a_result_has_the_keys_of_the_summary():
    names = dir(Result(Path("a"), {"test_error_rate": 0.25}, []))
    assert {"test_error_rate", "directory", "model"} <= set(names)
