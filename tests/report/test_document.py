"""`report.html`: every section, made from run directories, and quick over many runs."""

import json
import re
import time

import pytest

from deepexp.report import document, figures
from deepexp.report.make import make

from .synthetic import make_run, make_sweep

NAN = float("nan")


@pytest.fixture
def sweep(tmp_path):
    """2 learning rates × 2 batch sizes × 3 seeds, of which one setting fails with one seed."""

    def rate(job):
        if (job["optim.lr"], job["batch_size"], job["seed"]) == (0.5, 10, 2):
            return NAN
        return 0.1 + 0.1 * job["optim.lr"] + job["batch_size"] / 1000 + job["seed"] / 100

    return make_sweep(tmp_path / "sweep", {"optim.lr": [0.1, 0.5], "batch_size": [10, 20], "seed": [0, 1, 2]}, rate)


def headings(html):
    return re.findall(r"<h2[^>]*>(.*?)</h2>", html)


def test_the_page_of_a_sweep_has_every_section(sweep, tmp_path):
    report = make([sweep], baseline="optim.lr=0.1, batch_size=10")
    out = tmp_path / "out"
    out.mkdir()
    written = document.write(report, out)
    html = (out / "report.html").read_text()
    assert headings(html) == [
        "Results", "Is one better than another?", "Steps to the baseline&#x27;s best", "Curves",
        "Error over the settings", "Confusions", "First-layer filters", "The same in all runs", "Provenance",
    ]  # fmt: skip
    names = {path.name for path in written}
    assert {path.name for path in out.iterdir()} == names
    for name in ("curves_epochs", "curves_seconds", "heat_map", "learning_rate", "confusion_1", "steps_to_baseline"):
        assert {f"{name}.png", f"{name}.svg"} <= names
    assert "curves_steps.png" not in names  # the same as against epochs
    assert html.count("<svg") == len([name for name in names if name.endswith(".svg")])
    assert "the loss is nan at step 20" in html
    assert "12 runs: 11 done, 1 failed" in html
    assert "no checkpoint" in html  # the synthetic runs have none, and the page says so


def test_the_page_says_by_which_error_runs_were_chosen(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path / "a" / str(seed), {"seed": seed}, error_rate=0.1 + seed / 10)
        make_run(tmp_path / "b" / str(seed), {"seed": seed}, error_rate=0.1 + seed / 10, val_error_rate=0.3 - seed / 10)
    chosen, why = figures.best_runs(make([tmp_path / "a"]).groups)
    assert [run.seed for run in chosen] == [0]
    assert "chosen on test figures" in why
    chosen, why = figures.best_runs(make([tmp_path / "b"]).groups)
    assert [run.seed for run in chosen] == [1]
    assert "validation error" in why
    assert "test figures" not in why


def test_runs_with_and_without_a_result_have_a_page(tmp_path):
    for status in ("done", "running"):
        make_run(tmp_path / status, status=status)
        out = tmp_path / f"{status}-report"
        out.mkdir()
        document.write(make([tmp_path / status]), out)
        html = (out / "report.html").read_text()
        assert "Curves" in headings(html)
        assert ("Confusions" in headings(html)) == (status == "done")


def test_the_page_of_two_runs_says_what_differs(tmp_path):
    make_run(tmp_path / "a", {"optim.lr": 0.1})
    make_run(tmp_path / "b", {"optim.lr": 0.2}, provenance={"host": "other"})
    report = make([tmp_path / "a", tmp_path / "b"], diff=True)
    html = document.page(report, figures.draw(report)).html()
    assert "What differs between a and b" in headings(html)
    assert "other" in html


def test_each_note_has_a_list_of_the_runs_it_counts(tmp_path):
    path = make_sweep(tmp_path / "s", {"optim.lr": [0.1, 9], "seed": [0, 1]},
                      lambda job: NAN if job["optim.lr"] == 9 else 0.1)  # fmt: skip
    ledger = path / "ledger.jsonl"
    first, *others = ledger.read_text().splitlines()
    waiting = json.loads(first) | {"job": "seed=2", "config_hash": "2" * 16, "state": "queued", "directory": None}
    ledger.write_text("\n".join([first, *others, json.dumps(waiting)]) + "\n")
    report = make([path])
    html = document.page(report, figures.draw(report)).html()
    lists = re.findall(r"<ul>.*?</ul>", html.partition("<h2")[0], re.DOTALL)
    assert [re.findall(r"<li>(.*?)</li>", found, re.DOTALL) for found in lists if "<li>" in found] == [
        [f"optim.lr=9,seed={seed}: failed: the loss is nan at step 20" for seed in (0, 1)],
        ["seed=2: it was not started"],
    ]
    assert "2 of 4 runs have no result:" in html and "1 job has no run:" in html


def test_foreign_texts_are_escaped(tmp_path):
    make_run(tmp_path / "a", {"init": "<img src=x onerror=alert(1)>"}, error_rate=0.2)
    make_run(tmp_path / "b", {"init": "$\\frac{1}{0}$"}, status="failed", reason="<script>alert(2)</script>")
    report = make([tmp_path])
    html = document.page(report, figures.draw(report)).html()
    assert "<img" not in html
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(2)" in html


@pytest.mark.parametrize("settings", [3, 12])
def test_a_matrix_is_shown_if_all_settings_are_compared(tmp_path, settings):
    rates = [0.1 * (k + 1) for k in range(settings)]
    make_sweep(tmp_path / "s", {"optim.lr": rates, "seed": range(4)}, lambda job: 0.2 + job["seed"] / 1000)
    report = make([tmp_path])
    names = {label for comparison in report.comparisons.made for label in comparison.labels}
    assert len(names) == settings
    html = document.page(report, figures.draw(report)).html()
    among_each_other = len(report.comparisons.made) == settings * (settings - 1) // 2
    assert ("Test error of the row minus" in html) == among_each_other == (settings == 3)
    assert "−0.00" not in html and (settings != 3 or "+0.00" in html)


@pytest.mark.slow
def test_five_hundred_runs_take_seconds(tmp_path):
    make_sweep(
        tmp_path / "sweep",
        {"optim.lr": [0.001 * 1.1**k for k in range(50)], "batch_size": [10, 100], "seed": range(5)},
        lambda job: 0.1 + job["optim.lr"] + job["seed"] / 100,
    )  # fmt: skip
    out = tmp_path / "out"
    out.mkdir()
    start = time.process_time()
    document.write(make([tmp_path / "sweep"]), out)
    assert time.process_time() - start < 15
    assert (out / "report.html").stat().st_size < 3e6
