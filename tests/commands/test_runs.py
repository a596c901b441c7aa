import datetime
import errno
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deepexp.commands.runs import main
from deepexp.commands.train import resume
from deepexp.config.compose import compose
from deepexp.errors import InputError, RunFailed
from deepexp.report import prune
from deepexp.report.runs import read
from deepexp.run.rundir import RunDirectory
from deepexp.text.console import Console

spec = importlib.util.spec_from_file_location("synthetic", Path(__file__).parents[1] / "report" / "synthetic.py")
synthetic = importlib.util.module_from_spec(spec)
spec.loader.exec_module(synthetic)


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, values, settings in [
        ("a", {"optim.lr": 0.1}, {"error_rate": 0.3}),
        ("b", {"optim.lr": 0.001, "batch_size": 10}, {"error_rate": 0.1}),
        ("c", {"optim": "adam"}, {"error_rate": 0.2}),
        ("d", {"optim": "adam"}, {"status": "failed", "reason": "nan"}),
        ("e", {}, {"status": "running"}),
    ]:
        synthetic.make_run(tmp_path / "outputs" / name, values, **settings)
    return tmp_path / "outputs"


def listed(capsys, *words):
    assert main([*words, "json=true"]) == 0
    return [Path(run["path"]).name for run in json.loads(capsys.readouterr().out)]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], "abcde"),
        (["optim=adam"], "cd"),
        (["optim=a*"], "cd"),
        (["optim.lr=1e-3,0.1", "optim=sgd"], "abe"),
        (["batch_size=10"], "b"),
        (["status=failed"], "d"),
        (["status=failed,cut-off"], "de"),
        (["status!=done"], "de"),
        (["test_error_rate<0.2"], "b"),
        (["test_error_rate>=0.2"], "ac"),
        (["sort=test_error_rate"], "bcade"),
        (["sort=-test_error_rate"], "acbde"),
        (["status=done", "sort=optim.lr"], "bca"),
    ],
)
def test_filters_and_sorting(outputs, capsys, words, names):
    assert listed(capsys, *words) == list(names)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["stauts=done"], r"stauts: no run here has such a key \(did you mean 'status'\?\)"),
        (["sotr=optim.lr"], r"sotr: no run here has such a key \(did you mean 'sort'\?\)"),
        (["status=fialed"], r"status: .* \(did you mean 'failed'\?\); one of done, running, failed, .*cut-off"),
        (["sort="], "sort: is empty; give a key to sort by, or age or size"),
        (["sort=-"], "sort: is empty"),
        (["sort=optim.l"], r"optim\.l: no run here has such a key \(did you mean 'optim\.lr'\?\)"),
        (["batch_size<many"], "batch_size<many: < needs a number"),
        (["older_than=old"], "older_than: 'old' is not allowed; a number and a unit"),
        (["confirm=true"], "confirm: confirms prune=true"),
        (["nowhere/x"], "nowhere/x: there is nothing of that name"),
    ],
)
def test_a_mistake_is_refused(outputs, words, message):
    with pytest.raises(InputError, match=message):
        main(words)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["optim=adma"], "optim: no run here has 'adma' (did you mean 'adam'?)\n"),
        (["optim=sgd,adma"], "optim: no run here has 'adma' (did you mean 'adam'?)\n"),
        (["optim!=adma"], "optim: no run here has 'adma' (did you mean 'adam'?)\n"),
        (["optim=a*"], ""),
        (["optim=lbfgs"], ""),
        (["status=cut-off"], ""),
        (["optim.lr=0.2"], ""),
    ],
)
def test_a_value_that_no_run_has_gets_the_nearest_as_a_suggestion(outputs, capsys, words, told):
    assert main(words) == 0
    assert capsys.readouterr().err == told


