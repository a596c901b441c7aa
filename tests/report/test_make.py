"""What varies between runs, and the tables and notes of a report, for runs with known results."""

import csv
import importlib.util
import io
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from deepexp.errors import InputError
from deepexp.report import folder, text, variation
from deepexp.report.make import make
from deepexp.report.runs import read
from deepexp.report.table import csv_text, ordered
from deepexp.report.variation import NOT_OF_THE_RESULT
from deepexp.run.identity import HOW

spec = importlib.util.spec_from_file_location("synthetic", Path(__file__).with_name("synthetic.py"))
synthetic = importlib.util.module_from_spec(spec)
spec.loader.exec_module(synthetic)
data_in, make_run, make_sweep = synthetic.data_in, synthetic.make_run, synthetic.make_sweep


def test_keys_that_follow_from_an_option_do_not_vary(tmp_path):
    make_sweep(tmp_path / "s", {"optim": ["sgd", "adam"], "seed": [0, 1]}, lambda job: 0.1)
    runs = read([tmp_path]).runs
    assert variation.varying(runs) == ["optim"]
    assert [(group.label, len(group.runs)) for group in variation.groups(runs)] == [("optim=sgd", 2), ("optim=adam", 2)]


def test_other_data_in_another_folder_is_another_setting(tmp_path):
    """Otherwise their errors would be averaged as if they were seeds of one setting."""
    make_run(tmp_path / "a", **data_in("/a", "aa", seed=0), error_rate=0.05)
    make_run(tmp_path / "b", **data_in("/b", "bb", seed=1), error_rate=0.5)
    report = make([tmp_path])
    assert report.varying == ["data.root"] and len(report.groups) == 2
    assert report.group_table is None, "there is no mean over the two"
    assert not report.comparisons.made and "not known to be the same" in report.comparisons.not_made[0]


def test_the_same_data_in_another_folder_is_the_same_setting(tmp_path):
    """With `data.subset` fingerprints depend on the seed; equal ones for a seed show that the folders hold the same."""
    for name, root, seed, fingerprint in [("a", "/a", 0, "s0"), ("b", "/a", 1, "s1"), ("c", "/b", 1, "s1")]:
        make_run(tmp_path / name, **data_in(root, fingerprint, seed=seed))
    make_run(tmp_path / "d", {"data.root": "/c", "seed": 3}, status="failed", provenance={"data_fingerprint": None})
    assert variation.varying(read([tmp_path]).runs) == []


def test_settings_that_differ_in_many_keys_are_named_by_rare_values(tmp_path):
    """Each of seven runs changes another key: names with all of these keys would be too long to read."""
    rare = {"optim.lr": 0.5, "batch_size": 7, "ema": 0.9, "accumulate": 3, "label_smoothing": 0.2, "clip_grad_norm": 2}
    make_run(tmp_path / "first", {"optim.lr": 0.01})
    for key, value in rare.items():
        make_run(tmp_path / key, {"optim.lr": 0.01, key: value})
    make_run(tmp_path / "two", {"optim.lr": 0.5, "batch_size": 7})
    make_run(tmp_path / "cifar", {"optim.lr": 0.01, "data": "cifar10"})
    make_run(tmp_path / "cifar, again", {"optim.lr": 0.5, "data": "cifar10"})
    report = make([tmp_path], baseline="the usual settings")
    assert {group.label for group in report.groups} == {
        *("the usual settings", "optim.lr=0.5, batch_size=7", "data=cifar10", "optim.lr=0.5, data=cifar10"),
        *(f"{key}={value}" for key, value in rare.items()),
    }
    assert report.naming is not None and "optim.lr=0.01" in report.naming and "batch_size=100" in report.naming
    assert (
        report.naming in list(text.lines(report)) and "optim.lr × " in report.title and " more, 10 runs" in report.title
    )
    assert len(report.comparisons.made) == 7
    (line,) = report.comparisons.not_made
    assert line.startswith("Not compared with the usual settings: data=cifar10; optim.lr=0.5, data=cifar10: ")
    whole = make([tmp_path], baseline="batch_size=100, ema=0.9")  # usual values may be given too
    assert [steps.baseline for steps in whole.steps_to] == ["ema=0.9"]


