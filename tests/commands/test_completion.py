"""Tab completion: the answers, and a real bash that asks for them."""

import importlib
import os
import shutil
import subprocess
import sys

import pytest

from deepexp.commands import COMMANDS
from deepexp.commands.completion import SCRIPTS, complete, main
from deepexp.config.options import names_of
from deepexp.errors import InputError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("deepexp tr", ["train "]),
        (
            "deepexp train optim=ada",
            ["optim=adadelta ", "optim=adagrad ", "optim=adam ", "optim=adamax ", "optim=adamw "],
        ),
        ("deepexp train optim=sgd,adamw", ["optim=sgd,adamw "]),
        ("deepexp train epo", ["epochs="]),
        ("deepexp train ++epo", ["++epochs="]),
        ("deepexp train order=s", ["order=shuffled ", "order=sequential "]),
        ("deepexp train drop_last=", ["drop_last=true ", "drop_last=false "]),
        ("deepexp train batch_norm=n", ["batch_norm=null "]),
        ("deepexp train data.mode=s", ["data.mode=streamed "]),
        ("deepexp train precision=bf", ["precision=bf16 "]),
        ("deepexp train optim=adam optim.bet", ["optim.betas="]),
        ("deepexp train optim.bet", []),  # sgd, the default, has none
        ("deepexp train --mul", ["--multirun "]),
        ("deepexp train data.root=/some", [":path"]),
        ("deepexp train model.pretrained=au", ["model.pretrained=auto "]),
        ("deepexp train model.pretrained=", [f"model.pretrained={word} " for word in ("auto", "false", "true")]),
        ("deepexp train model.pretrained=/some", [":path"]),
        ("deepexp train resume=", [":path"]),
        ("deepexp bench st", ["step ", "start "]),
        ("deepexp bench step ag", ["against="]),
        ("deepexp bench sweep ag", []),
        ("deepexp bench step plot=", [":path"]),
        ("deepexp bench step epoch", ["epoch_rounds=", "epochs="]),
        ("deepexp bench step data=syn", ["data=synthetic "]),
        ("deepexp eval ru", ["run="]),
        ("deepexp eval run=", [":path"]),
        ("deepexp eval checkpoint=", []),
        ("deepexp runs o", ["older_than="]),
        ("deepexp runs outp", [":path"]),
        ("deepexp report some", [":path"]),
        ("deepexp predict run=here some", [":path"]),
        ("deepexp bench step -", ["--help "]),
        ("deepexp list opt", ["optim "]),
        ("deepexp completion ", ["bash ", "fish ", "zsh ", "--help "]),
        ("deepexp lecture cur", ["curvature "]),
        ("deepexp lecture curvature ", ["lr=", "curvatures=", "steps=", "to=", "--help "]),
        ("deepexp lecture curvature to=", [":path"]),
        ("deepexp lecture curvature lr=", []),
        ("deepexp lecture gradient_descent order=w", ["order=with_replacement "]),
        ("deepexp lecture trajectories animate=", ["animate=true ", "animate=false "]),
        ("deepexp lecture trajectories optim=sgd,adamw", ["optim=sgd,adamw "]),
        ("deepexp lecture all ", ["scale=", "training=", "to=", "--help "]),
        ("deepexp lecture all scale=f", ["scale=full "]),
        ("deepexp nonsense ", []),
        ("deepexp train seed=", []),
        ("deepexp train nonsense=", []),
        ("", [*(f"{name} " for name in COMMANDS), "--help ", "--version "]),
    ],
)
def test_completions_of_a_line(line, words):
    assert complete(line) == words


@pytest.mark.parametrize("name", ["eval", "export", "predict", "report", "runs"])
def test_options_of_each_command_are_offered(name):
    module = importlib.import_module(COMMANDS[name].module)
    assert list(COMMANDS[name].keys) == names_of(module.Options)
    assert set(COMMANDS[name].path_keys) <= set(COMMANDS[name].keys)