def test_the_table_of_runs_and_that_of_none(outputs, capsys, tmp_path, monkeypatch):
    main([])
    shown = capsys.readouterr().out
    assert "FAILED" in shown and "cut off" in shown and "5 runs" in shown
    assert str(Path("outputs", "a")) in shown
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert main([]) == 0
    assert capsys.readouterr().out == "there are no runs in outputs/ here\n"
    assert main(["json=true"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def with_checkpoints(run, days, *, names=("last.pt", "previous.pt", "best.pt")):
    (run / "checkpoints").mkdir()
    for name in names:
        payload = b"x" * (1000 - 80)
        digest = hashlib.sha256(payload).hexdigest().encode()
        (run / "checkpoints" / name).write_bytes(payload + b"\ndeepexp-sha256:" + digest + b"\n")
    ended = datetime.datetime.now().astimezone() - datetime.timedelta(days=days)
    content = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps(content | {"end_time": ended.isoformat()}))


def left(run):
    return sorted(path.name for path in (run / "checkpoints").iterdir())


ALL = ["best.pt", "last.pt", "previous.pt"]


@pytest.mark.parametrize(("name", "told", "runs"), [("b", "outputs/b", 4), ("outputs", "outputs", 0)])
def test_an_unreadable_folder_is_named(outputs, capsys, monkeypatch, name, told, runs):
    """Otherwise its runs would be missing from every list and comparison without notice."""
    scandir = os.scandir

    def closed(path):
        if Path(path).name == name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    assert main([]) == 0
    out, err = capsys.readouterr()
    assert err == f"damaged: {told}: cannot be read (Permission denied)\n"
    assert f"{runs} runs" in out
    assert read([outputs]).damaged == [f"{outputs.parent / told}: cannot be read (Permission denied)"]


def test_prune_removes_nothing_without_confirm(outputs, capsys):
    with_checkpoints(outputs / "a", days=40)
    assert main(["prune=true"]) == 0
    shown = capsys.readouterr().out
    assert "best.pt, last.pt, previous.pt" in shown and "3.0 kB" in shown
    assert "nothing was removed" in shown
    assert left(outputs / "a") == ALL


def test_prune_removes_all_of_old_runs_and_previous_of_others(outputs, capsys):
    with_checkpoints(outputs / "a", days=40)
    with_checkpoints(outputs / "b", days=20)
    with_checkpoints(outputs / "c", days=20, names=["previous.pt"])  # the only one it has
    for name in ("best_earlier.pt", "best.step7.pt"):
        (outputs / "a" / "checkpoints" / name).touch()
    kept = sorted(path.name for path in (outputs / "a").iterdir())
    assert main(["prune=true", "confirm=true"]) == 0
    assert (left(outputs / "a"), left(outputs / "b"), left(outputs / "c")) == (
        [],
        ["best.pt", "last.pt"],
        ["previous.pt"],
    )
    assert "removed from 2 of 2 runs: 4.0 kB" in capsys.readouterr().out
    assert set(kept) <= {path.name for path in (outputs / "a").iterdir()}
    main(["prune=true", "confirm=true", "older_than=2w", "optim.lr=0.1"])  # matches other runs
    assert left(outputs / "b") == ["best.pt", "last.pt"]
    main(["prune=true", "confirm=true", "older_than=2w"])
    assert left(outputs / "b") == []


def test_prune_keeps_previous_where_last_is_damaged(outputs):
    with_checkpoints(outputs / "a", days=1)
    last = outputs / "a" / "checkpoints" / "last.pt"
    last.write_bytes(last.read_bytes()[:-100])
    main(["prune=true", "confirm=true"])
    assert left(outputs / "a") == ALL


def test_prune_keeps_files_of_other_names(outputs):
    with_checkpoints(outputs / "a", days=400, names=["last.pt", "epoch_7.pt"])
    main(["prune=true", "confirm=true"])
    assert left(outputs / "a") == ["epoch_7.pt"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["older_than=2w"], "older_than: says what prune=true removes"),
        (["prune=true", "json=true"], "json: prints what runs there are"),
        (["confirm=true"], "confirm: confirms prune=true"),
    ],
)
def test_options_without_an_effect_are_refused(outputs, words, expected):
    with pytest.raises(InputError, match=expected):
        main(words)


