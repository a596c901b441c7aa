import errno
import io
import logging
import os
import re
import subprocess
import sys
import textwrap

import pytest

from deepexp import cli
from deepexp.text.terminal import StatusLine, Stream, bar, line_with_bar, printable

from ..screen import Terminal


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)


def plain(text):
    return re.sub(r"\x1b\[[\d;]*m", "", text)


@pytest.mark.parametrize(
    ("variables", "is_terminal", "has_colour"),
    [
        ({}, True, True),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"TERM": "dumb"}, False, False),
    ],
)
def test_environment_variables_for_terminals_and_colours(monkeypatch, variables, is_terminal, has_colour):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stream = Stream(Terminal())
    assert (stream.is_terminal, stream.has_colour) == (is_terminal, has_colour)
    assert (stream.styled("x", "good") != "x") == has_colour


@pytest.mark.parametrize(("columns", "width"), [("200", 200), ("", 80), ("0", 80), ("-3", 80), ("wide", 80)])
def test_width_is_taken_from_columns(monkeypatch, columns, width):
    monkeypatch.setenv("COLUMNS", columns)
    assert Stream(io.StringIO()).width == width


@pytest.mark.skipif(os.name == "nt", reason="no pseudo-terminals there")
def test_width_of_a_real_terminal(monkeypatch):
    import fcntl
    import pty
    import struct
    import termios

    monkeypatch.delenv("COLUMNS")
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 133, 0, 0))
    with os.fdopen(follower, "w") as file:
        assert Stream(file).width == 133
    os.close(leader)


def test_characters_that_a_stream_cannot_encode_are_replaced():
    raw = io.BytesIO()
    stream = Stream(io.TextIOWrapper(raw, encoding="ascii"))
    stream.write("runs/ü \udcff 28×28, 1.52–5.05% ± … →\n")
    assert raw.getvalue() == b"runs/\\xfc \\udcff 28x28, 1.52-5.05% +- ... ->\n"
    assert set(bar(stream, 0.5, 10)) <= set("#-")


@pytest.mark.skipif(os.name == "nt", reason="closed pipes raise other errors there")
def test_a_closed_pipe_does_not_end_a_run():
    code = """
        import sys
        from deepexp.text.terminal import Stream
        stream = Stream(sys.stdout)
        for number in range(100_000):
            stream.write(f"{number}\\n")
        print("went on to the end", file=sys.stderr)
    """
    # With buffering, because Python must not complain about unwritten output when it ends.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "0\n"
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 0
    assert "went on to the end" in errors
    assert errors.count("output can no longer be shown (Broken pipe)") == 1
    assert "Traceback" not in errors and "Exception" not in errors


@pytest.mark.parametrize("full", [False, True], ids=["closed pipe", "disk full"])
def test_a_list_that_cannot_be_printed_fails(tmp_path, full):
    """A closed pipe gives 128 + SIGPIPE without a message, as for any program; a full disk gives the reason."""
    (tmp_path / "outputs").mkdir()
    command = [sys.executable, "-m", "deepexp", "runs", "outputs"]
    if full:
        with open("/dev/full", "w") as disk:
            done = subprocess.run(command, cwd=tmp_path, stdout=disk, stderr=subprocess.PIPE, text=True, timeout=60)
        status, errors = done.returncode, done.stderr
    else:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        process.stdout.close()
        errors = process.stderr.read()
        process.stderr.close()
        status = process.wait(timeout=60)
    assert (status, "No space left on device" in errors) == ((1, True) if full else (141, False))
    assert len(errors.splitlines()) == full


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that only Linux has")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["list"], ["--help"], ["train", "--cfg", "job"], ["runs", "outputs"]])
def test_a_full_standard_output_is_named(tmp_path, words, unbuffered):
    (tmp_path / "outputs").mkdir()
    command = [sys.executable, "-m", "deepexp", *words]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as disk:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, stdout=disk, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert done.stderr == "deepexp: cannot write to standard output: No space left on device\n" and done.returncode == 1


