"""Whole sweeps, with jobs in their own processes."""

import csv
import json
import shlex
import shutil
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import yaml
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper as HydraSweeper

import deepexp
from deepexp import cli, runtime
from deepexp.config.compose import compose
from deepexp.config.composer import Composed
from deepexp.errors import InputError
from deepexp.sweep import directory, ledger, points, pool, watcher
from deepexp.sweep.command import SweepResult
from deepexp.sweep.foreign import said_again
from deepexp.sweep.settings import LauncherConfig
from deepexp.sweep.watcher import JobWatcher
from deepexp.sweep.worker import Ending, Task

from .conftest import SMALL, Sweeper

QUICK = ("model=troubled",)


def ledger_of(result: SweepResult) -> dict[str, ledger.Entry]:
    return {entry.job: entry for entry in ledger.read(result.directory / "ledger.jsonl").values()}


def test_a_grid_is_run_and_shown_in_a_table(sweep: Sweeper, capsys: pytest.CaptureFixture[str]) -> None:
    result = sweep(*QUICK, "batch_size=20,50", "optim.lr=0.01,0.1")
    names = [f"batch_size={size},optim.lr={rate}" for size in (20, 50) for rate in (0.01, 0.1)]
    assert [row.name for row in result.rows] == names and result.failures == []
    for name in names:
        saved = json.loads((result.directory / name / "summary.json").read_text())
        assert saved["status"] == "done"
    with (result.directory / "table.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [(line["batch_size"], line["optim.lr"]) for line in table] == [
        ("20", "0.01"), ("20", "0.1"), ("50", "0.01"), ("50", "0.1"),
    ]  # fmt: skip
    assert {entry.state for entry in ledger_of(result).values()} == {"done"}
    out = capsys.readouterr().out
    assert out.count("test error") >= 5 and "\x1b" not in out and "\r" not in out
    assert "[4/4]" in out and f"{100 * result.rows[3].summary['test_error_rate']:.2f}%" in out  # type: ignore[index]


def test_a_job_of_a_sweep_equals_a_single_run(sweep: Sweeper, folder: Path) -> None:
    result = sweep("seed=3,4", "dropout=0.5", quiet=True)
    alone = deepexp.train([*SMALL, "seed=4", "dropout=0.5", "output_dir=alone"], quiet=True)
    assert alone is not None
    job = deepexp.load_run(result.directory / "seed=4")
    assert job.metrics[-1]["train_loss"] == alone.metrics[-1]["train_loss"]
    assert job.metrics[-1]["test_loss"] == alone.metrics[-1]["test_loss"]
    weights = zip(job.model.state_dict().values(), alone.model.state_dict().values(), strict=True)
    assert all((ours == theirs).all() for ours, theirs in weights)
    both = [np.load(run.directory / "predictions.npz")["predicted"] for run in (job, alone)]
    assert (both[0] == both[1]).all()


def test_a_dry_run_of_a_sweep_is_refused(sweep: Sweeper, folder: Path) -> None:
    with pytest.raises(InputError, match="dry_run: shows one run"):
        sweep("batch_size=10,20", "dry_run=true")
    assert not list(folder.glob("outputs/*"))


def test_one_impossible_point_starts_nothing_and_is_named(sweep: Sweeper, folder: Path) -> None:
    with pytest.raises(InputError) as caught:
        sweep("batch_size=10,20,500", "optim.lr=0.1,0.2", "seed=0,1")
    lines = str(caught.value).splitlines()
    assert len(lines) == 2 and lines[1] == "nothing was started"
    assert lines[0].startswith("batch_size=500,optim.lr=0.1,seed=0; ") and " and 1 more: batch_size: 500" in lines[0]
    assert list(folder.rglob("sweep.json")) == [] and list((folder / "outputs").rglob("*=*")) == []


def test_all_mistakes_of_a_sweep_are_reported_together(sweep: Sweeper) -> None:
    with pytest.raises(InputError) as caught:
        sweep("optmi=adam", "model=mnist_net,troublet", "lr=0.1,0.2")
    text = str(caught.value)
    assert "optmi" in text and "troublet" in text and "optim.lr" in text


