import errno
import importlib
import inspect
import subprocess
import sys

import pytest

from deepexp import cli
from deepexp.commands import lecture
from deepexp.errors import InputError
from deepexp.lecture import chapters, options


def test_the_list_has_every_part_in_the_order_of_the_slides(capsys):
    assert lecture.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    places = [
        next(i for i, line in enumerate(lines) if line.split()[:1] == [part.name] and ("train:" in line) == is_preset)
        for part in chapters.parts()
        for is_preset in [isinstance(part, chapters.Preset)]
    ]
    assert places == sorted(places)
    assert lines[0] == "Batch processing"


def test_a_demonstration_prints_its_table_and_writes_its_pictures(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert lecture.main(["curvature", "lr=1e-1", "curvatures=1,25"]) == 0
    out = capsys.readouterr().out
    assert "2.5" in out
    assert "picture: outputs/lecture/curvature/curvature.png" in out
    assert (tmp_path / "outputs/lecture/curvature/curvature.svg").is_file()
    assert lecture.main(["curvature", "to=else where"]) == 0
    assert (tmp_path / "else where" / "curvature.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (["trajectorie"], ["did you mean 'trajectories'", "one of batch_vs_loop"]),
        (["minibatch_size"], ["deepexp train -m experiment=minibatch_size"]),
        (["curvature", "ln=0.1"], ["did you mean 'lr'", "curvatures"]),
        (["curvature", "lr=fast", "steps=1.5"], ["lr: fast is not allowed; a number", "steps: 1.5"]),
        (["curvature", "curvatures=1,x"], ["a list of whole numbers"]),
        (["curvature", "steps=null"], ["steps: null is not allowed; a whole number"]),
        (["curvature", "curvatures=1,null"], ["curvatures: 1,null is not allowed; a list of whole numbers"]),
        (["curvature", "curvatures=true"], ["curvatures: true is not allowed; a list of whole numbers"]),
        (["trajectories", "animate=maybe"], ["true or false"]),
        (["dropout_mask", "dropout=1.0"], ["dropout: 1.0 must be at least 0 and less than 1\n"]),
        (["trajectories", "steps=0"], ["steps: 0 is not allowed; at least 1"]),
        (["dropout_mask", "draws=-3"], ["draws: -3 is not allowed; at least 1"]),
        (["batch_vs_loop", "sizes=10,0"], ["sizes: [10, 0] is not allowed"]),
        (["gradient_descent", "batch_sizes=0,-1"], ["batch_sizes: -1 is not allowed; 1 to 1438"]),
        (["trajectories", "lr=2026-13-45"], ["lr: 2026-13-45 is not allowed"]),
        (["trajectories", "optim=sgd,["], ["["]),
        (["dropout_mask", f"seed={2**70}"], ["seed: ", "0 to 9223372036854775807"]),
        (["curvature", "to="], ["to: is empty"]),
        (["curvature", "to=/dev/null/x"], ["cannot write /dev/null/x", "choose another place with to=DIR"]),
        (["batch_norm_statistics", "momentum=2"], ["momentum: 2 is not allowed; 0 to 1"]),
        (["batch_norm_statistics", "samples=1"], ["samples: 1 is not allowed; at least 2"]),
        (["loaders", "scale=quick", "workers=0,-1"], ["workers: [0, -1] is not allowed"]),
        (["surgery", "scale=quick", "pretrained=false", "lr=1e9"], ["lr: 1e+09 is not allowed; the layers above"]),
        (["update_rules", "lr=1e10"], ["lr: 1e+10 is not allowed; with it the steps of adamw"]),
        (["all", "scale=huge"], ["'quick' or 'standard' or 'full'"]),
    ],
)
def test_mistakes_are_refused(capsys, words, messages):
    assert cli.main(["lecture", *words]) == 2
    err = capsys.readouterr().err
    assert all(message in err for message in messages), err
    assert "Traceback" not in err


def test_the_message_of_a_full_disk_names_the_option_to(tmp_path, monkeypatch, capsys):
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("deepexp.pages.plotting.write_atomically", full)
    assert cli.main(["lecture", "curvature", f"to={tmp_path / 'here'}"]) == 1
    err = capsys.readouterr().err
    assert f"cannot write {tmp_path / 'here'}: No space left" in err and err.endswith("with to=DIR\n")


def test_numbers_too_large_for_memory_are_refused(capsys):
    assert cli.main(["lecture", "batch_vs_loop", "inputs=99999999999999"]) == 1
    assert capsys.readouterr().err == "deepexp: batch_vs_loop: out of memory; give it smaller numbers\n"


def test_types_of_options_are_those_of_the_annotations():
    def demonstrate(
        *, names: list[str] | None = None, lr: dict[str, float] | float | None = None, on: bool = False, text: str = ""
    ) -> None: ...

    words = ["names=a,b", "lr={adam: 1e-1}", "on=true", "to=1=2"]
    assert options.parse(words, demonstrate, extra=["to"]) == {
        "names": ["a", "b"],
        "lr": {"adam": 0.1},
        "on": True,
        "to": "1=2",
    }
    assert options.parse(["names=null", "lr=null"], demonstrate) == {"names": None, "lr": None}
    assert options.parse(["lr=5e-2", "names=[c]"], demonstrate) == {"lr": 0.05, "names": ["c"]}
    with pytest.raises(InputError):
        options.parse(["lr=[1]"], demonstrate)


@pytest.mark.parametrize("name", [demo.name for demo in chapters.demos()])
def test_the_help_of_a_demonstration_has_each_of_its_keys_with_the_default(name, capsys):
    assert cli.main(["lecture", name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: deepexp lecture {name} [KEY=VALUE …]\n")
    rows = [line.split() for line in shown.partition("keys, with their defaults:\n")[2].splitlines()]
    demonstrate = importlib.import_module(f"deepexp.lecture.{name}").demonstrate
    assert demonstrate.__doc__.splitlines()[0] in shown
    for key, parameter in inspect.signature(demonstrate).parameters.items():
        (row,) = [row for row in rows if row[0].startswith(f"{key}=")]
        assert options.parse(row[:1], demonstrate) == {key: parameter.default}, row
        assert len(row) > 1, row


def test_the_help_of_a_demonstration_lists_the_values_of_a_key_that_takes_few(capsys):
    assert cli.main(["lecture", "--help", "gradient_descent"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "order=shuffled shuffled, sequential, with_replacement" in lines
    assert "batch_sizes=null whole numbers with commas between" in lines


def test_the_list_is_shown_without_importing_torch():
    code = "import sys; from deepexp.cli import main; main(['lecture']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
