"""What `baseline=` names: one group, or one at each level of the other keys."""

import importlib.util
from pathlib import Path

import pytest

from deepexp.errors import InputError
from deepexp.report import document, figures, text
from deepexp.report.make import make

spec = importlib.util.spec_from_file_location("synthetic", Path(__file__).with_name("synthetic.py"))
synthetic = importlib.util.module_from_spec(spec)
spec.loader.exec_module(synthetic)
make_run, make_sweep = synthetic.make_run, synthetic.make_sweep

GRID = {"batch_norm": [False, True], "optim.lr": [0.1, 0.3], "batch_size": [10, 20]}


def compared(report):
    return {comparison.labels for comparison in report.comparisons.made}


def test_a_key_is_the_baseline_at_each_level_of_the_others(tmp_path):
    make_sweep(tmp_path / "s", GRID, lambda job: 0.05 + job["optim.lr"] * (1 - job["batch_norm"] / 2))
    report = make([tmp_path], baseline="batch_norm=false")
    levels = [f"optim.lr={lr}, batch_size={size}" for lr in (0.1, 0.3) for size in (10, 20)]
    assert compared(report) == {(f"batch_norm=false, {level}", f"batch_norm=true, {level}") for level in levels}
    note = "Each group is compared with batch_norm=false of the same optim.lr and batch_size."
    assert report.comparisons.note == note and note in list(text.lines(report)) and not report.comparisons.not_made
    assert all(sentence.endswith("(Holm, 4 comparisons)") for sentence in report.comparisons.sentences()[:4])


def test_several_keys_leave_fewer_levels(tmp_path):
    make_sweep(tmp_path / "s", GRID, lambda job: job["optim.lr"])
    report = make([tmp_path], baseline="optim.lr=0.3, batch_norm=true")
    levels = [(bn, lr) for bn in ("false", "true") for lr in (0.1, 0.3) if (bn, lr) != ("true", 0.3)]
    assert compared(report) == {
        (f"batch_norm=true, optim.lr=0.3, batch_size={size}", f"batch_norm={bn}, optim.lr={lr}, batch_size={size}")
        for bn, lr in levels
        for size in (10, 20)
    }
    assert (
        report.comparisons.note == "Each group is compared with optim.lr=0.3, batch_norm=true of the same batch_size."
    )


def test_a_list_is_taken_whole(tmp_path):
    weights = [[1, 1, 1], [1, 2, 1], [2, 1, 1]]
    make_sweep(tmp_path / "s", {"class_weights": weights, "optim.lr": [0.1, 0.3]}, lambda job: job["optim.lr"])
    levels = [f"optim.lr={lr}" for lr in (0.1, 0.3)]
    for wanted in ("class_weights=[1,1,1]", "class_weights=[1, 1, 1]"):
        assert compared(make([tmp_path], baseline=wanted)) == {
            (f"class_weights=[1, 1, 1], {level}", f"class_weights={other}, {level}")
            for level in levels
            for other in weights[1:]
        }
    report = make([tmp_path], baseline="optim.lr=0.3,class_weights=[1,2,1]")
    assert {first for first, _ in compared(report)} == {"class_weights=[1, 2, 1], optim.lr=0.3"}
    with pytest.raises(InputError, match=r"baseline: 'class_weights=\[1,1' is no group"):
        make([tmp_path], baseline="class_weights=[1,1")


def test_steps_are_counted_at_each_level(tmp_path):
    rates = {(False, 0.1): [0.5, 0.4], (True, 0.1): [0.4, 0.3], (False, 0.3): [0.2, 0.1], (True, 0.3): [0.3, 0.2]}
    for (norm, lr), found in rates.items():
        make_run(tmp_path / f"{norm},{lr}", {"batch_norm": norm, "optim.lr": lr}, rates=found)
    report = make([tmp_path], baseline="batch_norm=false")
    figures_of = {steps.baseline: {row.label: row.epochs for row in steps.rows} for steps in report.steps_to}
    assert figures_of == {
        f"batch_norm=false, optim.lr={lr}": {
            f"batch_norm=false, optim.lr={lr}": 2,
            f"batch_norm=true, optim.lr={lr}": reached,
        }
        for lr, reached in [(0.1, 1), (0.3, None)]
    }
    drawn = figures.draw(report)
    assert [plot.name for plot in drawn.steps_to] == ["steps_to_baseline", "steps_to_baseline_2"]
    html, markdown = document.page(report, drawn).html(), text.markdown(report).replace("\\", "")
    assert html.count("Steps to the baseline&#x27;s best</h2>") == markdown.count("## Steps to the baseline's") == 1
    for shown in (html, markdown, " ".join(text.lines(report))):
        starts = [f"Until the best test accuracy of batch_norm=false, optim.lr={lr}" for lr in (0.1, 0.3)]
        assert [shown.count(start) for start in starts] == [1, 1]


def test_groups_at_levels_without_a_baseline_or_its_result_are_named(tmp_path):
    for norm, lr in [(False, 0.1), (True, 0.1), (False, 0.3), (True, 0.3), (True, 0.5), (True, 0.7)]:
        status = "failed" if (norm, lr) == (False, 0.3) else "done"
        make_run(tmp_path / f"{norm},{lr}", {"batch_norm": norm, "optim.lr": lr}, status=status)
    report = make([tmp_path], baseline="batch_norm=false")
    assert compared(report) == {("batch_norm=false, optim.lr=0.1", "batch_norm=true, optim.lr=0.1")}
    assert report.comparisons.not_made == [
        "Nothing is compared with the baseline, batch_norm=false, optim.lr=0.3: it has no result.",
        "Not compared: batch_norm=true, optim.lr=0.5; batch_norm=true, optim.lr=0.7: there is no batch_norm=false of "
        "the same optim.lr",
    ]


def test_equal_numbers_are_one_level(tmp_path):
    make_run(tmp_path / "a", {"batch_norm": False, "optim.lr": 1.0})
    make_run(tmp_path / "b", {"batch_norm": True, "optim.lr": 1})
    make_run(tmp_path / "c", {"batch_norm": False, "optim.lr": 0.5})
    assert len(make([tmp_path], baseline="batch_norm=false").comparisons.made) == 1