def test_a_failure_affects_only_its_own_job(
    sweep: Sweeper, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_GRACE_SECONDS", 0.5)
    limit = "hydra.launcher.time_limit_minutes=0.15"  # the others need seconds on a busy machine
    result = sweep(*QUICK, limit, "model.trouble=sleep,diverge,raise,kill,stop,none")
    assert [row.state for row in result.rows] == ["failed", "failed", "failed", "killed", "killed", "done"]
    late, diverged, raised, killed, stopped, _ = (row.reason for row in result.rows)
    assert "diverged" in str(diverged) and "OverflowError: too much for me" in str(raised)
    assert "stopped by a signal after step 1" in str(stopped), "by somebody else than the sweep"
    assert "SIGKILL" in str(killed) and "time_limit_minutes=0.15" in str(late)
    out = capsys.readouterr().out
    for row in result.failures:
        assert f"{row.name}: {row.state}: {row.reason}" in out.split("jobs failed")[1]
        assert row.log is not None and (result.directory / row.log).is_file()
    assert "too much for me" in (result.directory / str(result.rows[2].log)).read_text()


def test_equal_points_are_run_once(sweep: Sweeper, capsys: pytest.CaptureFixture[str]) -> None:
    result = sweep(*QUICK, "optim.lr=0.1,1e-1,0.1")
    assert [row.state for row in result.rows] == ["done"]
    out, err = capsys.readouterr()
    assert "1 job, 1 at a time" in out
    assert "2 of 3 points are the same as others, and run once" in err


def test_missing_bfloat16_is_reported_once_for_all_jobs(
    sweep: Sweeper, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "cpu_flags", lambda: frozenset({"avx2"}))
    sweep(*QUICK, "seed=0,1", "precision=fp32,bf16", "model.trouble=raise")
    assert capsys.readouterr().err.count("can only imitate bf16") == 1


def test_resuming_runs_only_unfinished_jobs(sweep: Sweeper) -> None:
    first = sweep(*QUICK, "model.trouble=once,none", quiet=True)
    assert [row.state for row in first.rows] == ["failed", "done"]
    kept = (first.directory / "model.trouble=none" / "summary.json").stat().st_mtime_ns
    second = sweep(f"resume={first.directory}", quiet=True)
    assert second.directory == first.directory and second.failures == []
    assert {job: entry.tries for job, entry in ledger_of(second).items()} == {
        "model.trouble=once": 2,
        "model.trouble=none": 1,
    }
    assert (first.directory / "model.trouble=none" / "summary.json").stat().st_mtime_ns == kept
    assert second.rows[0].directory == "model.trouble=once"
    assert "only this once" in (first.directory / "model.trouble=once" / "run.log").read_text()


def test_a_run_that_was_removed_is_run_again(sweep: Sweeper) -> None:
    first = sweep(*QUICK, "seed=0,1", quiet=True)
    shutil.rmtree(first.directory / "seed=1")
    second = sweep(f"resume={first.directory}", quiet=True)
    assert [row.tries for row in second.rows] == [1, 2] and second.failures == []


def test_added_points_are_run_and_changed_values_make_new_jobs(
    sweep: Sweeper, capsys: pytest.CaptureFixture[str]
) -> None:
    first = sweep(*QUICK, "seed=0,1", quiet=True)
    second = sweep(f"resume={first.directory}", "seed=1,2")
    assert [row.name for row in second.rows] == ["seed=1", "seed=2"] and second.failures == []
    assert "1 other job, no longer asked for, left as before: deepexp report" in capsys.readouterr().out
    third = sweep(f"resume={first.directory}", "epochs=2", "seed=2", quiet=True)
    assert third.rows[0].summary is not None and third.rows[0].summary["epochs"] == 2
    assert {entry.tries for entry in ledger_of(third).values()} == {1}


def test_keys_without_effect_on_results_may_change_on_resuming(sweep: Sweeper) -> None:
    """Finished jobs are not run again, and resumed ones get the new values."""
    first = sweep(*QUICK, "model.trouble=none,once", quiet=True)
    assert [row.state for row in first.rows] == ["done", "failed"]
    second = sweep(f"resume={first.directory}", "data.mode=streamed", "data.workers=0", "log_every=3", quiet=True)
    assert [(row.state, row.tries) for row in second.rows] == [("done", 1), ("done", 2)]
    configs = [yaml.safe_load((first.directory / row.name / ".hydra/config.yaml").read_text()) for row in second.rows]
    assert [config["data"]["mode"] for config in configs] == ["resident", "streamed"]


@pytest.mark.parametrize(
    ("name", "as_before"), [("_without", lambda resolved, _: resolved), ("ADDED", ("init_from", "surgery"))]
)
def test_jobs_are_recognised_by_the_hash_of_older_versions(
    sweep: Sweeper, monkeypatch: pytest.MonkeyPatch, name: str, as_before: object
) -> None:
    with monkeypatch.context() as older:
        older.setattr(points, name, as_before)
        first = sweep(*QUICK, "seed=0,1", quiet=True)
    second = sweep(f"resume={first.directory}", "seed=0,1,2", quiet=True)
    assert [row.tries for row in second.rows] == [1, 1, 1] and len(ledger_of(second)) == 3


def test_exit_statuses_of_a_sweep_and_of_resuming_it(folder: Path) -> None:
    assert cli.main(["train", "-m", *SMALL, *QUICK, "model.trouble=raise,once,none"]) == 1
    (place,) = (path.parent for path in folder.rglob("sweep.json"))
    assert cli.main(["train", f"resume={place}"]) == 1
    assert cli.main(["train", f"resume={place}", "model.trouble=once,none"]) == 0
    states = [(entry.state, entry.tries) for entry in ledger.read(place / "ledger.jsonl").values()]
    assert states == [("failed", 2), ("done", 2), ("done", 1)]


def test_the_printed_resume_command_has_the_words_it_needs(sweep: Sweeper, capsys: pytest.CaptureFixture[str]) -> None:
    place = sweep(*QUICK, "model.trouble=raise", "log_every=${epochs}").directory
    *_, command = capsys.readouterr().out.splitlines()
    assert command.partition(f"{place.name} ")[2] == "'log_every=${epochs}'"
    assert cli.main(["train", *shlex.split(command)[-2:]]) == 1
    words = ["data.cache='my cache'", "optim.lr=0.1", "hydra.sweeper.n_trials=4", "hydra.launcher.jobs=2"]
    assert said_again(words) == ["data.cache=my cache", "hydra.sweeper.n_trials=4"]


@pytest.mark.parametrize(
    ("content", "message"), [(None, "is no sweep"), ("{}", "cannot be read"), ("", "cannot be read")]
)
def test_directories_that_are_no_sweep_are_refused(
    sweep: Sweeper, folder: Path, content: str | None, message: str
) -> None:
    (folder / "x").mkdir()
    if content is not None:
        (folder / "x" / "sweep.json").write_text(content)
    with pytest.raises(InputError, match=message):
        sweep("resume=x")
    with pytest.raises(InputError, match=r"^nowhere: is no sweep: there is nothing of that name$"):
        sweep("resume=nowhere")


def test_a_job_composes_its_config_only_if_the_parent_cannot(sweep: Sweeper, monkeypatch: pytest.MonkeyPatch) -> None:
    composed = []

    def compose(words: list[str]) -> Composed:
        composed.append(words)
        if "seed=1" in words:
            raise OSError("a file is gone")
        return original([*words, "name=from the parent"])

    original = watcher.compose
    monkeypatch.setattr(watcher, "compose", compose)
    result = sweep(*QUICK, "seed=0,1")
    assert [row.state for row in result.rows] == ["done", "done"] and len(composed) == 2
    named = ["from the parent" in (result.directory / f"seed={seed}/.hydra/config.yaml").read_text() for seed in (0, 1)]
    assert named == [True, False]


def test_a_resumed_job_takes_keys_of_its_own_data_source(folder: Path) -> None:
    words = ["data=image_folder", "data.cache='of (all)'", "data.workers=0"]
    task = Task("job", "job", words, folder / "job", True, folder / "log")
    data = compose(task.words).config.data
    assert (data.cache, data.workers) == ("of (all)", 0)


def test_pretrained_weights_are_needed_only_by_new_jobs(sweep: Sweeper, folder: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(64, 3, 11, 11), "features.0.bias": torch.zeros(64)}, folder / "w.pt")
    words = ["model=monster", "model.nb_residual_blocks=1", "model.nb_channels=8", "model.pretrained=w.pt"]
    result = sweep(*words, "data=synthetic", "seed=0", quiet=True)
    (folder / "w.pt").unlink()
    (status,) = result.directory.glob("*/status.json")
    status.write_text(status.read_text().replace('"done"', '"killed-by-signal"'))
    written = ledger.Ledger(result.directory / "ledger.jsonl")
    written.record(*(replace(entry, state="interrupted") for entry in written.entries.values()))
    written.close()
    again = sweep(f"resume={result.directory}", quiet=True)
    assert [(row.state, row.tries) for row in again.rows] == [("done", 2)]
    with pytest.raises(InputError, match=r"w\.pt cannot be read"):
        sweep(f"resume={result.directory}", "seed=0,1", quiet=True)


