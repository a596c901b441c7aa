import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from deepexp.sweep import display
from deepexp.sweep.display import Display
from deepexp.sweep.worker import Ending, Progress, Task
from deepexp.text.console import Console

from ..screen import Terminal


def task(name: str) -> Task:
    return Task(name, name, [], Path(name), False, Path("log"))


def make_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal as standard output and error."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setattr("sys.stderr", terminal)
    return terminal


SUMMARY = {"test_errors": 12, "test_samples": 1000, "test_error_rate": 0.012, "val_error_rate": None}


def draw(screen: Display) -> None:
    screen.begin(Path("outputs/x"), 4, 1, 2)
    screen.started(task("seed=1"))
    screen.started(task("seed=2"))
    screen.progress(task("seed=1"), Progress(0.0, 0, None))
    screen.progress(task("seed=1"), Progress(0.5, 1, 0.25))
    screen.ended(task("seed=2"), Ending("failed", "diverged", 3.0), None, again=False)
    screen.progress(task("seed=1"), Progress(0.75, 2, 0.25))
    screen.tick()


def test_piped_output_has_one_line_a_job(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Display(Console())
    draw(screen)
    screen.ended(task("seed=1"), Ending("done", None, 5.0), SUMMARY, again=False)
    out, err = capsys.readouterr()
    assert out.splitlines()[1:] == [
        "4 jobs, 1 of them done before, 2 at a time",
        "[2/4] seed=2: failed: diverged, 3.00 s",
        "[3/4] seed=1: test error 1.20% (12 of 1,000), 5.00 s",
    ]
    assert err == ""


def test_an_interrupted_job_has_not_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = make_terminal(monkeypatch)
    screen = Display(Console())
    draw(screen)
    screen.ended(task("seed=1"), Ending("interrupted", "stopped after step 3", 5.0), None, again=False)
    written = re.sub(r"\x1b\[[\d;]*m", "", terminal.getvalue())
    assert "[2/4] seed=1: interrupted: stopped after step 3, 5.00 s" in written
    assert "1 done, 1 queued, 1 failed, 1 interrupted" in written.rpartition("\r")[2]


def test_on_a_terminal_each_running_job_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = make_terminal(monkeypatch)
    monkeypatch.setattr(display, "_REDRAW_SECONDS", 0.0)
    draw(Display(Console()))
    written = re.sub(r"\x1b\[[\d;]*m", "", terminal.getvalue())
    first, second = written.rpartition("\r")[2].split("\n")
    assert "1 done, 1 running, 1 queued, 1 failed" in first and "eta" in first and first.startswith(" 69%")
    assert "seed=1  epoch 2  test 25.00%" in second and second.startswith(" 75%")
    # Earlier lines are erased one by one, with a step up for each line above the last.
    assert written.count("\x1b[A") >= 2


def test_a_job_that_is_tried_again_has_not_failed_yet(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Display(Console())
    screen.begin(Path("outputs/x"), 2, 0, 1)
    for again in (True, False):
        screen.started(task("seed=1"))
        screen.ended(task("seed=1"), Ending("failed", "diverged", 3.0), None, again=again)
    out, _ = capsys.readouterr()
    assert out.splitlines()[2:] == [
        "[0/2] seed=1: failed: diverged, 3.00 s; tried again",
        "[1/2] seed=1: failed: diverged, 3.00 s",
    ]


def test_the_remaining_time_is_estimated_from_work_done_by_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a job that was resumed in its middle, only the second half counts."""
    now = [0.0]
    monkeypatch.setattr(display, "time", SimpleNamespace(monotonic=lambda: now[0]))
    terminal = make_terminal(monkeypatch)
    screen = Display(Console())
    screen.begin(Path("outputs/x"), 3, 0, 1)

    def left() -> str:
        now[0] += 60
        screen.tick()
        written = re.sub(r"\x1b\[[\d;]*m", "", terminal.getvalue()).rpartition("\r")[2]
        return written.split("\n")[0].partition("eta ")[2].split()[0]

    screen.started(task("seed=1"))
    screen.progress(task("seed=1"), Progress(0.5, 1, None))
    screen.progress(task("seed=1"), Progress(0.75, 2, None))
    assert left() == "9:00"  # a quarter in a minute, nine to come
    screen.ended(task("seed=1"), Ending("done", None, 60.0), SUMMARY, again=False)
    screen.started(task("seed=2"))
    assert left() == "8:00"  # two quarters in two minutes, eight to come


def test_the_bars_are_removed_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = make_terminal(monkeypatch)
    screen = Display(Console())
    draw(screen)
    screen.end()
    assert terminal.getvalue().endswith("\r\x1b[K")
    drawn = terminal.tell()
    screen._console.print("a line")
    assert terminal.getvalue()[drawn:] == "a line\n"