def test_other_full_disks_are_not_blamed_on_standard_output(monkeypatch, capsys):
    def bind(_words):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("deepexp.commands.list.main", bind)
    assert cli.main(["list"]) == 1
    assert capsys.readouterr().err.startswith("deepexp: OSError: [Errno 28] No space left on device (")


def test_an_object_that_only_takes_text_is_no_terminal():
    class Sink:
        def __init__(self):
            self.text = ""

        def write(self, text):
            self.text += text

        def flush(self):
            pass

    stream = Stream(Sink())
    stream.write("a line\n")
    assert stream._file.text == "a line\n" and not stream.is_terminal


def test_without_a_console_nothing_is_shown(caplog):
    """`sys.stdout` is None under pythonw and in some services, where runs are started from Python."""
    stream = Stream(None)
    stream.write("epoch")
    assert not stream.is_terminal and stream.width == 80 and not caplog.text


def test_the_status_line_is_hidden_for_output_and_drawn_again():
    terminal = Terminal()
    stream = Stream(terminal)
    status = StatusLine(stream)
    status.draw("a long line of progress")
    status.draw("progress")
    assert terminal.screen() == ["progress"]
    status.hide()
    stream.write("a result\n")
    status.show()
    assert terminal.screen() == ["a result", "progress"]
    status.clear()
    status.show()
    assert terminal.screen() == ["a result", ""]


def test_a_status_of_several_lines_erases_only_itself():
    terminal = Terminal()
    stream = Stream(terminal)
    status = StatusLine(stream)
    stream.write("$ a command\n")
    status.draw("job 1\njob 2\njob 3")
    for result in ("first", "second"):
        status.hide()
        stream.write(f"{result}\n")
        status.show()
        status.draw("job 4\njob 5\njob 6")
    assert terminal.screen() == ["$ a command", "first", "second", "job 4", "job 5", "job 6"]
    status.clear()
    status.clear()
    stream.write("the table\n")
    assert terminal.screen()[:4] == ["$ a command", "first", "second", "the table"]


def test_there_is_no_status_line_without_a_terminal():
    file = io.StringIO()
    status = StatusLine(Stream(file))
    status.draw("progress")
    status.hide()
    status.show()
    status.clear()
    assert file.getvalue() == ""


@pytest.mark.parametrize(("fraction", "filled"), [(-1, 0), (0, 0), (0.5, 10), (1, 20), (7, 20)])
def test_the_bar_is_filled_by_its_fraction(monkeypatch, fraction, filled):
    monkeypatch.setenv("NO_COLOR", "1")
    drawn = bar(Stream(Terminal()), fraction, 20)
    assert drawn == "━" * filled + " " * (20 - filled)


@pytest.mark.parametrize("width", [20, 30, 40, 60, 80, 120, 200])
def test_a_line_never_reaches_the_edge(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    stream = Stream(Terminal())
    parts = ["epoch 100/200", "loss 0.1234", "test 12.34%", "eta 1:02:03", "123,456/s"]
    for fraction in (None, 0.0, 0.499, 1.0):
        line = plain(line_with_bar(stream, fraction, parts))
        assert len(line) < width
    if width >= 80:
        assert all(part in line for part in parts)


def test_printable_text_cannot_control_a_terminal():
    assert printable("ü (1) #\x1b[2J\nx\r") == "ü (1) #�[2J�x�"


def test_disk_errors_of_a_redirected_stream_are_reported_once(caplog, monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def fileno(self):
            return os.open(os.devnull, os.O_WRONLY)

    stream = Stream(Full())
    with caplog.at_level(logging.WARNING):
        stream.write("a")
        stream.write("b")
    assert [record.getMessage() for record in caplog.records] == [
        "output can no longer be shown (No space left on device); the rest is done without it"
    ]
