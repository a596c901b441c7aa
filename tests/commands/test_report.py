import csv
import errno
import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

from deepexp.commands.report import main
from deepexp.commands.runs import main as list_runs
from deepexp.errors import InputError, RunFailed

spec = importlib.util.spec_from_file_location("synthetic", Path(__file__).parents[1] / "report" / "synthetic.py")
synthetic = importlib.util.module_from_spec(spec)
spec.loader.exec_module(synthetic)


@pytest.fixture
def sweep(tmp_path):
    grid = {"optim.lr": [0.1, 0.2], "seed": [0, 1, 2]}
    return synthetic.make_sweep(tmp_path / "sweep", grid, lambda job: job["optim.lr"] * (1 + job["seed"] / 20))


def test_report_prints_tables_and_writes_its_files(sweep, capsys):
    assert main([str(sweep)]) == 0
    shown = capsys.readouterr().out
    assert "10.50 ± 0.50%" in shown
    assert "paired t over 3 seeds" in shown
    assert "\x1b" not in shown
    assert {"report.html", "report.json", "table.csv", "table.md", "groups.csv"} <= {
        path.name for path in (sweep / "report").iterdir()
    }
    before = sorted(path.name for path in (sweep / "report").iterdir())
    main([str(sweep)])  # again: it replaces the first report, which is not taken for a run
    assert sorted(path.name for path in (sweep / "report").iterdir()) == before
    assert not list(sweep.glob(".report-*"))


def test_means_over_seeds_are_written_where_there_are_several(sweep, tmp_path, capsys):
    assert main([str(sweep)]) == 0
    assert "(with groups.csv, table.csv, table.md and " in capsys.readouterr().out
    groups = list(csv.DictReader((sweep / "report" / "groups.csv").open()))
    runs = list(csv.DictReader((sweep / "report" / "table.csv").open()))
    assert [(group["optim.lr"], group["seeds"]) for group in groups] == [("0.1", "3"), ("0.2", "3")]
    for group in groups:
        rates = [float(run["test_error_rate"]) for run in runs if run["optim.lr"] == group["optim.lr"]]
        assert float(group["test_error_rate_mean"]) == pytest.approx(np.mean(rates), abs=1e-12)
        assert float(group["test_error_rate_std"]) == pytest.approx(np.std(rates, ddof=1), abs=1e-12)
        assert group["val_error_rate_mean"] == group["val_error_rate_std"] == ""
    single = synthetic.make_sweep(tmp_path / "single", {"optim.lr": [0.1, 0.2]}, lambda job: job["optim.lr"])
    assert main([str(single), f"to={sweep / 'report'}"]) == 0
    assert not (sweep / "report" / "groups.csv").exists()  # the earlier report's


def test_for_latex_there_are_plots_as_pdf_and_a_table(sweep, capsys):
    assert main([str(sweep), "latex=true"]) == 0
    assert ", table.tex and " in capsys.readouterr().out
    folder = sweep / "report"
    drawn = {path.stem for path in folder.glob("*.png")}
    assert drawn and {path.stem for path in folder.glob("*.pdf")} == drawn
    lines = (folder / "table.tex").read_text(encoding="utf-8").splitlines()
    assert lines[:3] == ["% optim.lr, 6 runs", "% Means ± standard deviations over seeds", r"% \usepackage{booktabs}"]
    assert lines[3] == r"\begin{tabular}{lrrrrrr}" and lines[-1] == r"\end{tabular}"
    assert lines[5].startswith(r"optim.lr & test error & seeds & errors & ") and lines[5].endswith(r" \\")
    assert lines[7].startswith(r"0.1 & 10.50 $\pm$ 0.50\% & 3 & ")
    assert main([str(sweep)]) == 0  # without it, they are gone
    assert not [*folder.glob("*.pdf"), *folder.glob("*.tex")]


def test_folders_of_reports_among_the_paths_are_passed_over(tmp_path, capsys):
    for seed in range(2):
        synthetic.make_sweep(tmp_path / "runs" / f"s{seed}", {"optim.lr": [0.1, 0.2]}, lambda job: job["optim.lr"])
    for _ in range(3):
        assert main([str(path) for path in (tmp_path / "runs").iterdir()]) == 0  # as `runs/*` in a shell
        assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["report", "s0", "s1"]
    assert list_runs([str(path) for path in (tmp_path / "runs").iterdir()]) == 0
    capsys.readouterr()
    with pytest.raises(InputError, match="there is no run in it"):
        main([str(tmp_path / "runs" / "report")])


def test_a_run_that_a_report_was_written_into_is_still_a_run(tmp_path, capsys):
    runs = [synthetic.make_run(tmp_path / str(seed), {"seed": seed}) for seed in range(2)]
    assert main([str(runs[0]), f"to={runs[0]}"]) == 0
    capsys.readouterr()
    assert list_runs([str(run) for run in runs]) == 0
    assert str(runs[0]) in capsys.readouterr().out


def test_a_run_directory_is_not_taken_for_an_option(sweep, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(sweep)
    assert main(["optim.lr=0.1,seed=0", "optim.lr=0.2,seed=0", "diff=true", f"to={tmp_path / 'r'}"]) == 0
    assert "optim.lr  0.1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "report: of what"),
        (["nowhere"], "nowhere: there is nothing of that name"),
        (["basline=x"], r"basline: there is no such key \(did you mean 'baseline'\?\); one of to, baseline, diff"),
        (["--diff"], "--diff: there is no such flag"),
        (["x", "diff=maybe"], "diff: 'maybe' is not allowed; true or false"),
    ],
)
def test_a_mistake_is_refused(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        main(words)


def test_a_foreign_file_is_kept_and_refused_before_drawing(sweep, tmp_path, monkeypatch):
    monkeypatch.setattr("deepexp.report.document.write", lambda *_, **__: pytest.fail("has drawn"))
    target = tmp_path / "mine"
    target.mkdir()
    (target / "table.csv").write_text("mine")
    with pytest.raises(InputError, match=r"table\.csv there was not written by"):
        main([str(sweep), f"to={target}"])
    assert [path.name for path in target.iterdir()] == ["table.csv"]
    assert (target / "table.csv").read_text() == "mine"


def test_an_empty_folder_name_is_refused(sweep, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(InputError, match="to: is empty; give the folder"):
        main([str(sweep), "to="])
    assert os.listdir() == []


def test_a_full_disk_leaves_no_folder_and_the_message_names_to(sweep, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("deepexp.disk.storage.os.fsync", full)
    with pytest.raises(RunFailed, match=r"cannot write \S*report: No space .* make room there, or .*with to=DIR"):
        main([str(sweep)])
    assert not (sweep / "report").exists()
    monkeypatch.undo()
    assert main([str(sweep)]) == 0
    assert (sweep / "report" / "report.html").is_file()
