"""The command line: which word is which command, and how an error becomes a message and an exit status.

Only light modules are imported here; a command's own module is imported when it is called. Its help is its docstring,
read without importing it (see `config/help_text.py`).
"""

import contextlib
import importlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from deepexp import __version__
from deepexp.commands import COMMANDS, Command
from deepexp.errors import DISK_TROUBLE, FAILURE, USAGE_ERROR, InputError, Interrupted, RunFailed, in_short
from deepexp.process import late_dynamo, startup
from deepexp.text.characters import PLAIN
from deepexp.text.suggest import no_such

HELP_FLAGS = {"-h", "--help"}
SIGPIPE = 13  # not in the signal module of every system


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 failed, 2 not understood, 128 + n ended by signal n."""
    startup.prepare()
    _prepare_streams()
    late_dynamo.install()
    status = _status(list(sys.argv[1:] if argv is None else argv))
    if argv is None:
        startup.end_at_ctrl_c(status)
    return status


def _status(words: list[str]) -> int:
    """Run a command; returns its exit status, after saying on stderr what went wrong."""
    try:
        status = _dispatch(words)
        sys.stdout.flush()
        return status
    except InputError as error:
        return _complain(error, USAGE_ERROR)
    except RunFailed as error:
        return _complain(error, FAILURE)
    except Interrupted as error:
        return _complain(error, 128 + error.signal_number)
    except KeyboardInterrupt:
        return _complain("interrupted", 128 + signal.SIGINT)
    except BrokenPipeError:
        _give_up_stdout()  # the reader (`| head`) has gone
        return 128 + SIGPIPE
    except Exception as error:
        if isinstance(error, OSError) and _is_of_stdout(error):
            _give_up_stdout()
            return _complain(f"cannot write to standard output: {error.strerror}", FAILURE)
        return _complain(f"{in_short(error)} (HYDRA_FULL_ERROR=1 shows where)", FAILURE)


def _is_of_stdout(error: OSError) -> bool:
    """Whether a `print` of ours has failed; trouble with any file that deepexp writes is a `RunFailed` already."""
    *_, (frame, _line) = traceback.walk_tb(error.__traceback__)
    is_ours = Path(frame.f_code.co_filename).is_relative_to(Path(__file__).parent)
    return is_ours and error.errno in DISK_TROUBLE and error.filename is None


def _give_up_stdout() -> None:
    """Discard what is still buffered, which would fail again when Python closes standard output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _prepare_streams() -> None:
    """Open closed standard streams on the null device, and replace characters that the terminal cannot show.

    If one stayed closed, the next file to be opened would get its number, and with it all that is printed.
    """
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # what Python makes of `>&-`
            stream = open(os.devnull, "r" if name == "stdin" else "w")  # noqa: SIM115 - the lowest free number: its own
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)
        if name != "stdin" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=PLAIN)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("help", *HELP_FLAGS):
        return _show_help(words[1:])
    name, *rest = words
    if name in ("--version", "-V"):
        print(f"deepexp {__version__}")
        return 0
    command = _command(name)
    if HELP_FLAGS.intersection(rest):
        return _show_help([name, *rest])
    if startup.runs_jobs(name, rest):
        from deepexp.sweep import server

        server.start(rest)  # it imports torch while this process does
    with startup.ending_at_ctrl_c(), startup.without_garbage_collection():
        module = importlib.import_module(command.module)
    status: int = module.main(rest)
    return status


def _show_help(words: Sequence[str]) -> int:
    from deepexp.config import help_text  # it reads the schema and the conf, which no other start needs

    names = [word for word in words if word not in HELP_FLAGS]
    if not names:
        print(help_text.overview())
        return 0
    command = _command(names[0])
    of_topic = importlib.import_module(command.module).help_on(names[1:]) if command.has_topics else None
    print(of_topic or help_text.of_command(command))
    return 0


def _command(name: str) -> Command:
    if name not in COMMANDS:
        raise InputError(no_such("command", name, COMMANDS))
    return COMMANDS[name]


def _complain(reason: object, status: int) -> int:
    """Say on stderr what went wrong, unless a console has; the traceback is shown on demand only."""
    with contextlib.suppress(OSError):  # Python reports that as it ends
        sys.stdout.flush()  # what was printed comes first where both go to one file
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        traceback.print_exc()
    if not getattr(reason, "shown", False):
        print("\n".join(f"deepexp: {line}" for line in str(reason).splitlines()), file=sys.stderr)
    return status
