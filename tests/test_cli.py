import ast
import importlib.util
import json
import os
import signal
import subprocess
import sys
import types

import pytest

import deepexp
from deepexp.cli import main
from deepexp.commands import COMMANDS, Command
from deepexp.errors import InputError, Interrupted, RunFailed

HEAVY = {
    "torch",
    "torchvision",
    "numpy",
    "hydra",
    "omegaconf",
    "antlr4",
    "yaml",
    "rich",
    "sklearn",
    "tensorboard",
    "PIL",
}


def call(*words, **environment):
    return subprocess.run(
        [sys.executable, "-m", "deepexp", *words], capture_output=True, text=True, env={**os.environ, **environment}
    )


@pytest.fixture
def command(monkeypatch):
    """Gives a function that makes `deepexp fake` call an action."""

    def install(action):
        monkeypatch.setitem(sys.modules, "deepexp_fake_command", types.SimpleNamespace(main=action))
        monkeypatch.setitem(COMMANDS, "fake", Command("deepexp_fake_command", "for this test"))

    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    return install


def raiser(error):
    def action(argv):
        raise error

    return action


def test_a_command_gets_its_words_and_its_status_is_returned(command):
    seen = []
    command(lambda argv: seen.append(argv) or 7)
    assert main(["fake", "a=1", "-m"]) == 7
    assert seen == [["a=1", "-m"]]


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (InputError("epochs: too few\nlr: too large"), 2, "deepexp: epochs: too few\ndeepexp: lr: too large\n"),
        (RunFailed("the loss is not finite"), 1, "deepexp: the loss is not finite\n"),
        (Interrupted(signal.SIGTERM, "saved"), 143, "deepexp: saved\n"),
        (KeyboardInterrupt(), 130, "deepexp: interrupted\n"),
        (OSError("no disk\nmore"), 1, "deepexp: OSError: no disk (HYDRA_FULL_ERROR=1 shows where)\n"),
        (AssertionError(), 1, "deepexp: AssertionError (HYDRA_FULL_ERROR=1 shows where)\n"),
    ],
)  # fmt: skip
def test_errors_of_commands_have_a_message_and_a_status(command, capsys, error, status, text):
    command(raiser(error))
    assert main(["fake"]) == status
    assert capsys.readouterr() == ("", text)


def test_an_error_that_was_shown_is_not_printed_again(command, capsys):
    error = RunFailed("the loss is not finite")
    error.shown = True
    command(raiser(error))
    assert main(["fake"]) == 1
    assert capsys.readouterr().err == ""