def test_few_settings_are_named_in_full(tmp_path):
    make_sweep(tmp_path / "s", {"optim.lr": [0.1, 0.2], "batch_size": [10, 20]}, lambda job: 0.1)
    report = make([tmp_path])
    assert report.groups[0].label == "optim.lr=0.1, batch_size=10" and report.naming is None


def test_a_seed_that_was_run_twice_counts_once(tmp_path):
    for name, seed, rate in [("a", 0, 0.1), ("b", 0, 0.3), ("c", 1, 0.2)]:
        make_run(tmp_path / name, {"seed": seed, "optim.lr": 0.1}, error_rate=rate)
    make_run(tmp_path / "d", {"optim.lr": 0.01}, rates=[0.5, 0.195])
    report = make([tmp_path], baseline="optim.lr=0.1")
    assert "Runs with the same seed count as one, by their mean, for optim.lr=0.1." in report.notes
    reached = {row.label: row.reached for row in report.steps_to[0].rows}
    assert reached["optim.lr=0.01"] == 1, "80.5% is above the mean of 90 and 70%, whichever of them was read last"


def test_rounding_of_a_mean_does_not_hide_that_a_best_is_reached(tmp_path):
    """In floating point, the mean of three times 98.6% is a little more than 98.6%."""
    for name in "abc":
        make_run(tmp_path / name, {"optim.lr": 0.1}, rates=[0.3, 0.014], samples=1000)
    make_run(tmp_path / "d", {"optim.lr": 0.01}, rates=[0.3, 0.015], samples=1000)
    report = make([tmp_path], baseline="optim.lr=0.1")
    assert [row.reached for row in report.steps_to[0].rows] == [3, 0]


def test_keys_set_besides_an_option_vary(tmp_path):
    make_sweep(
        tmp_path / "s", {"batch_size": [10, 100], "optim": ["sgd", "adam"], "optim.lr": [0.1, 0.01]}, lambda job: 0.1
    )
    assert variation.varying(read([tmp_path]).runs) == ["batch_size", "optim", "optim.lr"]


def test_device_threads_and_folders_do_not_vary(tmp_path):
    make_run(tmp_path / "a", {"device": "cpu", "threads": 1, "name": "x", "data.root": "/a"})
    make_run(tmp_path / "b", {"device": "cuda", "threads": 2, "name": "y", "data.root": "/b"})
    assert variation.varying(read([tmp_path]).runs) == []


def test_equal_integers_and_floats_do_not_vary(tmp_path):
    for name, rate in (("a", 1), ("b", 1.0)):
        make_run(tmp_path / name, {"optim.lr": rate})
    runs = read([tmp_path]).runs
    assert len(runs) == 2 and variation.varying(runs) == []


def test_a_key_that_repeats_another_does_not_vary(tmp_path):
    for value in (0.1, 0.5):
        make_run(tmp_path / str(value), {"dropout": value, "model.dropout": value})
    assert variation.varying(read([tmp_path]).runs) == ["dropout"]


@pytest.mark.parametrize("figure", ["test", "validation"])
def test_settings_as_good_as_the_best_are_named_with_it(tmp_path, figure):
    def best_with(lr, rate):
        validation = rate if figure == "validation" else None
        make_run(tmp_path / str(lr), {"optim.lr": lr}, rates=[0.9, rate], val_error_rate=validation)
        return make([tmp_path]).best

    best_with(0.01, 0.1)
    assert f"Lowest {figure} error: optim.lr=0.01 with 10.00% (as low: optim.lr=0.1)" in best_with(0.1, 0.1)
    best = best_with(1, 0.05)
    assert f"Lowest {figure} error: optim.lr=1 with 5.00%" in best and "as low" not in best


