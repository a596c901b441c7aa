"""The plot of a search."""

import json

import numpy as np
import pytest

from deepexp.report import variation
from deepexp.report.plots import search
from deepexp.report.plots.plot import Missing
from deepexp.report.runs import read
from deepexp.report.searched import search_of

from ..synthetic import make_sweep

NAN = float("nan")
# In the order in which they were tried, which is not that of the learning rates.
RATES = {0.3: 0.5, 0.1: 0.2, 0.4: NAN, 0.2: 0.3, 0.05: 0.1}


def make_search(path, **content):
    sweep = make_sweep(path, {"optim.lr": list(RATES), "seed": [0, 1]},
                       lambda job: RATES[job["optim.lr"]] + 0.02 * job["seed"])  # fmt: skip
    saved = json.loads((sweep / "sweep.json").read_text())
    found = {"method": "tpe", "optuna": "5.0.0", "objective": "test_error_rate"} | content
    (sweep / "sweep.json").write_text(json.dumps({**saved, "search": found}))
    return sweep


def test_settings_are_points_and_the_line_is_the_best_so_far(tmp_path):
    make_search(tmp_path / "s")
    runs = read([tmp_path]).runs
    found = search_of(runs)
    assert found is not None
    plot = search.draw(variation.groups(runs), found)
    points, least, failed = plot.figure.axes[0].lines
    assert list(points.get_xdata()) == [1, 2, 4, 5]
    assert points.get_ydata() == pytest.approx([51, 21, 31, 11])
    assert np.array(least.get_ydata()) == pytest.approx([51, 21, 21, 11, 11])
    assert list(failed.get_xdata()) == [3] and "1 setting without a result" in plot.caption
    assert "test error of each setting" in plot.caption and plot.figure.axes[0].get_ylabel() == "test error (%)"


def test_a_failed_seed_counts_as_all_wrong(tmp_path):
    sweep = make_search(tmp_path / "s")
    status = next(sweep.glob("*lr=0.05*seed=1*")) / "status.json"
    status.write_text(json.dumps({**json.loads(status.read_text()), "status": "failed", "reason": "diverged"}))
    runs = read([tmp_path]).runs
    found = search_of(runs)
    assert found is not None
    points, least, _ = search.draw(variation.groups(runs), found).figure.axes[0].lines
    assert points.get_ydata() == pytest.approx([51, 21, 31, 55])
    assert least.get_ydata()[-1] == pytest.approx(21)


@pytest.mark.parametrize(("which", "error"), [("*lr=0.05*", 95), ("*lr=0.05*seed=0*", 53.5)])
def test_a_paused_setting_is_drawn_with_its_last_errors(tmp_path, which, error):
    sweep = make_search(tmp_path / "s")
    for run in sweep.glob(which):
        status = run / "status.json"
        status.write_text(json.dumps({**json.loads(status.read_text()), "status": "paused", "reason": "paused"}))
        (run / "summary.json").unlink()
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        lines = [{**lines[-1], "test_error_rate": 0.95}, {**lines[-1], "test_error_rate": None}]
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    runs = read([tmp_path]).runs
    found = search_of(runs)
    assert found is not None
    plot = search.draw(variation.groups(runs), found)
    points, least, failed, paused = plot.figure.axes[0].lines
    assert list(points.get_xdata()) == [1, 2, 4] and list(failed.get_xdata()) == [3]
    assert (list(paused.get_xdata()), list(paused.get_ydata())) == ([5], [pytest.approx(error)])
    assert least.get_ydata()[-1] == pytest.approx(21) and paused.get_fillstyle() == "none"
    assert plot.figure.axes[0].get_ylim()[1] > error
    assert "Empty: 1 setting paused, since others were better" in plot.caption


def test_without_any_result_there_is_no_plot(tmp_path):
    make_search(tmp_path / "s", objective="val_error_rate")
    runs = read([tmp_path]).runs
    found = search_of(runs)
    assert found is not None
    assert search.draw(variation.groups(runs), found) == Missing("no setting of the search has a result")


@pytest.mark.parametrize("content", ["[]", "{", '{"search": null}', '{"search": {"method": "tpe", "objective": "x"}}'])
def test_other_or_damaged_sweeps_are_no_search(tmp_path, content):
    sweep = make_search(tmp_path / "s")
    runs = read([tmp_path]).runs
    (sweep / "sweep.json").write_text(content)
    assert search_of(runs) is None


def test_two_sweeps_are_no_search(tmp_path):
    make_search(tmp_path / "s")
    make_search(tmp_path / "t")
    assert search_of(read([tmp_path]).runs) is None
