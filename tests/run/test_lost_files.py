"""Runs that have lost other files than their checkpoints can still be resumed, tested and listed."""

import json
import shutil

import pytest
import torch

import deepexp
from deepexp import checkpoint
from deepexp.commands import eval as evaluation
from deepexp.errors import InputError
from deepexp.report import runs
from deepexp.run import lost_files
from deepexp.run.rundir import RunDirectory
from deepexp.sweep.directory import can_go_on

from ..resumed import resume
from ..same_run import assert_equal, curves, lines, state

WORDS = ["epochs=2", "data.subset=60", "data.resize=22", "batch_size=20", "threads=1", "device=cpu"]
FILES = ["status.json", "provenance.json", "metrics.jsonl", "events.out.tfevents.*"]


def remove(directory, *patterns):
    for pattern in patterns:
        (path,) = directory.glob(pattern)
        path.unlink()


@pytest.fixture(scope="module")
def whole(trained, tmp_path_factory):
    """The run trained further, with all of its files."""
    copy = shutil.copytree(trained, tmp_path_factory.mktemp("whole") / "run")
    resume(copy, "epochs=4")
    return copy


@pytest.mark.parametrize("lost", [*([name] for name in FILES), FILES], ids=[*FILES, "all"])
def test_lost_files_begin_anew_and_the_run_ends_with_the_same_results(directory, whole, lost):
    remove(directory, *lost)
    resume(directory, "epochs=4")
    assert_equal(*(state(path / "checkpoints" / "last.pt") for path in (directory, whole)))
    assert lines(directory / "summary.json") == lines(whole / "summary.json")
    first = 2 if "metrics.jsonl" in lost else 0
    assert lines(directory / "metrics.jsonl") == lines(whole / "metrics.jsonl")[first:]
    after = 2 if "events.out.tfevents.*" in lost else 0
    points = [[point for point in curve["test/loss"] if point[0] > after] for curve in map(curves, (directory, whole))]
    assert points[0] == points[1] and len(curves(directory)["test/loss"]) == 4 - after
    told = [name.removesuffix(".*") for name in lost]
    log = (directory / "run.log").read_text()
    assert f"WARNING deepexp.run.circumstances: {' and '.join(told)} w" in log and "begins anew at step 6" in log
    (entry,) = json.loads((directory / "provenance.json").read_text())["resumed"]
    assert entry["lost"] == told


@pytest.mark.parametrize("logs", [None, 7, {"events": "9"}, {"events": -1}], ids=repr)
def test_a_checkpoint_without_the_lengths_of_the_files_is_refused(directory, logs):
    last = directory / "checkpoints" / "last.pt"
    checkpoint.save(last, {**checkpoint.load(last), "logs": logs})
    with pytest.raises(InputError, match=r"checkpoints: the checkpoint does not say how long the run's files were"):
        resume(directory, "epochs=4")


def test_new_files_are_cut_back_to_their_own_lengths_not_those_of_lost_ones(directory, monkeypatch):
    """When the resumed run is cut off too, and its last checkpoint is damaged."""
    remove(directory, "metrics.jsonl", "events.out.tfevents.*")
    save, saved = checkpoint.save, []

    def cut_off(path, content, **options):
        save(path, content, **options)
        saved.append(path.name)
        if len(saved) == 3:  # last.pt and previous.pt have the lengths of the new files
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", cut_off)
    with pytest.raises(KeyboardInterrupt):
        resume(directory, "epochs=4")
    monkeypatch.undo()
    assert saved == ["last.pt", "previous.pt", "last.pt"]
    (directory / "checkpoints" / "last.pt").write_bytes(b"rubbish")
    assert [line["epoch"] for line in resume(directory, "epochs=4").metrics] == [3, 4]
    assert [step for step, _ in curves(directory)["test/loss"]] == [3, 4]


def test_without_provenance_other_data_are_recognised_by_their_mean(directory, caplog):
    remove(directory, "provenance.json")
    last = directory / "checkpoints" / "last.pt"
    content = checkpoint.load(last)
    content["pictures"]["mean"] += torch.ones(1)
    checkpoint.save(last, content)
    with pytest.raises(InputError, match=r"their mean, deviation or classes are not those in the checkpoint"):
        resume(directory, "epochs=4")
    with pytest.raises(InputError, match="not those that the run was trained on"):
        evaluation.main([f"run={directory}", "device=cpu"])
    content["pictures"]["mean"] -= torch.ones(1)
    checkpoint.save(last, content)
    caplog.clear()
    assert evaluation.main([f"run={directory}", "device=cpu"]) == 0
    assert "provenance.json is missing: whether these are the run's data cannot be told for certain" in caplog.text