def test_rows_are_ordered_by_validation_error_or_by_the_grid(tmp_path):
    for name, test, val in (("a", 0.1, 0.3), ("b", 0.3, 0.1), ("c", 0.2, 0.2)):
        make_run(tmp_path / name, {"optim.lr": test}, error_rate=test, val_error_rate=val)
    runs = read([tmp_path]).runs
    assert [run.name for run in ordered(runs)] == ["b", "c", "a"]
    assert make([tmp_path]).best.startswith(
        "Lowest validation error: optim.lr=0.3 with 10.00%; its test error is 30.00%"
    )
    make_run(tmp_path / "0", {"optim.lr": 9}, status="failed", reason="nan")
    assert [run.name for run in ordered(read([tmp_path]).runs)] == ["b", "c", "a", "0"]
    shutil.rmtree(tmp_path / "0")
    make_run(tmp_path / "d", {"optim.lr": 0.01}, error_rate=0.01)
    assert [run.name for run in ordered(read([tmp_path]).runs)] == ["a", "b", "c", "d"]


def test_tables_fit_a_narrow_terminal(tmp_path):
    for model in ("mnist_net", "resnet"):
        for seed in range(3):
            make_run(tmp_path / f"{model}{seed}", {"model": model, "seed": seed}, error_rate=0.11, val_error_rate=0.13)
    shown = list(text.lines(make([tmp_path]), 50))
    assert max(map(len, shown)) <= 50
    assert any(line.startswith("(in table.csv only: ") for line in shown) and any("errors)" in line for line in shown)


def test_failed_runs_are_shown_with_the_reason(tmp_path):
    nan = float("nan")
    make_sweep(tmp_path / "s", {"optim.lr": [0.1, 10], "seed": [0, 1]}, lambda job: 0.1 if job["optim.lr"] < 1 else nan)
    shown = "\n".join(text.lines(make([tmp_path])))
    assert "2 of 4 runs have no result:" in shown
    assert shown.count("FAILED") == 2
    assert "optim.lr=10,seed=0: failed: the loss is nan at step 20" in shown
    assert "0 of 2" in shown


def test_steps_until_the_baselines_best(tmp_path):
    make_run(tmp_path / "a", {"batch_norm": False}, rates=[0.5, 0.3, 0.2])
    make_run(tmp_path / "b", {"batch_norm": True}, rates=[0.4, 0.2, 0.1])
    make_run(tmp_path / "c", {"batch_norm": True, "optim.lr": 9}, rates=[0.9, 0.9, 0.8])
    report = make([tmp_path], baseline="batch_norm=false")
    narrow = list(text.lines(report, 60))
    assert max(map(len, narrow)) <= 60 and any("in table.md only: epochs, time" in line for line in narrow)
    found = {row.label: row for row in report.steps_to[0].rows}
    figures = [(row.steps, row.epochs, round(row.best_accuracy, 6)) for row in found.values()]
    assert figures == [(42, 3, 0.8), (28, 2, 0.9), (None, None, 0.2)]


def test_runs_that_lost_measurements_have_no_steps_to_the_best(tmp_path):
    """They may have reached it before, in the measurements that are lost."""
    make_run(tmp_path / "a", {"batch_norm": False}, rates=[0.5, 0.3, 0.2])
    lost = {"resumed": [{"lost": ["metrics.jsonl"]}]}
    later = make_run(tmp_path / "b", {"batch_norm": True}, rates=[0.2, 0.2, 0.2], provenance=lost) / "metrics.jsonl"
    later.write_text("".join(later.read_text().splitlines(keepends=True)[1:]))
    report = make([tmp_path], baseline="batch_norm=false")
    assert [row.label for row in report.steps_to[0].rows] == ["batch_norm=false"]
    assert "Left out: batch_norm=true: what they had measured at first is lost." in report.steps_to[0].table().caption
    make_run(tmp_path / "c", {"batch_norm": True, "seed": 1}, provenance={"resumed": [{"lost": None}, "other", {}]})
    assert make([tmp_path / "c"]).damaged == []


