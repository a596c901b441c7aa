import dataclasses
import io
import logging
import re
import time
from types import SimpleNamespace

import pytest

from deepexp.metrics import EpochMetrics, Summary
from deepexp.text.console import Console, Header, Horizon, progress, short_path

from ..screen import Terminal

HORIZON = Horizon(epochs=3, steps_per_epoch=100, total_steps=300)


class Clock:
    """A clock that a test sets."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return clock


@pytest.fixture
def terminal(monkeypatch):
    """Standard output and error on the same terminal."""
    terminal = Terminal()
    show_on(monkeypatch, terminal, terminal)
    return terminal


@pytest.fixture
def files(monkeypatch):
    """Standard output and error in two files."""
    out, err = io.StringIO(), io.StringIO()
    show_on(monkeypatch, out, err)
    return out, err


def show_on(monkeypatch, out, err):
    # Not in the real `sys`: pytest replaces its streams between a fixture and its test.
    monkeypatch.setattr("deepexp.text.console.sys", SimpleNamespace(stdout=out, stderr=err))


def header(tmp_path):
    return Header(
        model="mnist_net",
        parameters=105_506,
        data="digits: 1,437 training and 360 test samples of 1×28×28, 10 classes",
        device="cpu (2 threads)",
        directory=tmp_path / "outputs" / "mnist_net" / "2025-03-01_12-00-00_abcdef",
    )


def test_one_parameter_is_counted_as_one(tmp_path):
    rows = dataclasses.replace(header(tmp_path), parameters=1).rows()
    assert rows["model"] == "mnist_net, 1 parameter"


def metrics(epoch):
    return EpochMetrics(
        epoch=epoch,
        step=100 * epoch,
        train_loss=0.5,
        train_error_rate=0.125,
        test_loss=0.4,
        test_errors=36,
        test_error_rate=0.1,
        val_loss=None,
        val_error_rate=None,
        lr=0.1,
        grad_norm=1.0,
        samples_per_second=5000.0,
        train_seconds=2.0,
        test_seconds=0.5,
        elapsed_seconds=2.5 * epoch,
    )


SUMMARY = Summary(
    status="done",
    model="mnist_net",
    data="digits",
    optim="sgd",
    seed=0,
    epochs=3,
    steps=300,
    test_errors=9,
    test_samples=360,
    test_error_rate=0.025,
    test_loss=0.1,
    val_error_rate=None,
    best_epoch=None,
    train_seconds=6.0,
    total_seconds=7.5,
    samples_per_second=5000.0,
    device="cpu",
    precision="fp32",
    pretrained=None,
    parameters=105_506,
)


def whole_run(console, clock, tmp_path):
    """Show a whole run; returns the screen of the terminal in the middle of it."""
    shown = None
    with console:
        console.header(header(tmp_path))
        console.begin(HORIZON, has_validation=False)
        for epoch in (1, 2, 3):
            for step in range(100 * epoch - 99, 100 * epoch + 1):
                clock.now += 0.02
                console.tick(step, 100)
                if step % 50 == 0:
                    console.reading(0.1234, 5000.0)
                if step == 180:
                    logging.getLogger("deepexp.data").warning("something\nof two lines")
                    shown = console._out._file.getvalue()
                    if isinstance(console._out._file, Terminal):
                        shown = console._out._file.screen()
            console.epoch(metrics(epoch))
        directory = header(tmp_path).directory
        console.finish(SUMMARY, None, directory, directory.parent.parent)
    return shown


@pytest.mark.parametrize("width", [80, 200])
def test_a_run_on_a_terminal(terminal, clock, tmp_path, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.chdir(tmp_path)
    middle = whole_run(Console(), clock, tmp_path)
    *_, first_line, second, third, bar = middle
    assert first_line.split()[:2] == ["1/3", "0.5000"]
    assert (second, third) == ("warning: something", "of two lines")
    assert re.fullmatch(r" 5\d% ━+╸?━*  epoch 2/3  loss 0\.1234  test 10\.00%  eta 0:02  5,000.*/s", bar)

    end = terminal.screen()
    text = "\n".join(end)
    assert max(map(len, end)) <= width
    assert "mnist_net, 105,506 parameters" in text
    assert text.count("outputs/mnist_net/2025-03-01_12-00-00_abcdef") == 2
    rows = [line for line in end if re.match(r" +\d/3 ", line)]
    assert [row.split()[0] for row in rows] == ["1/3", "2/3", "3/3"]
    (title,) = (line for line in end if line.startswith("epoch "))
    assert {len(row) for row in rows} == {len(title)}
    assert "done: test error 2.50% (9 of 360) after 3 epochs, 7.50 s" in end
    assert "curves and pictures: tensorboard --logdir outputs" in end
    assert "eta" not in text, "the bar was left behind"


def test_no_bar_follows_the_result(terminal, tmp_path):
    console = Console()
    console.begin(HORIZON, has_validation=False)
    console.tick(1, 100)
    assert "epoch 1/3" in terminal.screen()[-1]
    console.finish(SUMMARY, None, tmp_path, tmp_path)
    console.tick(2, 100)
    assert terminal.screen()[-1] == ""


def test_a_run_with_both_streams_in_files(files, clock, tmp_path):
    whole_run(Console(), clock, tmp_path)
    out, err = (file.getvalue() for file in files)
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", out + err)
    assert "model          mnist_net, 105,506 parameters\n" in out
    assert len(re.findall(r"^ +[123]/3 ", out, re.MULTILINE)) == 3
    assert "done: test error 2.50% (9 of 360)" in out
    assert err == "warning: something\nof two lines\n"


def test_a_run_with_results_in_a_file_and_the_bar_on_the_terminal(terminal, clock, tmp_path, monkeypatch):
    out = io.StringIO()
    show_on(monkeypatch, out, terminal)
    whole_run(Console(), clock, tmp_path)
    assert "\x1b" not in out.getvalue()
    assert "done: test error 2.50%" in out.getvalue()
    assert "epoch 2/3" in terminal.getvalue()
    assert terminal.screen() == ["warning: something", "of two lines", ""]


def test_without_a_bar_progress_is_printed_each_minute(files, clock):
    console = Console()
    console.begin(HORIZON, has_validation=False)
    for step in range(1, 61):
        console.tick(step, 100)
        clock.now += 5
    assert files[1].getvalue().splitlines() == [
        f"{share}%, epoch 1/3, eta {eta}, 20/s"
        for share, eta in [(4, "23:55"), (8, "22:55"), (12, "21:55"), (16, "20:55")]
    ]


def test_no_color_turns_colours_off(terminal, clock, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    whole_run(Console(), clock, tmp_path)
    assert not re.search(r"\x1b\[[\d;]*m", terminal.getvalue())
    assert "epoch 2/3" in terminal.getvalue(), "the bar is no colour"


@pytest.mark.parametrize("variables", [{"TERM": "dumb"}, {}])
def test_plain_lines_on_a_dumb_terminal_and_on_demand(terminal, clock, tmp_path, monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    whole_run(Console("auto" if variables else "plain"), clock, tmp_path)
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", terminal.getvalue())


def test_a_quiet_console_prints_nothing(terminal, clock, tmp_path):
    whole_run(Console("quiet"), clock, tmp_path)
    with Console("quiet"), progress("reading", 10, "pictures") as bar:
        bar.advance(10)
    assert terminal.getvalue() == ""


def test_the_bar_is_drawn_at_most_ten_times_a_second(terminal, clock):
    console = Console()
    console.begin(Horizon(1, 10_000, 10_000), has_validation=False)
    for step in range(1, 10_001):
        clock.now += 0.0003
        console.tick(step, 1)
    assert 25 <= terminal.getvalue().count("\r") <= 31  # in 3 seconds


def test_speed_and_eta_leave_out_time_and_steps_before_the_first_step(terminal, clock):
    console = Console()
    console.begin(Horizon(10, 100, 1000, step=500), has_validation=False)
    clock.now += 60  # as while the graph of the model is traced
    for step in range(501, 601):
        console.tick(step, 10)
        clock.now += 0.5
    (line,) = terminal.screen()
    assert " 60% " in line and "epoch 6/10" in line and "20/s" in line
    assert "eta 3:20" in line


def test_max_minutes_bounds_the_eta(terminal, clock):
    console = Console()
    console.begin(Horizon(10, 100, 1000, seconds=90), has_validation=False)
    for step in (1, 2):
        console.tick(step, 10)
        clock.now += 60
    console.tick(3, 10)
    assert "eta 0:00" in terminal.screen()[0]


def test_a_stopped_run_prints_the_resume_command(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    console = Console()
    console.stopped("stopped by Ctrl-C after step 7", tmp_path / "a b" / "x=1", can_go_on=True)
    console.stopped("nothing was saved", tmp_path / "c", can_go_on=False)
    assert files[0].getvalue().splitlines() == [
        "stopped by Ctrl-C after step 7",
        "go on with: deepexp train 'resume=a b/x=1'",
        "nothing was saved",
    ]


def test_warnings_are_shown_only_while_the_console_is_open(files):
    logger = logging.getLogger("deepexp.models")
    before = list(logging.getLogger("deepexp").handlers)
    with Console():
        logger.warning("the first layer is random")
        logger.info("a detail")
    assert logging.getLogger("deepexp").handlers == before
    assert files[1].getvalue() == "warning: the first layer is random\n"


def test_names_cannot_control_the_terminal(terminal, tmp_path):
    console = Console()
    console.header(Header("m\x1b[2J", 1, "d\r\n", "cpu", tmp_path / "a\x07"))
    console.warn("one\x1b[2J\ntwo")
    left = re.sub(r"\x1b\[[\d;]*m", "", terminal.getvalue())
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", left)


def test_paths_are_shown_relative_where_that_is_shorter(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert short_path(tmp_path / "work" / "outputs") == "outputs"
    assert short_path(tmp_path / "outputs") == str(tmp_path / "outputs")


def test_progress_on_a_terminal(terminal, clock):
    with progress("reading cifar10", 60_000, "pictures") as bar:
        for _ in range(4):
            bar.advance(10_000)
            clock.now += 1
        (line,) = terminal.screen()
    assert re.fullmatch(r" 67% ━+╸?━*  reading cifar10  40,000 pictures of 60,000  eta 0:02", line)
    assert terminal.screen() == ["reading cifar10: 40,000 pictures in 4.00 s", ""]


def test_progress_without_a_known_total(terminal, clock):
    with progress("downloading", None, "B") as bar:
        bar.advance(2_500_000)
        assert terminal.screen() == ["downloading  2.5 MB"]
    assert terminal.screen() == ["downloading: 2.5 MB in 0.00 s", ""]


def test_progress_in_a_file(files, clock):
    with progress("downloading", 170_498_071, "B") as bar:
        bar.advance(170_498_071)
        clock.now += 12.34
    assert files[0].getvalue() == ""
    assert files[1].getvalue().splitlines() == [
        "downloading: 170.5 MB",
        "downloading: 170.5 MB in 12.3 s",
    ]


def test_failed_progress_removes_its_bar(terminal):
    with pytest.raises(ValueError, match="broken"), progress("reading", 10, "pictures") as bar:
        bar.advance(1)
        raise ValueError("broken")
    assert terminal.screen() == [""]


def test_nothing_heavy_is_imported_for_progress():
    import subprocess
    import sys

    code = (
        "import sys, deepexp.text.console; print({'torch', 'rich', 'tensorboard', 'numpy', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