def test_resolvers_of_hydra_work_in_jobs(sweep: Sweeper) -> None:
    assert sweep(*QUICK, "seed=0,1", "name=x${now:%Y}", quiet=True).failures == []


def test_a_failed_job_is_retried(sweep: Sweeper) -> None:
    result = sweep(*QUICK, "model.trouble=once,raise", "hydra.launcher.retries=1", quiet=True)
    assert [(row.state, row.tries) for row in result.rows] == [("done", 2), ("failed", 2)]


def test_a_job_without_its_result_has_a_row_with_the_reason(sweep: Sweeper, capsys: pytest.CaptureFixture[str]) -> None:
    result = sweep(*QUICK, "seed=0,1", quiet=True)
    (result.directory / "seed=0" / "summary.json").unlink()
    again = sweep(f"resume={result.directory}")
    assert [(row.state, row.summary is None) for row in again.rows] == [("failed", True), ("done", False)]
    out = capsys.readouterr().out
    why = f"its result cannot be read: {result.directory}/seed=0/summary.json is missing; put that file back, or remove"
    assert "1 of 2 jobs failed:" in out and f"  seed=0: failed: {why}" in out
    with (result.directory / "table.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first["status"] == "failed" and why in first["reason"] and first["test_errors"] == ""
    assert second["status"] == "done" and second["test_errors"] != ""
    shutil.rmtree(result.directory / "seed=0")
    assert sweep(f"resume={result.directory}", quiet=True).failures == [], "which is what the reason says to do"


def test_an_unreadable_result_does_not_end_the_sweep(
    sweep: Sweeper, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read_summary(run: Path) -> dict[str, Any]:
        if run.name == "seed=0":
            raise InputError("it is gone")
        return original(run)

    original = directory.read_summary
    monkeypatch.setattr(directory, "read_summary", read_summary)
    assert [row.state for row in sweep(*QUICK, "seed=0,1").rows] == ["failed", "done"]
    assert "seed=0: failed: its result cannot be read: it is gone" in capsys.readouterr().out


def test_on_failure_stop_starts_no_further_jobs(sweep: Sweeper, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["hydra.launcher.on_failure=stop", "hydra.launcher.jobs=1"]
    result = sweep(*QUICK, *words, "model.trouble=raise,none")
    assert [row.state for row in result.rows] == ["failed", "queued"]
    out = capsys.readouterr().out
    assert "1 of 2 jobs is not finished: 1 not run\n" in out and "model.trouble=none" not in out
    assert "none,queued" in (result.directory / "table.csv").read_text()


def test_no_retry_is_announced_once_a_failure_has_stopped_the_sweep(sweep: Sweeper, folder: Path) -> None:
    shown: list[bool] = []
    display: Any = types.SimpleNamespace(ended=lambda *_, again: shown.append(again))
    entry = ledger.Entry("seed=0", "a", [], "running")
    book: Any = types.SimpleNamespace(entries={"a": entry, "b": entry}, record=lambda _: None)
    config = LauncherConfig(on_failure="stop", retries=1)
    told = JobWatcher(config, folder, book, display, lambda *_: cast(Any, None), list)
    told.tries = {"a": 2, "b": 1}
    for name in "ab":
        task = Task(f"seed={name}", name, [], folder / name, False, folder / "log")
        told.ended(task, Ending("failed", "why"), stopping=False)
    assert shown == [False, False] and not told.wants_more()


def test_a_running_sweep_is_locked(sweep: Sweeper) -> None:
    from deepexp.sweep.directory import SweepDirectory

    result = sweep(*QUICK, "seed=0,1", quiet=True)
    at_work = SweepDirectory.open(result.directory)
    with pytest.raises(InputError, match="belongs to a sweep that is still alive"):
        sweep(f"resume={result.directory}", quiet=True)
    at_work.close()


def test_hydras_basic_sweeper_works(sweep: Sweeper) -> None:
    result = sweep(*QUICK, "hydra/sweeper=basic", "seed=range(2)", quiet=True)
    assert [row.name for row in result.rows] == ["seed=0", "seed=1"] and result.failures == []


class Searching(HydraSweeper):
    """A stand-in for a third party's sweeper: launches one point, reads its result, and launches another."""

    seen: list[Any]

    def __init__(self, **_: Any) -> None:
        pass

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        fixed = [word for word in arguments if "interval" not in word]
        for index, rate in enumerate(["0.01", "0.1"]):
            (result,) = self.launcher.launch([[*fixed, f"optim.lr={rate}"]], initial_job_idx=index)
            Searching.seen.append(result.return_value)


Searching.__module__ = "hydra_plugins.searching"


@pytest.fixture
def searching(monkeypatch: pytest.MonkeyPatch) -> str:
    module = types.ModuleType(Searching.__module__)
    module.Searching = Searching  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, Searching.__module__, module)
    Plugins.instance().register(Searching)
    Searching.seen = []
    return "hydra.sweeper._target_=hydra_plugins.searching.Searching"


@pytest.mark.parametrize(
    ("words", "key"),
    [(["val_fraction=0.2"], "val_error_rate"), (["hydra.launcher.objective=test_error_rate"], "test_error_rate")],
)
def test_a_third_partys_sweeper_gets_the_objective(sweep: Sweeper, searching: str, words: list[str], key: str) -> None:
    result = sweep(*QUICK, searching, *words, "optim.lr=interval(0.01,0.1)", quiet=True)
    assert [row.name for row in result.rows] == ["optim.lr=0.01", "optim.lr=0.1"]
    assert Searching.seen == [row.summary[key] for row in result.rows]  # type: ignore[index]
    assert None not in Searching.seen


def test_the_test_error_is_the_objective_only_if_asked_for(sweep: Sweeper, searching: str) -> None:
    with pytest.raises(InputError, match="val_fraction"):
        sweep(*QUICK, searching, "optim.lr=interval(0.01,0.1)", quiet=True)


def test_a_preset_can_define_a_sweep(sweep: Sweeper, folder: Path) -> None:
    (folder / "conf" / "experiment").mkdir()
    (folder / "conf" / "experiment" / "rates.yaml").write_text(
        "# @package _global_\n# two rates\n"
        "hydra:\n  sweeper:\n    params:\n      optim.lr: 0.01,0.1\n      order: sequential\n"
    )
    result = sweep(*QUICK, "experiment=rates", quiet=True)
    assert [row.name for row in result.rows] == ["optim.lr=0.01", "optim.lr=0.1"]
    saved = (result.directory / "optim.lr=0.1" / ".hydra" / "config.yaml").read_text()
    assert "order: sequential" in saved


def test_values_that_are_no_folder_names_can_be_swept(sweep: Sweeper) -> None:
    result = sweep(*QUICK, "freeze=[],[{pattern: 'linear.*', epochs: 0}]", quiet=True)
    assert result.failures == []
    assert all((result.directory / row.name).is_dir() for row in result.rows)
