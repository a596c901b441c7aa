"""Successive halving: which jobs go on after a look, and whole sweeps with it."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

import deepexp
from deepexp.errors import InputError, Interrupted
from deepexp.report import runs
from deepexp.sweep import ledger
from deepexp.sweep.command import SweepResult, run_sweep
from deepexp.sweep.halving import Halving
from deepexp.sweep.jobs import Sweep
from deepexp.sweep.ledger import Entry
from deepexp.sweep.points import Point
from deepexp.sweep.settings import LauncherConfig
from deepexp.sweep.watcher import JobWatcher
from deepexp.sweep.worker import Ending, Task
from deepexp.text.console import Console

from .conftest import SMALL, Sweeper

TAKES = ((1, 28, 28), 10)
RATES = ("val_fraction=0.2", "epochs=4", "optim.lr=0.001,0.03,0.1,0.3", "hydra.launcher.halving=2")


@dataclass
class Jobs:
    """Jobs of a sweep, with made-up errors for each epoch."""

    folder: Path
    points: list[Point] = field(default_factory=list)
    entries: dict[str, Entry] = field(default_factory=dict)

    def add(
        self, name: str, errors: list[float], *, seed: int = 0, loss: float = 1.0, state: str = "paused", every: int = 1
    ) -> Point:
        config: Any = SimpleNamespace(evaluate_every=every)
        key = f"{name},{seed}"
        point = Point(key, {"optim.lr": name, "seed": str(seed)}, [], key, key, 9, TAKES, config)
        (self.folder / key).mkdir()
        lines = [{"epoch": n, "val_error_rate": e, "val_loss": loss} for n, e in enumerate(errors, 1)]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (self.folder / key / "metrics.jsonl").write_text(text + '{"epoch": 7, "val_err')
        self.points.append(point)
        self.entries[key] = Entry(key, key, [], cast(Any, state), directory=key)
        return point

    def best(self, halving: Halving) -> list[str]:
        next(halving.looks())
        return [point.name for point in halving.best(self.points, self.entries)]


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(tmp_path)


def halving(
    folder: Path, factor: int | None, settings: int, epochs: int, first: int = 1, every: tuple[int, ...] = (1,)
) -> Halving:
    points = [Point("a", {}, [], "a", "a", epochs, TAKES, cast(Any, SimpleNamespace(evaluate_every=n))) for n in every]
    return Halving(LauncherConfig(halving=factor, halving_from=first), settings, points, folder)


@pytest.mark.parametrize(
    ("factor", "settings", "epochs", "first", "looks"),
    [
        (3, 27, 27, 1, [1, 3, 9]), (3, 26, 27, 1, [3, 9]), (3, 1000, 27, 1, [1, 3, 9]), (3, 27, 27, 2, [3, 9]),
        (2, 8, 10, 1, [1, 2, 5]), (4, 4, 30, 1, [8]), (3, 40, 20, 1, [2, 7]), (3, 2, 27, 1, []), (3, 9, 2, 1, []),
        (None, 27, 27, 1, []),
    ],
)  # fmt: skip
def test_epochs_of_the_looks(
    tmp_path: Path, factor: int | None, settings: int, epochs: int, first: int, looks: list[int]
) -> None:
    made = halving(tmp_path, factor, settings, epochs, first)
    point = Point("a", {}, [], "a", "a", epochs, TAKES, cast(Any, SimpleNamespace(evaluate_every=1)))
    assert [made.until(point) for _ in made.looks()] == [*looks, None] and made.share is None


def test_looks_are_at_evaluations(tmp_path: Path) -> None:
    made = halving(tmp_path, 3, 27, 27)
    every = [Point("a", {}, [], "a", "a", 27, TAKES, cast(Any, SimpleNamespace(evaluate_every=n))) for n in (2, 5, 20)]
    assert [[made.until(point) for point in every] for _ in made.looks()] == [
        [2, 5, 20], [4, 5, 20], [10, 10, 20], [None, None, None],
    ]  # fmt: skip


def test_too_few_settings_or_epochs_for_a_look_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    halving(tmp_path, 3, 2, 27)
    assert "halving=3: too few for a look on the way: 2 settings of 27 epochs\n" in caplog.text
    assert halving(tmp_path, 3, 9, 9, first=6, every=(5, 9)).shares == []
    assert "9 settings of 9 epochs, evaluate_every=5, halving_from=6\n" in caplog.text
    assert halving(tmp_path, 3, 9, 9, every=(9,)).shares == []  # each run would end before a look
    assert len(halving(tmp_path, 3, 9, 9, every=(9, 5)).shares) == 1


@pytest.mark.parametrize(("every", "looks"), [((5,), [5]), ((2,), [2, 4]), ((3,), [3]), ((5, 1), [5, 5])])
def test_looks_before_the_same_evaluation_count_once(tmp_path: Path, every: tuple[int, ...], looks: list[int]) -> None:
    """Otherwise two looks at the same evaluation would leave a ninth of the settings instead of a third."""
    made = halving(tmp_path, 3, 9, 9, every=every)
    point = Point("a", {}, [], "a", "a", 9, TAKES, cast(Any, SimpleNamespace(evaluate_every=every[0])))
    assert [made.until(point) for _ in made.looks()] == [*looks, None]


def test_the_best_third_goes_on(jobs: Jobs, tmp_path: Path) -> None:
    for name, error in (("1", 0.5), ("2", 0.2), ("3", 0.4), ("4", 0.3), ("5", 0.6), ("6", 0.7), ("7", 0.8)):
        jobs.add(name, [0.9, 0.9, error])
    assert jobs.best(halving(tmp_path, 3, 7, 9)) == ["2,0", "3,0", "4,0"]


def test_ties_are_broken_by_loss_and_then_by_order(jobs: Jobs, tmp_path: Path) -> None:
    jobs.add("1", [0.5] * 5, loss=2.0)
    jobs.add("2", [0.5] * 5, loss=1.0)
    jobs.add("3", [0.5] * 5, loss=1.0)
    assert jobs.best(halving(tmp_path, 3, 3, 9)) == ["2,0"]


def test_seeds_of_a_setting_go_on_together_by_their_mean(jobs: Jobs, tmp_path: Path) -> None:
    for seed, errors in enumerate(((0.1, 0.3, 0.4), (0.6, 0.3, 0.4))):
        for name, error in zip("abc", errors, strict=True):
            jobs.add(name, [error] * 3, seed=seed)
    assert jobs.best(halving(tmp_path, 3, 3, 9)) == ["b,0", "b,1"]


def test_failed_jobs_come_last(jobs: Jobs, tmp_path: Path) -> None:
    jobs.add("a", [], state="failed")
    jobs.add("b", [0.95] * 3)
    jobs.add("c", [0.1, 0.1, 0.1], state="failed")  # failed after the third evaluation, before it was saved
    assert jobs.best(halving(tmp_path, 3, 3, 9)) == ["b,0"]


def test_a_run_counts_by_its_error_at_the_look(jobs: Jobs, tmp_path: Path) -> None:
    jobs.add("a", [0.5, 0.5, 0.2, 0.9], state="interrupted")  # stopped beyond the look
    jobs.add("b", [0.1, 0.1, 0.3, 0.1, 0.1], state="done")
    jobs.add("c", [0.25], state="done")  # it ended early
    assert jobs.best(halving(tmp_path, 3, 3, 9)) == ["a,0"]
    made = halving(tmp_path, 3, 3, 9)
    scores = [made.score(point, jobs.entries[point.name], 1 / 3) for point in jobs.points]
    assert [score and score.error for score in scores] == [0.2, 0.3, 0.25]


def states(result: SweepResult) -> dict[str, str]:
    return {row.name.partition("=")[2]: row.state for row in result.rows}


def epochs_of(result: SweepResult) -> dict[str, int]:
    return {
        row.name.partition("=")[2]: len(
            (result.directory / str(row.directory) / "metrics.jsonl").read_text().splitlines()
        )
        for row in result.rows
        if row.state != "failed"
    }


def test_halving_of_a_grid(sweep: Sweeper, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = sweep(*RATES, "dropout=0.2")
    scores = {}
    for row in result.rows:
        lines = (result.directory / str(row.directory) / "metrics.jsonl").read_text().splitlines()
        scores[row.varying["optim.lr"]] = [
            (line["val_error_rate"], line["val_loss"]) for line in map(json.loads, lines)
        ]
    better = sorted(scores, key=lambda rate: scores[rate][0])[:2]
    best, loser = sorted(better, key=lambda rate: scores[rate][1])
    assert epochs_of(result) == {rate: 4 if rate == best else 2 if rate == loser else 1 for rate in scores}
    assert states(result) == {rate: "done" if rate == best else "paused" for rate in scores} and not result.failures
    out = capsys.readouterr().out
    assert "4 jobs, 2 at a time, to epoch 1 of 4\n" in out
    assert "the best go on to epoch 2 of 4: 2 jobs\n" in out and "the best go on to the end: 1 job\n" in out
    table = [line.split() for line in out.splitlines() if " paused at epoch " in line]
    assert table[0][:2] == [loser, f"({100 * scores[loser][1][0]:.2f}%)"]
    assert [line[-1] for line in table] == ["2", "1", "1"] and table[1][1] <= table[2][1]
    (line,) = [line for line in out.splitlines() if "jobs paused, as others were better" in line]
    assert line.startswith("3 of 4 jobs paused") and line.endswith(f"/optim.lr={loser}")  # the best of them
    assert "not finished" not in out
    # A run that was paused twice equals one without pauses.
    small = [word for word in SMALL if not word.startswith("epochs")]
    alone = deepexp.train([*small, *RATES[:2], "dropout=0.2", f"optim.lr={best}", "output_dir=alone"], quiet=True)
    assert alone is not None
    job = deepexp.load_run(result.directory / f"optim.lr={best}")
    assert [line["train_loss"] for line in job.metrics] == [line["train_loss"] for line in alone.metrics]
    both = [np.load(run.directory / "predictions.npz")["predicted"] for run in (job, alone)]
    assert (both[0] == both[1]).all()
    # A paused run can be resumed to its end.
    went_on = deepexp.train([f"resume={result.directory / f'optim.lr={loser}'}"], quiet=True)
    assert went_on is not None and went_on.epochs == 4
    found = {run.path.name: run.status for run in runs.read([result.directory]).runs}
    assert sorted(found.values()) == ["done", "done", "paused", "paused"]
    again = run_sweep([f"resume={result.directory}"], Console("quiet"))
    assert {row.tries for row in (*result.rows, *again.rows)} == {1}
    assert states(again) == {**states(result), loser: "done"}
    whole = run_sweep([f"resume={result.directory}", "hydra.launcher.halving=null"], Console("quiet"))
    assert set(states(whole).values()) == {"done"}


def test_a_stopped_halving_resumes_to_the_same_end(
    sweep: Sweeper, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("val_fraction=0.2", "epochs=4", "optim.lr=0.01,0.03,0.1,0.3", "hydra.launcher.halving=2")
    expected = sweep(*words, quiet=True)
    seen: list[Any] = []
    original = Sweep.task

    def task(self: Sweep, point: Point, entry: Entry) -> Any:
        seen.append(point)
        if len(seen) == 6:  # the second of the jobs that go on after the first look
            raise Interrupted(2, "stopped")
        return original(self, point, entry)

    monkeypatch.setattr(Sweep, "task", task)
    capsys.readouterr()
    with pytest.raises(Interrupted):
        sweep(*words)
    monkeypatch.undo()
    out = capsys.readouterr().out
    assert "2 of 4 jobs are not finished: 2 paused\n" in out and "2 of 4 jobs paused, as others were better" in out
    monkeypatch.chdir(folder)
    (stopped,) = {path.parent for path in folder.rglob("ledger.jsonl")} - {expected.directory}
    assert all(entry.state == "paused" for entry in ledger.read(stopped / "ledger.jsonl").values())
    capsys.readouterr()
    result = run_sweep([f"resume={stopped}"], Console("plain"))
    assert "4 jobs, 4 of them done before, 2 at a time, to epoch 1 of 4" in capsys.readouterr().out
    assert states(result) == states(expected) and epochs_of(result) == epochs_of(expected)
    assert [row.reason for row in result.rows] == [row.reason for row in expected.rows]


def test_a_paused_job_without_its_metrics_begins_anew(sweep: Sweeper, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("val_fraction=0.2", "epochs=9", "max_steps=8", "optim.lr=0.01,0.1", "hydra.launcher.halving=2")
    result = sweep(*words, quiet=True)
    (left,) = [row for row in result.rows if row.state == "paused"]
    assert str(left.reason).startswith("paused after 2 of 4 epochs")  # of two steps each
    (result.directory / str(left.directory) / "metrics.jsonl").unlink()
    capsys.readouterr()
    again = run_sweep([f"resume={result.directory}"], Console("plain"))
    assert f"{left.name}: failed: its evaluations are lost with its metrics.jsonl" in capsys.readouterr().out
    assert [row.reason for row in again.rows] == [row.reason for row in result.rows]
    assert [row.directory for row in again.rows if row.name == left.name] == [f"{left.name}~2"]


def test_a_search_uses_the_errors_at_the_first_look(sweep: Sweeper, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("val_fraction=0.2", "epochs=4", "optim.lr=tag(log,interval(1e-3,1))", "hydra.launcher.halving=2")
    search = ("hydra.sweeper.search=tpe", "hydra.launcher.jobs=1")
    result = sweep(*words, *search, "hydra.sweeper.samples=4")
    out = capsys.readouterr().out
    assert (
        "4 jobs, 1 at a time, chosen by tpe over optim.lr for the least val_error_rate, to 25% of their epochs" in out
    )
    assert "the best go on to epoch 2 of 4: 2 jobs" in out and "the best go on to the end: 1 job" in out
    (done,) = [row for row in result.rows if row.state == "done"]
    assert done.summary is not None
    best = f"best of 4 settings by val error: {done.name}: val error {100 * done.summary['val_error_rate']:.2f}%"
    assert best in out
    more = run_sweep([f"resume={result.directory}", "hydra.sweeper.samples=5"], Console("plain"))
    out = capsys.readouterr().out
    assert "5 jobs, 4 of them done before" in out and len(more.rows) == 5 and out.count("paused at epoch 1") >= 2


def test_no_job_goes_on_after_a_failure_with_on_failure_stop(
    sweep: Sweeper, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("model=troubled", "val_fraction=0.2", "epochs=4", "model.trouble=none,raise,once,slow")
    one = ("hydra.launcher.halving=2", "hydra.launcher.on_failure=stop", "hydra.launcher.jobs=1")
    result = sweep(*words, *one)
    assert [row.state for row in result.rows] == ["paused", "failed", "queued", "queued"]
    out = capsys.readouterr().out
    assert "3 of 4 jobs are not finished: 1 paused, 2 not run\n" in out and "as others were better" not in out


def test_a_job_that_failed_before_a_look_is_not_tried_again(sweep: Sweeper, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("model=troubled", "val_fraction=0.2", "epochs=4", "model.trouble=once,raise", "hydra.launcher.halving=2")
    result = sweep(*words, "hydra.launcher.jobs=1")
    assert [(row.state, row.tries) for row in result.rows] == [("failed", 1), ("failed", 1)]
    assert "the best go on" not in capsys.readouterr().out


def test_a_pause_does_not_use_up_a_retry(tmp_path: Path) -> None:
    book: Any = SimpleNamespace(entries={"a": Entry("a", "a", [], "running")}, record=lambda *_: None)
    display: Any = SimpleNamespace(started=lambda _: None, ended=lambda *_, **__: None)
    jobs: Any = SimpleNamespace(task=lambda *_, anew: "again", is_waiting=lambda _: False, latest=lambda _: None)
    watcher = JobWatcher(LauncherConfig(retries=1), tmp_path, book, display, jobs, list)
    watcher.points["a"] = cast(Any, None)
    task = Task("a", "a", ["optim.lr=1"], tmp_path / "a", False, tmp_path / "log")
    again = []
    for state in ("paused", "failed", "paused", "failed"):
        watcher.starting(task)
        again.append(watcher.ended(task, Ending(cast(Any, state)), stopping=False))
    assert again == [None, "again", None, None]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("hydra.launcher.halving=3",), r"val_fraction=0\.1.*objective=test_error_rate"),
        (("hydra.launcher.halving=3", "val_fraction=0.2", "hydra/sweeper=basic"), "with this sweeper.*=deepexp"),
        (("hydra.launcher.halving=1",), r"hydra\.launcher\.halving: 1 is not allowed"),
        (("hydra.launcher.halving_from=0",), r"hydra\.launcher\.halving_from: 0 is not allowed"),
        (("hydra.launcher.halving_from=2",), r"hydra\.launcher\.halving_from: .* hydra\.launcher\.halving=3"),
    ],
)
def test_wrong_halving_options_are_refused(sweep: Sweeper, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sweep("optim.lr=0.1,0.2,0.3", *words)


def test_a_failed_job_has_the_worst_score() -> None:
    from deepexp.sweep.halving import NOTHING, Score

    assert Score(1.0, 1e300) < NOTHING and math.isinf(NOTHING.loss)