def test_an_unequal_filter_needs_runs_with_the_key(outputs, capsys):
    """With prune=true, the filter decides which checkpoints are removed."""
    assert listed(capsys, "test_error_rate!=0.1") == ["a", "c"], "d and e have no result"
    assert listed(capsys, "dropout!=0.5") == ["a", "b", "c", "d", "e"], "they have that key, and null is not 0.5"
    assert listed(capsys, "experiment!=dropout") == ["a", "b", "c", "d", "e"]
    assert listed(capsys, "optim.lr=2026-13-45") == [], "PyYAML raises another error for such a date"


def test_prune_keeps_all_of_unfinished_runs(outputs):
    for name in "de":
        with_checkpoints(outputs / name, days=400)
    main(["prune=true", "confirm=true"])
    assert left(outputs / "d") == left(outputs / "e") == ALL


def test_prune_keeps_all_of_a_run_resumed_after_the_plan(outputs):
    with_checkpoints(outputs / "a", days=400)
    (planned,) = [one for one in prune.plan(read([outputs]).runs, 0, datetime.datetime.now().astimezone()) if one.files]
    run = RunDirectory(outputs / "a")
    run.set_status("running")
    with pytest.raises(InputError, match="has been resumed; its checkpoints are kept"):
        prune.remove(planned)
    assert left(outputs / "a") == ALL and not run.is_alive()


def test_a_file_with_another_hard_link_frees_nothing(outputs, tmp_path):
    with_checkpoints(outputs / "a", days=400)
    planned = [prune.plan(read([outputs / "a"]).runs, 0, datetime.datetime.now().astimezone())]
    os.link(outputs / "a" / "checkpoints" / "best.pt", tmp_path / "kept.pt")
    planned.append(prune.plan(read([outputs / "a"]).runs, 0, datetime.datetime.now().astimezone()))
    before, after = (pruning.frees_bytes for (pruning,) in planned)
    assert before - after == (tmp_path / "kept.pt").stat().st_size > 0


def test_prune_keeps_all_of_a_locked_run(outputs):
    with_checkpoints(outputs / "a", days=400)
    run = RunDirectory(outputs / "a")
    run.lock()  # as a resumed run does before its status says so
    try:
        with pytest.raises(RunFailed, match="still alive"):
            main(["prune=true", "confirm=true"])
    finally:
        run.unlock()
    assert left(outputs / "a") == ALL


def test_prune_follows_no_links_and_keeps_other_files(outputs, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "last.pt").write_bytes(b"mine")
    with_checkpoints(outputs / "a", days=400)
    (outputs / "a" / "checkpoints" / "linked.pt").symlink_to(tmp_path / "elsewhere" / "last.pt")
    (outputs / "a" / "checkpoints" / "notes.txt").write_text("mine")
    with_checkpoints(outputs / "b", days=400, names=[])
    (outputs / "b" / "checkpoints").rmdir()
    (outputs / "b" / "checkpoints").symlink_to(tmp_path / "elsewhere")
    main(["prune=true", "confirm=true"])
    assert left(outputs / "a") == ["linked.pt", "notes.txt"]
    assert (tmp_path / "elsewhere" / "last.pt").read_bytes() == b"mine"


def test_resuming_a_pruned_run_says_that_checkpoints_were_removed(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    directory = run(["epochs=1", "max_steps=3"]).directory
    main(["prune=true", "confirm=true", "older_than=0d", str(tmp_path / "outputs")])
    assert left(directory) == []
    composed = compose([f"resume={directory}", "max_steps=6", "epochs=2"])
    with pytest.raises(InputError, match="its checkpoints were removed"):
        resume(directory, composed, Console("quiet"))
    assert (directory / "summary.json").exists()


@pytest.mark.parametrize("words", [[], ["prune=true"]])
def test_runs_does_not_import_torch(outputs, words):
    code = f"import sys; from deepexp.cli import main; main(['runs', *{words!r}]); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=outputs.parent).returncode == 0