def test_steps_are_counted_only_for_results_on_the_baselines_data(tmp_path):
    make_sweep(
        tmp_path / "s",
        {"optim.lr": [0.1, 0.2, 9], "seed": [0, 1]},
        lambda job: float("nan") if job["optim.lr"] == 9 or (job["optim.lr"], job["seed"]) == (0.2, 1) else 0.1,
        rates=[0.5, 0.1],
    )
    make_run(tmp_path / "other", {"data": "mnist", "optim.lr": 0.1}, rates=[0.4, 0.05])
    make_run(tmp_path / "fewer", {"batch_size": 7, "optim.lr": 0.1}, rates=[0.4, 0.05], samples=100)
    for path, label in ((tmp_path / "s", "optim.lr=0.1"), (tmp_path, "data=digits, optim.lr=0.1, batch_size=100")):
        report = make([path], baseline=label)
        reached = {row.label: (row.reached, row.runs) for row in report.steps_to[0].rows}
        assert list(reached.values()) == [(2, 2), (1, 1)], "the others have failed, or were tested on other samples"
        assert "of those with a result" in report.steps_to[0].table().caption
    caption = report.steps_to[0].table().caption
    fewer, other = (group.label for group in report.groups if "=7" in group.label or "=mnist" in group.label)
    assert f"Left out: {other}: they were tested on different data, digits and mnist." in caption
    assert f"Left out: {fewer}: they were not tested on the same samples" in caption
    assert make([tmp_path / "s"], baseline="optim.lr=9").steps_to == []


def test_diff_shows_what_differs_between_two_runs(tmp_path):
    git = {"git": {"commit": "abc", "diff": "+a = 1\n"}, "versions": synthetic.VERSIONS | {"torch": "2.0"}}
    make_run(tmp_path / "a", {"optim.lr": 0.1})
    make_run(tmp_path / "b", {"optim.lr": 0.2}, provenance=git, error_rate=0.2)
    difference = make([tmp_path], diff=True).difference
    rows = {section.title: [list(row) for row in section.table.rows] for section in difference.sections}
    assert rows["config"] == [["optim.lr", "0.1", "0.2"]]
    assert rows["versions"] == [["torch", "2.14.1", "2.0"]]
    assert ["commit", "none: not in a git checkout", "abc"] in rows["code"]
    assert ["test_errors", "20", "40"] in rows["results"]
    assert "+a = 1" in "".join(difference.code)
    assert difference.same.startswith("the same in both: ")
    assert "choices" in difference.same
    make_run(tmp_path / "c")
    with pytest.raises(InputError, match="diff: compares two runs, and 3 were found"):
        make([tmp_path], diff=True)
    with pytest.raises(InputError, match="diff: compares two runs, and 1 was found"):
        make([tmp_path / "a", tmp_path / "a"], diff=True)
    (tmp_path / "b" / "summary.json").unlink()
    with pytest.raises(InputError, match=r"b/summary\.json is missing\ndiff: compares two runs, and 1 was found"):
        make([tmp_path / "a", tmp_path / "b"], diff=True)


def test_diff_shows_that_a_module_of_the_users_own_was_edited(tmp_path):
    for name, digest in {"a": "f5ff", "b": "4dca"}.items():
        make_run(tmp_path / name, provenance={"code": {"mlp": digest, "layers": "0b1c"}})
    difference = make([tmp_path], diff=True).difference
    (code,) = (section for section in difference.sections if section.title == "code")
    assert [list(row) for row in code.table.rows] == [["module mlp", "f5ff", "4dca"]]
    assert "code" not in difference.same


def test_the_csv_has_every_figure_in_full(tmp_path):
    make_sweep(tmp_path / "s", {"optim.lr": [0.1, 0.2]}, lambda job: 1 / 30, samples=300)
    report = make([tmp_path])
    rows = list(csv.DictReader(io.StringIO(csv_text(report.runs, report.varying))))
    assert [row["optim.lr"] for row in rows] == ["0.1", "0.2"]
    assert float(rows[0]["test_error_rate"]) == 10 / 300
    interval = [float(rows[0][name]) for name in ("test_error_low", "test_error_high")]
    assert interval == pytest.approx(proportion_confint(10, 300, method="wilson"), abs=1e-12)