def test_all_keys_and_groups_are_offered():
    words = complete("deepexp train ")
    assert {"model=", "data=", "optim=", "experiment=", "batch_size=", "data.root=", "optim.lr=", "-m "} <= set(words)
    assert len(words) == len(set(words))


def test_options_of_the_users_conf_are_offered(tmp_path):
    (tmp_path / "conf" / "optim").mkdir(parents=True)
    (tmp_path / "conf" / "optim" / "mine.yaml").write_text("# Mine\n_target_: a.B\nlr: 1\nspeed: 2\n")
    assert complete("deepexp train optim=mi") == ["optim=mine "]
    assert complete("deepexp train optim=mine optim.sp") == ["optim.speed="]


@pytest.mark.parametrize("argv", [[], ["tcsh"], ["bash", "zsh"]])
def test_an_unknown_shell_is_refused(argv):
    with pytest.raises(InputError, match="completion: needs one of bash, fish, zsh, not"):
        main(argv)


def shell_folder(folder):
    """A folder with a script `deepexp`, which writes the words that it is called with into called.txt."""
    (folder / "bin").mkdir()
    script = folder / "bin" / "deepexp"
    script.write_text(
        "#!/bin/sh\n"
        f'if [ "$1" = completion ]; then exec "{sys.executable}" -m deepexp "$@"; fi\n'
        f'printf "%s\\n" "$@" > "{folder}/called.txt"\n'
    )
    script.chmod(0o755)
    (folder / "some data").mkdir()
    (folder / "some data" / "a file").write_text("")
    return {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "HOME": str(folder), "TERM": "dumb"}


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize("setup", ["", "COMP_WORDBREAKS=${COMP_WORDBREAKS//=}"], ids=["as-it-is", "no-break-at-equals"])
@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("deepexp tr\tepo\t3", ["train", "epochs=3"]),
        ("deepexp train optim=adama\t-\tm", ["train", "optim=adamax", "-m"]),
        ("deepexp train optim=sgd,adama\t", ["train", "optim=sgd,adamax"]),
        ("deepexp train ord\tseq\t", ["train", "order=sequential"]),
        ("deepexp train data.root=so\ta\tepo\t3", ["train", "data.root=some data/a file", "epochs=3"]),
        ("deepexp train data.root=some\\ da\t", ["train", "data.root=some data/"]),
        ("deepexp report so\ta\tto=so\t", ["report", "some data/a file", "to=some data/"]),
        ("cd some*\ndeepexp train resume=\t", ["train", "resume=a file"]),
    ],
)
def test_bash_completes_what_is_typed(tmp_path, setup, typed, words):
    """An interactive bash completes the line at each tab; the test looks at the words that its command is called with.

    It has a session of its own, and so no terminal: two shells that share the terminal of the tests would stop all of
    them.
    """
    environment = shell_folder(tmp_path)
    lines = f'{setup}\neval "$(deepexp completion bash)"\n{typed}\nexit\n'
    bash = ["bash", "--norc", "-i"]
    subprocess.run(
        bash, input=lines.encode(), env=environment, capture_output=True, timeout=300, start_new_session=True
    )
    assert (tmp_path / "called.txt").read_text().splitlines() == words


@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish")
@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("deepexp tr", ["train"]),
        ("deepexp train optim=adama", ["optim=adamax"]),
        ("deepexp train optim=sgd,adama", ["optim=sgd,adamax"]),
        ("deepexp train data.root=so", ["data.root=some data/"]),
        ("deepexp report so", ["some data/"]),
    ],
)
def test_fish_gets_the_same_completions(tmp_path, typed, words):
    environment = shell_folder(tmp_path)
    code = f"deepexp completion fish | source; complete -C '{typed}'"
    run = subprocess.run(["fish", "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert run.stdout.splitlines() == words


@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh")
def test_zsh_accepts_its_script(tmp_path):
    script = tmp_path / "script"
    script.write_text(SCRIPTS["zsh"])
    assert subprocess.run(["zsh", "-n", str(script)], capture_output=True, timeout=60).returncode == 0
