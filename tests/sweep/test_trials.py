"""Whole searches, with jobs in their own processes."""

import json
import shutil
from pathlib import Path

import pytest

from deepexp.errors import InputError, RunFailed
from deepexp.sweep import ledger
from deepexp.sweep.command import SweepResult, run_sweep
from deepexp.sweep.halving import WORST
from deepexp.sweep.watcher import JobWatcher
from deepexp.sweep.worker import Task
from deepexp.text.console import Console

from .conftest import Sweeper

RATES = ("model=troubled", "val_fraction=0.2", "hydra.sweeper.search=tpe", "optim.lr=tag(log,interval(1e-3,1))")
ONE = "hydra.launcher.jobs=1"


def names(result: SweepResult) -> list[str]:
    return [row.name for row in result.rows]


def test_a_search_minimises_the_validation_error_and_reports_the_best(
    sweep: Sweeper, capsys: pytest.CaptureFixture[str]
) -> None:
    result = sweep(*RATES, "batch_size=20,50", "seed=0,1", "hydra.sweeper.samples=3")
    assert result.failures == [] and len(result.rows) == 6
    assert [row.varying["seed"] for row in result.rows] == ["0", "1"] * 3
    out = capsys.readouterr().out
    assert "6 jobs, 2 at a time, chosen by tpe over batch_size, optim.lr for the least val_error_rate" in out
    means: dict[tuple[str, str], list[float]] = {}
    for row in result.rows:
        assert row.summary is not None
        both = means.setdefault((row.varying["optim.lr"], row.varying["batch_size"]), [0.0, 0.0])
        both[0] += 100 * row.summary["val_error_rate"] / 2
        both[1] += 100 * row.summary["test_error_rate"] / 2
    rate, size = min(means, key=means.__getitem__)
    val, test = means[rate, size]
    found = f"batch_size={size}, optim.lr={rate}: val error {val:.2f}%, test error {test:.2f}%, the means of 2 seeds"
    assert f"best of 3 settings by val error: {found}" in out
    command = next(line for line in out.splitlines() if line.startswith("train it alone with: deepexp train "))
    assert all(f" {word}" in command for word in (f"optim.lr={rate}", f"batch_size={size}", "seed=0"))
    assert "hydra" not in command