def test_the_test_error_of_the_best_epoch_has_columns_where_that_is_not_the_last(tmp_path):
    for seed, rates in enumerate([[0.5, 0.1, 0.2], [0.4, 0.3, 0.2]]):
        best = {"best_epoch": 2 if seed == 0 else 3}
        make_run(tmp_path / f"{seed}", {"seed": seed}, rates=rates, val_error_rate=0.2, summary=best, samples=100)
    report = make([tmp_path])
    shown = [dict(zip(report.run_table.header, row, strict=True)) for row in report.run_table.rows]
    assert [(row["test error"], row["best epoch"], row["test at best"]) for row in shown] == [
        ("20.00%", "2", "10.00%"),
        ("20.00%", "3", "20.00%"),
    ]
    group = dict(zip(report.group_table.header, report.group_table.rows[0], strict=True))
    assert (group["test error"], group["test at best"]) == ("20.00 ± 0.00%", "15.00 ± 7.07%")
    assert any(note.startswith("test at best: ") for note in report.notes)
    rows = csv.DictReader(io.StringIO(csv_text(report.runs, report.varying)))
    assert [float(row["test_error_rate_at_best"]) for row in rows] == [0.1, 0.2]
    last_alone = make([tmp_path / "1"])
    assert not {"best epoch", "test at best"} & set(last_alone.run_table.header)
    assert not any("at best" in note for note in last_alone.notes)
    without = make([make_run(tmp_path / "other", {"seed": 9})])
    assert next(csv.DictReader(io.StringIO(csv_text(without.runs, []))))["test_error_rate_at_best"] == ""


def test_balanced_errors_have_a_column_where_classes_of_the_test_set_differ_in_size(tmp_path):
    target = np.repeat([0, 1, 3], [60, 30, 10])  # a class that does not occur
    for seed, wrong in enumerate([(6, 6, 5), (0, 3, 10)]):
        run = make_run(tmp_path / f"{seed}", {"seed": seed}, samples=100)
        predicted = target.copy()
        for start, count in zip((0, 60, 90), wrong, strict=True):
            predicted[start : start + count] = 2
        np.savez(run / "predictions.npz", format=1, predicted=predicted, target=target)
    report = make([tmp_path])
    shown = [dict(zip(report.run_table.header, row, strict=True)) for row in report.run_table.rows]
    assert [row["balanced error"] for row in shown] == ["26.67%", "36.67%"]
    group = dict(zip(report.group_table.header, report.group_table.rows[0], strict=True))
    assert group["balanced error"] == "31.67 ± 7.07%"
    assert any(note.startswith("balanced error: ") for note in report.notes)
    rows = csv.DictReader(io.StringIO(csv_text(report.runs, report.varying)))
    assert [float(row["balanced_error_rate"]) for row in rows] == pytest.approx([0.8 / 3, 1.1 / 3])
    (tmp_path / "0" / "predictions.npz").write_bytes(b"damaged")
    np.savez(tmp_path / "1" / "predictions.npz", format=1, predicted=target[:0], target=target[:0])
    without = make([tmp_path])
    assert "balanced error" not in without.run_table.header
    assert not any(note.startswith("balanced error") for note in without.notes)
    rows = csv.DictReader(io.StringIO(csv_text(without.runs, without.varying)))
    assert [row["balanced_error_rate"] for row in rows] == ["", ""]