def test_a_finished_run_without_a_status_is_still_done(directory):
    remove(directory, "status.json")
    before = {path for path in directory.rglob("*") if path.name != ".lock"}
    (found,) = runs.read([directory]).runs
    assert (found.status, found.summary["epochs"]) == ("done", 2)
    assert resume(directory).epochs == 2
    assert evaluation.main([f"run={directory}", "device=cpu"]) == 0
    assert {path for path in directory.rglob("*") if path.name != ".lock"} == before


def test_an_unfinished_run_without_a_status_was_cut_off(directory):
    remove(directory, "status.json", "summary.json")
    (found,) = runs.read([directory]).runs
    assert (found.status, found.reason) == ("cut off", "its status.json is missing")
    assert can_go_on(directory)
    remove(directory, "checkpoints/last.pt", "checkpoints/previous.pt")  # then nothing shows that it ever began
    assert not can_go_on(directory)
    with pytest.raises(InputError, match=r"is not a run: it has no status\.json"):
        RunDirectory.open(directory)


def test_a_result_is_read_without_its_measurements(directory):
    remove(directory, "metrics.jsonl")
    assert deepexp.load_run(directory).metrics == []
    assert resume(directory).test_samples == 359


@pytest.mark.parametrize("name", ["status.json", "provenance.json"])
@pytest.mark.parametrize("content", [b'{"format": 1, "sta', b"{}"], ids=["torn", "empty"])
def test_a_damaged_file_is_refused_until_it_is_moved_away(directory, name, content):
    (directory / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}.*; put the original back, or move it away to go on without it$"):
        resume(directory, "epochs=4")
    assert (directory / name).read_bytes() == content
    (directory / name).rename(directory / "damaged")
    assert resume(directory, "epochs=4").epochs == 4


def test_an_empty_file_counts_as_lost(directory):
    """A full disk leaves such files."""
    (directory / "metrics.jsonl").write_bytes(b"")
    content = checkpoint.load(directory / "checkpoints" / "last.pt")
    assert lost_files.lost_files(RunDirectory.open(directory), content) == ["metrics.jsonl"]


def test_messages_from_before_the_log_is_open_are_in_it(directory):
    (directory / "checkpoints" / "last.pt").write_bytes(b"rubbish")
    resume(directory, "epochs=3")
    first = (directory / "run.log").read_text()
    assert first.count("taking previous.pt") == 1
    remove(directory, "checkpoints/last.pt", "checkpoints/previous.pt", "summary.json", "status.json")
    RunDirectory(directory).set_status("failed")
    resume(directory)
    later = (directory / "run.log").read_text()[len(first) :]
    assert "has no checkpoint: it begins anew" in later and "taking" not in later


def test_best_and_curves_are_kept_without_both_checkpoints(run):
    """They are kept when the run begins anew; or the run can be resumed from a copy of `best.pt`."""
    first = run([*WORDS, "val_fraction=0.2"]).directory
    best, (curves_of,) = first / "checkpoints" / "best.pt", first.glob("events.out.tfevents.*")
    for name in ("last.pt", "previous.pt"):
        best.with_name(name).write_bytes(b"rubbish")
    with pytest.raises(
        InputError, match=r"no better; copy best\.pt, which is whole, to last\.pt to go on from there, or"
    ):
        resume(first, "epochs=3")
    second = shutil.copytree(first, first.with_name("second"))
    shutil.copyfile(best, second / "checkpoints" / "last.pt")
    assert [line["epoch"] for line in resume(second, "epochs=3").metrics] == [1, 2, 3]
    remove(first, "checkpoints/last.pt", "checkpoints/previous.pt", "summary.json", "status.json", "predictions.npz")
    RunDirectory(first).set_status("failed")
    kept = {"checkpoints/best.attempt1.pt": best, "curves.attempt1": curves_of, "metrics.attempt1.jsonl": None}
    before = {name: (path or first / "metrics.jsonl").read_bytes() for name, path in kept.items()}
    assert resume(first, "epochs=3").epochs == 3
    assert {name: (first / name).read_bytes() for name in kept} == before
    assert all(name in (first / "run.log").read_text() for name in kept)
