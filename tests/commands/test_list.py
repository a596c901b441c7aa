import os
import pty
import subprocess
import sys

import pytest

from deepexp import paths
from deepexp.commands.list import main
from deepexp.errors import InputError

from ..files import write


def test_every_option_of_every_group_with_its_first_comment_line(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    groups = ["model", "data", "optim", "schedule", "augment", "loss", "experiment"]
    files = [path for group in groups for path in (paths.CONF_DIR / group).glob("*.yaml")]
    assert len(files) > 20
    for path in files:
        comments = [text for text in path.read_text(encoding="utf-8").splitlines() if text.startswith("#")]
        summary = next(text for text in comments if "@package" not in text).lstrip("#").strip()
        found = [line for line in lines if line.split()[:1] == [path.stem] or line.split()[:2] == ["*", path.stem]]
        assert (
            len([line for line in found if line.endswith(summary)]) == 1
        )  # two groups may have an option of the same name
    assert lines[-1] == f"deepexp's own: {paths.CONF_DIR}"
    assert [line for line in lines if line and line[0] != " " and ":" not in line] == groups


def test_default_options_are_marked(capsys):
    main(["optim"])
    out = capsys.readouterr().out
    assert [line.split()[1] for line in out.splitlines() if line.startswith("  * ")] == ["sgd"]
    assert "experiment" not in out


def test_options_of_the_users_conf_are_marked(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "conf" / "optim" / "mine.yaml", "# Something of my own\nlr: 1\n")
    write(tmp_path / "conf" / "optim" / "adam.yaml", "# Not taken\nlr: 1\n")
    write(tmp_path / "conf" / "optim" / "sgd.yaml", "# Not taken, nor by default\nlr: 1\n")
    write(
        tmp_path / "conf" / "experiment" / "try.yaml",
        "# @package _global_\n# experiment/try.yaml\n# A try\n",
    )
    write(tmp_path / "conf" / "nginx" / "sites.yaml", "# Not deepexp's at all\n")
    (tmp_path / "conf" / "optim" / ".#mine.yaml").symlink_to("somebody@here.123")  # Emacs is editing it
    main([])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines if "./conf " in line] == [
        ["adam", "./conf", "hidden:", "deepexp", "has", "an", "option", "of", "this", "name;", "rename", "it"],
        ["mine", "./conf", "Something", "of", "my", "own"],
        ["sgd", "./conf", "hidden:", "deepexp", "has", "an", "option", "of", "this", "name;", "rename", "it"],
        ["try", "./conf", "A", "try"],
    ]
    assert lines[-1] == f"./conf: {tmp_path / 'conf'}"
    assert not any("sites" in line for line in lines)


def test_listing_presets_shows_their_scales(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "conf" / "experiment" / "try.yaml", "# @package _global_\n# A try\nepochs: 1\n")
    write(tmp_path / "conf" / "experiment" / "try" / "tiny.yaml", "# @package _global_\n# A tiny one\nepochs: 1\n")
    main(["experiment"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    at = [line[:1] for line in lines].index(["try"])
    assert lines[at : at + 2] == [["try", "./conf", "A", "try"], ["scale=tiny", "A", "tiny", "one"]]
    at = [line[:1] for line in lines].index(["momentum"])
    assert [line[0] for line in lines[at + 1 : at + 3]] == ["scale=quick", "scale=full"]
    main([])
    assert "scale=" not in capsys.readouterr().out


def test_an_unknown_group_is_refused():
    with pytest.raises(
        InputError, match=r"modle: there is no such group \(did you mean 'model'\?\); one of model, data, "
    ):
        main(["modle"])


def run_on_a_terminal(columns):
    """What `deepexp list` prints on a terminal of that many columns."""
    master, slave = pty.openpty()
    code = "from deepexp.cli import main; main(['list'])"
    environment = {**os.environ, "COLUMNS": str(columns)}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=slave, env=environment)
    os.close(slave)
    seen = b""
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:  # Linux says so when the other end is closed
            break
        if not part:
            break
        seen += part
    os.close(master)
    assert process.wait() == 0
    return seen.decode().replace("\r", "").splitlines()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_lines_fit_the_terminal_and_are_whole_when_piped(capsys):
    assert max(len(line) for line in run_on_a_terminal(60)[:-2]) == 60
    main([])
    assert "…" not in "".join(line[-1:] for line in capsys.readouterr().out.splitlines())