def test_settings_and_figures_of_the_same_name_have_separate_columns(tmp_path):
    """Runs that stopped after one epoch, or failed, still differ in the epochs that were set."""
    grid = {"optim": ["sgd", "adam"], "epochs": [1, 2], "precision": ["fp32", "bf16"]}
    nan = float("nan")
    make_sweep(tmp_path / "s", grid, lambda job: nan if job["optim"] == "adam" else 0.1, summary={"epochs": 1})
    report = make([tmp_path])
    asked = [(optim, epochs, precision) for optim in grid["optim"] for epochs in "12" for precision in ["fp32", "bf16"]]
    header = report.run_table.header
    shown = [dict(zip(header, row, strict=True)) for row in report.run_table.rows]
    assert len(set(header)) == len(header)
    assert [(row["optim"], row["epochs"], row["precision"]) for row in shown] == asked
    assert [row["epochs done"] for row in shown] == ["1"] * 4 + ["-"] * 4
    narrow = next(line for line in text.lines(report, 20) if line.startswith("optim  "))
    assert narrow.split()[:3] == ["optim", "epochs", "precision"] and "done" not in narrow
    header, *rows = csv.reader(io.StringIO(csv_text(report.runs, report.varying)))
    assert len(set(header)) == len(header)
    saved = [dict(zip(header, row, strict=True)) for row in rows]
    assert [(row["optim"], row["epochs"], row["precision"]) for row in saved] == asked
    assert [row["epochs_done"] for row in saved] == ["1"] * 4 + [""] * 4


def test_epochs_have_one_column_if_all_were_done(tmp_path):
    make_sweep(tmp_path / "s", {"epochs": [1, 2, 3]}, lambda job: float("nan") if job["epochs"] == 2 else 0.1)
    table = make([tmp_path]).run_table
    assert [row[0] for row in table.rows] == ["1", "3", "2"] and table.header[0] == "epochs"
    assert "epochs done" not in table.header


def test_a_random_first_layer_is_noted(tmp_path):
    make_run(tmp_path / "a", {"freeze": [{"pattern": "features.*", "share": 1.0}]}, summary={"pretrained": "random"})
    assert any("began with random ones" in note for note in make([tmp_path]).notes)


def test_an_earlier_report_is_replaced_and_nothing_else(tmp_path):
    target = tmp_path / "report"
    folder.write(target, [tmp_path], lambda place: [(place / name).write_text("1") for name in ("a.txt", "b.txt")])
    (target / "mine.txt").write_text("mine")
    folder.write(target, [tmp_path], lambda place: (place / "a.txt").write_text("2"))
    assert {path.name for path in target.iterdir()} == {"a.txt", "mine.txt", "report.json"}
    assert (target / "a.txt").read_text() == "2"
    with pytest.raises(InputError, match=r"mine\.txt there was not written by"):
        folder.write(target, [tmp_path], lambda place: (place / "mine.txt").write_text("theirs"))
    assert (target / "mine.txt").read_text() == "mine"
    assert folder.choose([tmp_path], None) == target
    make_run(tmp_path / "x")
    assert folder.choose([tmp_path / "x", target], None) == tmp_path / "report-2"


@pytest.mark.skipif(sys.platform == "win32", reason="no forks")
@pytest.mark.parametrize("files_put", [None, 0, 1], ids=["while it is made", "before files are put", "after one file"])
def test_a_killed_report_does_not_block_the_next_one(tmp_path, files_put):
    target = folder.choose([tmp_path], None)

    def fill(place):
        for name in ("a.txt", "b.txt"):
            (place / name).write_text("1")

    if (child := os.fork()) == 0:
        replaced, replace = [], Path.replace

        def put(path, to):
            if path.suffix == ".txt":
                if len(replaced) == files_put:
                    os._exit(9)
                replaced.append(path)
            return replace(path, to)

        Path.replace = put
        folder.write(target, [tmp_path], (lambda _: os._exit(9)) if files_put is None else fill)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert folder.choose([tmp_path], None) == target
    folder.write(target, [tmp_path], fill)
    assert {path.name for path in target.iterdir()} == {"a.txt", "b.txt", "report.json"}


def test_a_report_being_made_keeps_others_out_of_its_folder(tmp_path):
    target = tmp_path / "report"

    def fill(place):
        assert folder.choose([tmp_path], None) == tmp_path / "report-2"
        (place / "a.txt").write_text("1")

    folder.write(target, [tmp_path], fill)
    assert {path.name for path in target.iterdir()} == {"a.txt", "report.json"}


def test_keys_that_a_resumed_run_may_change_never_vary():
    assert HOW < NOT_OF_THE_RESULT
