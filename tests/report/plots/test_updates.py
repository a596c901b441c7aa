"""Losses against updates are means over the last of them, and end where one is no number."""

import math

import pytest

from deepexp.report import variation
from deepexp.report.plots import updates
from deepexp.report.plots.plot import Missing
from deepexp.report.runs import read
from deepexp.run import event_format

from ..synthetic import make_run, make_sweep

NAN = float("nan")


def groups(path):
    return variation.groups(read([path]).runs)


def curve_of(plot, index=0):
    line = plot.figure.axes[0].lines[index]
    return list(line.get_xdata()), list(line.get_ydata())


def test_each_point_is_the_mean_over_the_last_updates(tmp_path):
    losses = [3 - 0.01 * step + 0.5 * (step % 3) for step in range(1, 101)]
    make_run(tmp_path / "a", {"epochs": 1}, update_losses=losses)
    plot = updates.draw(groups(tmp_path))
    steps, drawn = curve_of(plot)
    assert steps == list(range(1, 101))
    expected = [sum(losses[max(0, end - 5) : end]) / min(5, end) for end in range(1, 101)]
    assert drawn == pytest.approx(expected, rel=1e-5)
    assert "the mean loss of the last 5 batches" in plot.caption
    assert not plot.figure.axes[0].collections


def test_a_line_is_the_mean_over_seeds_to_the_end_of_the_shortest_and_its_band_reaches_the_extremes(tmp_path):
    for seed, (loss, number) in enumerate([(1.0, 12), (2.0, 10), (6.0, 11)]):
        make_run(tmp_path / str(seed), {"seed": seed, "epochs": 1}, update_losses=[loss] * number)
    plot = updates.draw(groups(tmp_path))
    assert curve_of(plot) == (list(range(1, 11)), pytest.approx([3.0] * 10))
    (band,) = plot.figure.axes[0].collections
    assert (band.get_datalim(plot.figure.axes[0].transData).ymin, band.get_paths()[0].vertices[:, 1].max()) == (
        1.0,
        6.0,
    )
    assert "means over 3 runs; the band reaches" in plot.caption


def test_a_curve_ends_where_the_loss_is_no_number_and_leaves_room_for_the_others(tmp_path):
    make_run(tmp_path / "a", {"optim.lr": 0.1}, update_losses=[2.0, 1.0, 1.0, 1.0, 1.0])
    make_run(tmp_path / "b", {"optim.lr": 9.0}, status="failed", update_losses=[2.0, 1e9, 1e30, math.inf, NAN])
    plot = updates.draw(groups(tmp_path))
    assert len(curve_of(plot, 0)[0]) == 5
    assert curve_of(plot, 1)[0] == [1, 2, 3]
    assert plot.figure.axes[0].get_ylim()[1] < 10
    assert "Losses above 2, up to 1e+30, lie beyond the upper edge." in plot.caption


def test_curves_of_very_different_lengths_have_a_logarithmic_axis(tmp_path):
    make_run(tmp_path / "a", {"batch_size": 1}, update_losses=[1.0] * 1000)
    make_run(tmp_path / "b", {"batch_size": 50}, update_losses=[1.0] * 20)
    plot = updates.draw(groups(tmp_path))
    assert plot.figure.axes[0].get_xscale() == "log"
    assert "mean loss of the last 1 to 50 batches" in plot.caption
    assert len(curve_of(plot, 0)[0]) == 500  # thinned


def test_runs_without_event_files_are_left_out_or_the_reason_why_there_is_no_plot(tmp_path):
    make_run(tmp_path / "a", {"optim.lr": 0.1})
    assert updates.draw(groups(tmp_path)) == Missing("no run has the losses of its updates in its event file")
    make_run(tmp_path / "b", {"optim.lr": 0.2}, update_losses=[1.0])
    assert (
        "Left out: 1 group without a finite loss of an update that all of its runs have."
        in updates.draw(groups(tmp_path)).caption
    )


def test_updates_that_one_run_lacks_are_left_out_of_all(tmp_path):
    make_run(tmp_path / "a", {"seed": 0}, update_losses=[1.0, 2.0, 3.0])
    run = make_run(tmp_path / "b", {"seed": 1}, update_losses=[1.0])
    file = event_format.present(run)
    file.write_bytes(file.read_bytes() + event_format.record(event_format.scalars({"train/loss": 5.0}, 3, 0.0)))
    assert curve_of(updates.draw(groups(tmp_path))) == ([1, 3], [1.0, 4.0])


def test_a_run_of_one_update_is_a_mark(tmp_path):
    make_run(tmp_path / "a", {"batch_size": 200}, update_losses=[2.0])
    make_run(tmp_path / "b", {"batch_size": 100}, update_losses=[2.0, 1.0])
    axes = updates.draw(groups(tmp_path)).figure.axes[0]
    assert [line.get_marker() not in ("", "None") for line in axes.lines] == [True, False]


def test_an_event_file_that_cannot_be_read_is_named_in_place_of_the_plot(tmp_path, monkeypatch):
    def no_access(path, tag):
        raise PermissionError(13, "Permission denied")

    run = make_run(tmp_path / "a", {}, update_losses=[2.0])
    monkeypatch.setattr(event_format, "curve", no_access)
    path = event_format.present(run)
    assert updates.draw(groups(tmp_path)) == Missing(f"{path} cannot be read (Permission denied)")


def test_so_many_runs_are_not_read(tmp_path, monkeypatch):
    make_sweep(tmp_path / "s", {"seed": [1, 2, 3]}, lambda job: 0.1, update_losses=[1.0, 2.0])
    monkeypatch.setattr(updates, "_MOST_RUNS", 2)
    found = updates.draw(groups(tmp_path))
    assert found == Missing("losses against updates are drawn of 2 runs or fewer, and these are 3")


@pytest.mark.parametrize(("epochs", "expected"), [(5, True), (6, False)])
def test_runs_of_few_epochs_are_worth_the_plot(tmp_path, epochs, expected):
    make_run(tmp_path / "a", {"epochs": epochs})
    assert updates.are_worth_it(groups(tmp_path)) is expected
