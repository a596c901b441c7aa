"""Settings made before torch is imported: idle threads, garbage collection, Ctrl-C."""

import gc
import os
import signal
import subprocess
import sys

import pytest

from deepexp.process import startup


@pytest.fixture(autouse=True)
def unset_variables(monkeypatch):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", startup.MARK):
        monkeypatch.setenv(name, "")  # so that monkeypatch restores it, whatever `prepare` does
        monkeypatch.delenv(name)


def test_idle_threads_spin_for_a_moment_and_then_sleep():
    startup.prepare()
    assert os.environ["OMP_WAIT_POLICY"] == "passive"
    assert 0 < int(os.environ["GOMP_SPINCOUNT"]) < 100_000  # GNU's default is 300,000
    assert not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & startup.users_environment().keys()


@pytest.mark.parametrize(("name", "value"), [("OMP_WAIT_POLICY", "active"), ("GOMP_SPINCOUNT", "1000")])
def test_variables_that_the_user_has_set_are_kept(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    before = dict(os.environ)
    startup.prepare()
    assert dict(os.environ) == before
    assert startup.users_environment()[name] == value


def test_the_command_line_sets_variables_before_importing_torch():
    code = """
        import os, sys
        from deepexp import cli
        cli.main(["--version"])
        assert "torch" not in sys.modules
        print(os.environ["OMP_WAIT_POLICY"])
    """
    import textwrap

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split()[-1] == "passive"


SWALLOWING = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    pass
"""


def test_ctrl_c_is_not_lost_in_an_import(tmp_path):
    """Importing torch may swallow it, or leave NumPy half imported."""
    (tmp_path / "torch.py").write_text(SWALLOWING)
    taken = "import signal, runpy; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # nohup has it ignored
    done = subprocess.run(
        [sys.executable, "-c", taken + "runpy.run_module('deepexp', run_name='__main__')", "train"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "deepexp: interrupted\n")


INTERRUPTED_BY_AN_IMPORT = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv, sys.orig_argv = {argv}, {orig_argv}

class Finder:
    def find_spec(name, path, target=None):
        if name == "{module}":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder)
try:
    from deepexp.cli import main
except KeyboardInterrupt:
    print("left to Python")
"""


@pytest.mark.parametrize("module", ["deepexp.process.startup", "deepexp.commands"])
@pytest.mark.parametrize(
    ("argv", "orig_argv", "is_command"),
    [
        (["-m"], ["python", "-W", "ignore", "-m", "deepexp", "train"], True),
        (["/bin/deepexp", "train"], ["/bin/python", "/bin/deepexp", "train"], True),
        (["-m"], ["python", "-m", "deepexp.bench.worker", "plain"], False),
        (["/bin/deepexp", "train"], ["/bin/python", "-c", "a process of its own"], False),
        (["mine.py"], ["python", "mine.py"], False),
    ],
)
def test_ctrl_c_while_deepexp_is_imported_ends_commands_only(argv, orig_argv, is_command, module):
    """Other programs that import deepexp get a KeyboardInterrupt, which they may handle."""
    code = INTERRUPTED_BY_AN_IMPORT.format(argv=argv, orig_argv=orig_argv, module=module)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    ended = (130, "", "deepexp: interrupted\n") if is_command else (0, "left to Python\n", "")
    assert (done.returncode, done.stdout, done.stderr) == ended


LATE = """
import atexit, os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
atexit.register(os.kill, os.getpid(), signal.SIGINT)
sys.argv = ["deepexp", *sys.argv[1:]]
from deepexp.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize(("word", "status"), [("--version", 0), ("verison", 2)])
def test_ctrl_c_at_the_end_of_a_command_changes_nothing(word, status):
    done = subprocess.run([sys.executable, "-c", LATE, word], capture_output=True, text=True, timeout=60)
    assert done.returncode == status and "Traceback" not in done.stderr
    assert len((done.stdout + done.stderr).splitlines()) == 1


def test_other_handlers_of_ctrl_c_are_kept():
    before = signal.getsignal(signal.SIGINT)
    try:
        for handler in (signal.SIG_IGN, lambda *_: None, signal.default_int_handler):
            signal.signal(signal.SIGINT, handler)
            with startup.ending_at_ctrl_c():
                assert (signal.getsignal(signal.SIGINT) is handler) == (handler is not signal.default_int_handler)
            assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_imported_objects_are_exempt_from_garbage_collection():
    before = gc.get_freeze_count()
    try:
        with startup.without_garbage_collection():
            assert not gc.isenabled()
            made = [[] for _ in range(1000)]
        assert gc.isenabled()
        assert gc.get_freeze_count() >= before + len(made)
    finally:
        gc.unfreeze()


@pytest.mark.parametrize("has_triton", [False, True])
def test_with_triton_the_garbage_is_collected_at_the_end(monkeypatch, has_triton):
    """Without the collection, Triton ends each `bench` with a report of 513 leaked functions."""
    registered, frozen = [], []
    monkeypatch.setattr(startup.atexit, "register", registered.append)
    monkeypatch.setattr(startup.gc, "freeze", lambda: frozen.append(True))
    startup.end_quickly()
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    if has_triton:
        monkeypatch.setitem(sys.modules, "triton", None)
    registered[0]()
    assert bool(frozen) is not has_triton