def test_hydra_full_error_shows_the_traceback(command, capsys, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    command(raiser(InputError("no")))
    assert main(["fake"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert err.endswith("deepexp: no\n")


def test_a_misspelt_command_is_refused(capsys):
    assert main(["tarin", "model=monster"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"deepexp: tarin: there is no such command (did you mean 'train'?); one of {', '.join(COMMANDS)}\n"
    assert main(["help", "lits"]) == 2


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_the_overview_names_every_command(capsys, words):
    assert main(words) == 0
    out = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert f"  {name}" in out
        assert command.summary in out


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_is_its_docstring(capsys, name):
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert main(["help", name]) == 0
    assert capsys.readouterr().out == shown
    source = importlib.util.find_spec(COMMANDS[name].module).loader.get_source(COMMANDS[name].module)
    docstring = ast.get_docstring(ast.parse(source))
    assert shown.startswith(docstring)
    assert docstring.startswith(f"usage: deepexp {name}")


def test_the_help_of_train_explains_every_key(capsys, monkeypatch):
    from deepexp import schema

    monkeypatch.setenv("COLUMNS", "80")
    assert main(["train", "--help"]) == 0
    out = capsys.readouterr().out
    for key, _, _ in schema.describe_keys():
        assert f"  {key}=" in out
    assert "  batch_size=100 " in out
    assert "  dropout=null " in out
    assert "  drop_last=false " in out
    for group in ("model", "data", "optim", "schedule", "augment", "experiment"):
        assert f"  {group}=… " in out
    assert "adamw" in out
    keys_below = out[out.index("groups (") :]
    assert max(map(len, keys_below.splitlines())) <= 90


def test_python_m_prints_the_version():
    run = call("--version")
    assert (run.returncode, run.stdout, run.stderr) == (0, f"deepexp {deepexp.__version__}\n", "")


@pytest.mark.parametrize(
    "words",
    [[], ["--help"], ["--version"], ["train", "--help"], ["bench", "--help"], ["list"], ["lst"], ["completion", "bash"],
     ["completion", "--line", "deepexp train optim="], ["lecture", "trajectories", "--help"],
     ["completion", "--line", "deepexp lecture trajectories "]],
)  # fmt: skip
def test_quick_commands_import_nothing_heavy(words):
    code = f"import sys, deepexp.cli; deepexp.cli.main({words!r}); print('|', *sys.modules, file=sys.stderr)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = {name.split(".")[0] for name in run.stderr.rpartition("|")[2].split()}
    assert "deepexp" in imported
    assert not imported & HEAVY


@pytest.mark.skipif(sys.platform == "win32", reason="pipes are closed in another way")
def test_a_closed_pipe_gives_the_status_of_sigpipe():
    process = subprocess.Popen(
        [sys.executable, "-m", "deepexp", "train", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 141
    assert err == b""


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors are closed in another way")
def test_a_run_with_closed_standard_streams_works(tmp_path):
    """Files must not get the free descriptors 1 and 2 either, or printed lines would be written into them."""
    small = "epochs=1 data.subset=40 batch_size=20 threads=1 device=cpu output_dir=closed"
    command = f'"{sys.executable}" -m deepexp train {small} <&- >&- 2>&-'
    assert subprocess.run(command, shell=True, cwd=tmp_path).returncode == 0
    (run,) = tmp_path.glob("closed/*/*")
    assert json.loads((run / "status.json").read_text())["status"] == "done"
    for path in run.rglob("*"):
        assert path.is_dir() or b"curves and pictures: " not in path.read_bytes()


def test_output_that_cannot_encode_a_character_does_not_end_a_command():
    run = call("train", "--help", PYTHONIOENCODING="ascii")
    assert (run.returncode, run.stderr) == (0, "")
    assert "[KEY=VALUE ...]" in run.stdout


def test_users_never_see_a_traceback_for_their_own_mistake():
    run = call("train", "optmi=adam", "lr=0.1")
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr.splitlines() == [
        "deepexp: optmi: there is no such key (did you mean 'optim'?)",
        "deepexp: lr: there is no such key (did you mean 'optim.lr'?)",
    ]


class TestPythonApi:
    def test_public_names_exist(self):
        assert set(deepexp.__all__) <= {*dir(deepexp), "Result"}
        for name in deepexp.__all__:
            assert getattr(deepexp, name) is not None
        with pytest.raises(AttributeError, match="no attribute 'trian'"):
            _ = deepexp.trian

    def test_a_mistake_is_an_input_error(self):
        with pytest.raises(deepexp.InputError, match="did you mean 'optim'"):
            deepexp.train(["optmi=adam"])

    def test_importing_the_package_is_light(self):
        code = "import sys, deepexp; print(*sys.modules)"
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert not {name.split(".")[0] for name in run.stdout.split()} & HEAVY


def test_a_key_that_is_given_twice_is_warned_of(capsys):
    assert main(["train", "--cfg", "job", "epochs=2", "epochs=3"]) == 0
    out, err = capsys.readouterr()
    assert err == "warning: epochs: is given 2 times; only the last counts, epochs=3\n" and "\nepochs: 3\n" in out


def test_cfg_refuses_wrong_values_and_sweeps(capsys):
    assert main(["train", "--cfg", "job", "batch_size=ten", "epochs=0"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("deepexp: batch_size: 'ten' is not allowed") and "deepexp: epochs: 0 is" in err
    assert main(["train", "-m", "--cfg", "job", "epochs=1,2"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "--cfg: shows one run, and -m makes many; leave out -m" in err


def test_cfg_needs_no_data(tmp_path, capsys):
    assert main(["train", "--cfg", "job", "data=image_folder", f"data.root={tmp_path / 'nowhere'}"]) == 0
    assert "nowhere" in capsys.readouterr().out
