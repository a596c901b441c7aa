"""Resuming a sweep: where it is written, and how its earlier jobs are treated."""

import errno
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

from deepexp.disk import storage
from deepexp.errors import InputError
from deepexp.models.mnist_net import MnistNet
from deepexp.report.make import make
from deepexp.sweep import table
from deepexp.sweep.watcher import JobWatcher
from deepexp.sweep.worker import Task
from deepexp.user_code import targets

from ..resumed import resume
from .conftest import Sweeper

QUICK = ("model=troubled",)


def test_resuming_refuses_another_output_dir(sweep: Sweeper) -> None:
    directory = sweep(*QUICK, "seed=0,1", quiet=True).directory
    with pytest.raises(InputError, match=f"output_dir: elsewhere is not where {directory} is"):
        sweep(f"resume={directory}", "output_dir=elsewhere")
    assert not sweep(f"resume={directory}", "output_dir=outputs", quiet=True).failures


def test_jobs_that_were_not_run_come_before_those_that_failed(sweep: Sweeper) -> None:
    """With on_failure=stop, a job that fails again would otherwise keep the others from ever being run."""
    words = ("model=troubled", "model.trouble=raise", "optim.lr=0.1,0.2", "hydra.launcher.jobs=1")
    first = sweep(*words, "hydra.launcher.on_failure=stop", quiet=True)
    assert [row.state for row in first.rows] == ["failed", "queued"]
    assert [row.state for row in sweep(f"resume={first.directory}", quiet=True).rows] == ["failed", "failed"]


def test_resuming_keeps_the_random_samples(sweep: Sweeper) -> None:
    words = ("optim.momentum=0.0,0.5,0.9", "optim.lr=interval(0.01,0.1)", "hydra.sweeper.samples=3")
    first = sweep(*QUICK, *words, quiet=True)
    again = ("optim.momentum=0.0,0.5,0.9", "batch_size=50", "output_dir=outputs", "data.workers=0", "log_every=3")
    second = sweep(f"resume={first.directory}", *again, quiet=True)
    assert [(row.name, row.tries) for row in second.rows] == [(row.name, 1) for row in first.rows]


def test_no_other_place_is_advised_for_a_sweep_that_has_begun(
    sweep: Sweeper, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another output_dir it would begin anew."""

    def refuse(path: Path, text: str) -> None:
        with storage.storage_errors(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(table, "write_text", refuse)
    assert not sweep(*QUICK, "seed=0,1").failures
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "table.csv" in line]
    assert said.endswith("; make room there")


def test_unfinished_jobs_that_are_no_longer_asked_for_are_named(
    sweep: Sweeper, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = sweep("model=troubled", "model.trouble=none,once", "hydra.launcher.jobs=1").directory
    capsys.readouterr()
    sweep(f"resume={directory}", "model.trouble=none")
    out = capsys.readouterr().out
    assert "1 other job, no longer asked for, left as before: deepexp report" in out
    assert "without a result: model.trouble=once (to go on, give these values again)" in out
    again = sweep(f"resume={directory}", "model.trouble=none,once")
    assert [row.state for row in again.rows] == ["done", "done"]
    assert "without a result:" not in capsys.readouterr().out


def test_a_run_renamed_to_another_job_is_refused(sweep: Sweeper) -> None:
    directory = sweep(*QUICK, "optim.lr=0.1,0.2", "epochs=1", quiet=True).directory
    first, second = directory / "optim.lr=0.1", directory / "optim.lr=0.2"
    first.rename(directory / "aside")
    second.rename(first)
    with pytest.raises(InputError, match=r"is a run with optim\.lr=0\.2, where that of optim\.lr=0\.1 should be; put"):
        sweep(f"resume={directory}")
    first.rename(second)
    (directory / "aside").rename(first)
    resume(first, "epochs=2")
    assert not sweep(f"resume={directory}", quiet=True).failures


def test_runs_missing_from_the_ledger_are_found_again(sweep: Sweeper, capsys: pytest.CaptureFixture[str]) -> None:
    directory = sweep(*QUICK, "optim.lr=0.1,0.2", "model.trouble=none,once", "hydra.launcher.jobs=1").directory
    ledger = directory / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes()[:100])
    runs = sorted(path.name for path in directory.iterdir() if path.is_dir())
    capsys.readouterr()
    result = sweep(f"resume={directory}")
    out, err = capsys.readouterr()
    assert "4 jobs, 3 of them done before" in " ".join(out.split()) and err.count("that the ledger does not list") == 4
    assert [row.state for row in result.rows] == ["done"] * 4
    assert sorted(path.name for path in directory.iterdir() if path.is_dir()) == runs


@pytest.mark.skipif(sys.platform == "win32", reason="a working directory cannot be removed there")
def test_a_removed_working_directory_fails_only_later_jobs(
    sweep: Sweeper, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = folder / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    begun, begin = [], JobWatcher.starting

    def starting(self: JobWatcher, task: Task) -> Task:
        if len(begun) == 1:
            work.rmdir()
        begun.append(task)
        return begin(self, task)

    monkeypatch.setattr(JobWatcher, "starting", starting)
    result = sweep("seed=0,1", "hydra.launcher.jobs=1", f"output_dir={folder / 'outputs'}", quiet=True)
    monkeypatch.chdir(folder)
    assert [row.state for row in result.rows] == ["done", "failed"]
    assert f"{work}: cannot work there any longer" in str(result.rows[1].reason)
    assert not sweep(f"resume={result.directory}", quiet=True).failures


def test_jobs_with_different_code_are_reported(sweep: Sweeper, capsys: pytest.CaptureFixture[str]) -> None:
    """A job imports the user's module when it begins, so that a mean over seeds could be over two models."""
    directory = sweep(*QUICK, "seed=0", quiet=True).directory
    assert "other code" not in "".join(capsys.readouterr())
    with open("troubled_model.py", "a") as file:
        file.write("# edited\n")
    (name,) = [path.name for path in directory.iterdir() if (path / "summary.json").exists()]
    told = "other code: troubled_model changed between {} and seed=1: "
    sys.modules.pop("troubled_model"), targets._known.pop("troubled_model", None)  # as in another process
    sweep(f"resume={directory}", "seed=0,1")
    assert told.format("seed=0") in " ".join("".join(capsys.readouterr()).split())
    assert any(note.startswith(told.format(name)) for note in make([directory]).notes)


def test_a_sweep_with_a_relative_path_that_is_resumed_elsewhere_names_the_folder_it_ran_in(
    sweep: Sweeper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, elsewhere = tmp_path / "there", tmp_path / "elsewhere"
    for folder in (there, elsewhere):
        folder.mkdir()
    monkeypatch.chdir(there)
    torch.save(MnistNet(shape=(1, 28, 28), classes=10).state_dict(), "first.pt")
    found = sweep("init_from=first.pt,null", "epochs=1")
    shutil.rmtree(found.directory / "init_from=first.pt")
    told = rf"first\.pt cannot be read(.|\n)*\nthe sweep ran in {there}; resume it there if it has relative paths"
    monkeypatch.chdir(elsewhere)
    with pytest.raises(InputError, match=told):
        sweep(f"resume={found.directory}")
    monkeypatch.chdir(there)
    assert not sweep(f"resume={found.directory}").failures
    with pytest.raises(InputError) as caught:
        sweep(f"resume={found.directory}", "optim.lr=-1")
    assert "the sweep ran in" not in str(caught.value)
