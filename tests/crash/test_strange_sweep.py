"""A sweep directory from a stranger can neither run code nor have anything written outside it."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from deepexp import cli
from deepexp.errors import InputError
from deepexp.sweep import command
from deepexp.sweep.foreign import check_sweep

from .strangers import everything_below

SMALL = ["epochs=1", "data.subset=40", "batch_size=20", "threads=1", "device=cpu", "hydra.launcher.jobs=1"]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    assert cli.main(["train", "-m", "seed=0,1", *SMALL, f"output_dir={folder}"]) == 0
    (path,) = folder.glob("*/*")
    return path


@pytest.fixture
def sweep(original, tmp_path):
    shutil.copytree(original, tmp_path / "sweep")
    return tmp_path / "sweep"


def tamper(sweep: Path, **changes: Any) -> None:
    path = sweep / "sweep.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def saved_words(sweep: Path) -> list[str]:
    return json.loads((sweep / "sweep.json").read_text())["overrides"]


def load(bomb: Path) -> str:
    return f"{{_target_: torch.load, f: '{bomb}', weights_only: false}}"


def attacks(bomb: Path) -> dict[str, str]:
    return {
        "a target": "++schedule._target_=torch.optim.optimizer.torch.load",
        "a nested target": f"++optim.betas={load(bomb)}",
        "an interpolation": f'++optim.betas=${{oc.create:"{load(bomb)}"}}',
        "a callback": f"+hydra.callbacks.bomb={load(bomb)}",
        "a sweeper": "hydra.sweeper._target_=torch.load",
        "a search path": "hydra.searchpath=[file:///tmp]",
        "a cache": "++data.cache=/tmp",
        "a folder for data": "data.root=/tmp/a folder that is not there",
    }


NAMES = list(attacks(Path()))


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_override_that_names_code_or_outside_paths_is_refused(sweep, bomb, mark, capsys, name):
    word = attacks(bomb)[name]
    tamper(sweep, overrides=[*saved_words(sweep), word])
    before = everything_below(sweep)
    assert cli.main(["train", f"resume={sweep}"]) == 2
    said = capsys.readouterr().err
    assert "is in sweep.json" in said and word in said
    assert not mark.exists()
    assert everything_below(sweep) == before


def test_without_the_guard_the_pickle_runs_code(sweep, bomb, mark, monkeypatch):
    words = ["++schedule._target_=torch.load", f"++schedule.f='{bomb}'", "++schedule.weights_only=false"]
    tamper(sweep, overrides=[*saved_words(sweep), *words, "~schedule.warmup"])
    monkeypatch.setattr(command, "check_sweep", lambda *_: None)
    cli.main(["train", f"resume={sweep}"])
    assert mark.exists()


def test_a_saved_override_that_the_user_repeats_is_allowed(sweep, tmp_path):
    """What the user gives on the command line is trusted, and replaces the saved value."""
    word = f"data.root={tmp_path / 'new'}"
    tamper(sweep, overrides=[*saved_words(sweep), word])
    with pytest.raises(InputError, match=r"is in sweep\.json"):
        check_sweep(sweep, ["seed=0"])
    check_sweep(sweep, [word])


def test_an_unchanged_sweep_is_resumed(sweep, capsys):
    assert cli.main(["train", f"resume={sweep}"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("choice", [{"pretrained": {"_target_": "x"}, "threads": 1}, {"threads": 1}, [], None])
def test_choices_of_another_type_are_refused(sweep, capsys, choice):
    tamper(sweep, choices=choice)
    assert cli.main(["train", f"resume={sweep}"]) == 2
    assert "sweep.json" in capsys.readouterr().err


@pytest.mark.parametrize("run", ["../other", "..", "/tmp", 7])
def test_a_run_outside_the_sweep_is_not_resumed(sweep, tmp_path, capsys, run):
    (first, *_) = [path for path in sweep.iterdir() if (path / "status.json").exists()]
    shutil.copytree(first, tmp_path / "other")
    before = everything_below(tmp_path / "other")
    ledger = sweep / "ledger.jsonl"
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    ledger.write_text("".join(json.dumps({**line, "directory": run, "state": "killed"}) + "\n" for line in lines))
    assert cli.main(["train", f"resume={sweep}"]) == 2
    assert re.search(r"ledger\.jsonl(:1)?: is damaged", capsys.readouterr().err)
    assert everything_below(tmp_path / "other") == before


@pytest.mark.parametrize("name", [".lock", "sweep.json", "ledger.jsonl", "table.csv", "logs/seed=0.log"])
def test_nothing_is_written_through_a_link(sweep, tmp_path, capsys, name):
    precious = tmp_path / "precious"
    content = (sweep / name).read_bytes() if name == "sweep.json" else b"x" * 10_000
    precious.write_bytes(content)
    (sweep / name).parent.mkdir(exist_ok=True)
    (sweep / name).unlink(missing_ok=True)
    (sweep / name).symlink_to(precious)
    assert cli.main(["train", f"resume={sweep}"]) == 2
    assert name in capsys.readouterr().err
    assert precious.read_bytes() == content


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name here")
@pytest.mark.parametrize("name", ["ledger.jsonl", "seed=0/status.json"])
def test_a_named_pipe_does_not_block(sweep, capsys, name):
    (sweep / name).unlink()
    os.mkfifo(sweep / name)
    assert cli.main(["train", f"resume={sweep}"]) == 2
    assert name in capsys.readouterr().err