def test_a_resumed_search_continues_as_if_uninterrupted(
    sweep: Sweeper, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = sweep(*RATES, ONE, "hydra.sweeper.samples=5", quiet=True)
    part = sweep(*RATES, ONE, "hydra.sweeper.samples=3", quiet=True)
    assert names(part) == names(whole)[:3]
    capsys.readouterr()
    rest = run_sweep([f"resume={part.directory}", "hydra.sweeper.samples=5"], Console("plain"))
    assert names(rest) == names(whole)
    assert "5 jobs, 3 of them done before, 1 at a time" in capsys.readouterr().out
    assert [row.tries for row in rest.rows] == [1] * 5
    saved = json.loads((rest.directory / "sweep.json").read_text())
    assert saved["overrides"].count("hydra.sweeper.samples=5") == 1
    assert (saved["search"]["method"], saved["search"]["objective"]) == ("tpe", "val_error_rate")
    less = run_sweep([f"resume={part.directory}", "hydra.sweeper.samples=2"], Console("plain"))
    assert names(less) == names(whole)
    assert "5 jobs, 5 of them done before" in capsys.readouterr().out
    shutil.rmtree(part.directory / str(rest.rows[0].directory))
    run_sweep([f"resume={part.directory}"], Console("plain"))
    out = capsys.readouterr().out
    assert "5 jobs, 4 of them done before" in out and f"[5/5] {rest.rows[0].name}" in out


def test_a_search_that_is_cut_off_between_two_tries_of_a_job_goes_on_with_that_job(
    sweep: Sweeper, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = JobWatcher.starting

    def starting(self: JobWatcher, task: Task) -> Task:
        if task.config_hash in self.tries:
            raise RunFailed("cut off")
        return begin(self, task)

    with monkeypatch.context() as patched, pytest.raises(RunFailed, match="cut off"):
        patched.setattr(JobWatcher, "starting", starting)
        sweep(*RATES, ONE, "model.trouble=once", "hydra.sweeper.samples=2", "hydra.launcher.retries=1", quiet=True)
    (book,) = folder.rglob("ledger.jsonl")
    (entry,) = ledger.read(book).values()
    assert (entry.state, entry.tries) == ("interrupted", 1)
    rest = run_sweep([f"resume={book.parent}"], Console("quiet"))
    assert [(row.state, row.tries) for row in rest.rows] == [("done", 2), ("done", 1)]
    lines = [json.loads(line) for line in book.read_text().splitlines()]
    begun = [line["job"] for line in lines if line["state"] == "running"]
    assert begun == [rest.rows[0].name, rest.rows[0].name, rest.rows[1].name], "the search chooses by what it came to"


def test_unfinished_jobs_of_a_search_are_run_first(sweep: Sweeper, folder: Path) -> None:
    result = sweep(*RATES, ONE, "model.trouble=once", "hydra.sweeper.samples=2", quiet=True)
    assert [row.state for row in result.rows] == ["failed", "done"]
    again = run_sweep([f"resume={result.directory}", "hydra.sweeper.samples=3"], Console("quiet"))
    assert [row.state for row in again.rows] == ["done"] * 3 and [row.tries for row in again.rows] == [2, 1, 1]
    assert names(again)[:2] == names(result)


def test_failed_jobs_of_a_search_count_as_all_wrong(sweep: Sweeper, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("model.trouble=diverge,none,raise", "val_fraction=0.2", "hydra.sweeper.search=tpe")
    result = sweep("model=troubled", *words, "hydra.sweeper.samples=9")
    assert sorted((row.varying["model.trouble"], row.state) for row in result.rows) == [
        ("diverge", "failed"), ("none", "done"), ("raise", "failed"),
    ]  # fmt: skip
    out = capsys.readouterr().out
    assert "3 jobs, 2 at a time" in out and "best of 3 settings by val error: model.trouble=none: val error" in out


def test_settings_that_are_the_same_job_are_run_once(sweep: Sweeper) -> None:
    # With this seed, 'default' in quotes is chosen while default, which is the same job, still runs.
    words = ("init=default,'default',kaiming", "val_fraction=0.2", "model.trouble=slow", "hydra.sweeper.seed=16")
    result = sweep("model=troubled", *words, "hydra.sweeper.search=tpe", "hydra.sweeper.samples=3", quiet=True)
    assert [(row.name, row.state, row.tries) for row in result.rows] == [
        ("init=default", "done", 1), ("init=kaiming", "done", 1),
    ]  # fmt: skip


def test_an_impossible_setting_does_not_end_the_search(sweep: Sweeper, capsys: pytest.CaptureFixture[str]) -> None:
    # 40 pictures make no batch of 50; the points that are checked before the search have 100 or batches of 20.
    words = ("batch_size=20,50", "data.subset=100,40", "val_fraction=0.2", "hydra.sweeper.search=tpe")
    result = sweep("model=troubled", *words, "hydra.sweeper.samples=4")
    assert len(result.rows) == 3 and result.failures == []
    err = capsys.readouterr().err
    assert "batch_size: 50" in err
    assert "data.subset=40,batch_size=50: is not possible, and counts as wrong in every picture: batch_size: 50" in err
    assert "nothing was started" not in err


def test_a_search_with_impossible_settings_resumes_exactly(sweep: Sweeper) -> None:
    words = ("batch_size=20,50", "data.subset=100,40", "optim.lr=interval(0.01,0.1)", "val_fraction=0.2")
    search = ("model=troubled", *words, ONE, "hydra.sweeper.search=tpe")
    whole = sweep(*search, "hydra.sweeper.samples=14", quiet=True)
    part = sweep(*search, "hydra.sweeper.samples=7", quiet=True)
    assert (
        names(part) == names(whole)[: len(part.rows)] and len(part.rows) < 7
    )  # fewer than 7: some settings were impossible
    for begun in (part, whole):
        resumed = run_sweep([f"resume={begun.directory}", "hydra.sweeper.samples=14"], Console("quiet"))
        assert names(resumed) == names(whole)


def test_an_impossible_interval_starts_nothing(sweep: Sweeper, folder: Path) -> None:
    with pytest.raises(InputError, match=r"dropout: 1\.5"):
        sweep("val_fraction=0.2", "dropout=interval(0,1.5)", "hydra.sweeper.search=tpe", "hydra.sweeper.samples=4")
    assert not list(folder.glob("outputs/*/*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("val_fraction=0.2", "hydra.sweeper.search=tpe"), "hydra.sweeper.samples=20"),
        (("hydra.sweeper.search=tpe", "hydra.sweeper.samples=3"), r"val_fraction=0\.1.*objective=test_error_rate"),
        (("val_fraction=0.2", "hydra.sweeper.search=tpee", "hydra.sweeper.samples=3"), "'tpe' or 'gp' or null"),
    ],
)
def test_wrong_search_options_are_refused(sweep: Sweeper, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sweep("optim.lr=interval(0.01,0.1)", *words)


def test_a_search_in_which_nothing_succeeds_has_no_best(sweep: Sweeper, capsys: pytest.CaptureFixture[str]) -> None:
    result = sweep(*RATES, "model.trouble=raise", "hydra.sweeper.samples=2")
    out = capsys.readouterr().out
    assert len(result.failures) == 2 and "best of" not in out and "not tried" not in out
    entries = ledger.read(result.directory / "ledger.jsonl").values()
    assert [entry.state for entry in entries] == ["failed", "failed"] and WORST == 1.0


def test_settings_that_were_not_tried_are_counted(sweep: Sweeper, capsys: pytest.CaptureFixture[str]) -> None:
    result = sweep(*RATES, ONE, "model.trouble=raise", "hydra.sweeper.samples=4", "hydra.launcher.on_failure=stop")
    assert len(result.rows) == 1 and "3 of 4 settings were not tried" in capsys.readouterr().out


def test_failed_jobs_of_a_resumed_search_are_tried_last(sweep: Sweeper, folder: Path) -> None:
    """With on_failure=stop, a job that fails each time would otherwise keep the others from ever being run."""
    words = (*RATES, ONE, "model.trouble=once", "hydra.sweeper.samples=3")
    first = sweep(*words, "hydra.launcher.on_failure=stop", quiet=True)
    assert [row.state for row in first.rows] == ["failed"]
    (folder / "was_here").unlink()  # so that the job that is run next fails, too
    assert [row.state for row in sweep(f"resume={first.directory}", quiet=True).rows] == ["failed", "failed"]
    resumed = sweep(f"resume={first.directory}", quiet=True)
    assert [row.state for row in resumed.rows] == ["done", "done", "done"]
    assert names(resumed) == names(sweep(*words, quiet=True))
