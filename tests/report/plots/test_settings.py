"""Error over what varies: heat map, parallel coordinates, learning rate."""

import itertools
import warnings

import numpy as np
import pytest

from deepexp.pages import plotting
from deepexp.report import variation
from deepexp.report.plots import heat_map, learning_rate, parallel_coordinates
from deepexp.report.plots.plot import Missing, literal
from deepexp.report.runs import read

from ..synthetic import make_run, make_sweep

NAN = float("nan")


def groups_and_keys(path):
    runs = read([path]).runs
    return variation.groups(runs), variation.varying(runs)


def texts(plot):
    return [text.get_text() for text in plot.figure.axes[0].texts]


def test_a_heat_map_has_the_mean_of_each_cell(tmp_path):
    make_sweep(tmp_path / "s", {"optim.lr": [0.2, 0.1], "batch_size": [10, 20], "seed": [0, 1]},
               lambda job: job["optim.lr"] + job["batch_size"] / 100 + job["seed"] / 10)  # fmt: skip
    found, keys = groups_and_keys(tmp_path)
    cells = heat_map.tabulate(found, tuple(keys))
    assert (cells.rows, cells.columns) == ([0.1, 0.2], [10, 20])
    assert cells.mean == pytest.approx(np.array([[25, 35], [35, 45]]))
    assert cells.spread == pytest.approx(np.full((2, 2), 50**0.5))
    assert texts(heat_map.draw(found, keys)) == ["25.00\n±7.07", "35.00\n±7.07", "35.00\n±7.07", "45.00\n±7.07"]


@pytest.mark.parametrize("rows", [17, 18, 60])
def test_the_text_of_a_cell_fits_into_it(tmp_path, rows):
    make_sweep(tmp_path / "s", {"optim.lr": [k / 100 for k in range(rows)], "batch_size": [10, 20], "seed": [0, 1]},
               lambda job: 0.1 + job["seed"] / 10)  # fmt: skip
    plot = heat_map.draw(*groups_and_keys(tmp_path))
    plot.figure.draw_without_rendering()
    axis = plot.figure.axes[0]
    high = axis.get_window_extent().height / rows
    boxes = [text.get_window_extent() for text in axis.texts]
    assert len(boxes) == 2 * rows and max(box.height for box in boxes) < high
    assert max(box.width for box in boxes) < axis.get_window_extent().width / 2


def test_the_height_of_a_heat_map_is_bounded():
    assert heat_map._height(500) == heat_map._height(60) < 15
    assert heat_map._height(2) < heat_map._height(17) == heat_map._height(40) < heat_map._height(60)


def test_cells_not_run_are_hatched_and_failed_ones_crossed(tmp_path):
    for lr, size, status in ((0.1, 10, "done"), (0.1, 20, "done"), (0.2, 10, "failed")):
        make_run(tmp_path / f"{lr},{size}", {"optim.lr": lr, "batch_size": size}, status=status)
    plot = heat_map.draw(*groups_and_keys(tmp_path))
    assert texts(plot).count("×") == 1
    assert [patch.get_hatch() for patch in plot.figure.axes[0].patches] == ["", "////"]
    assert "not run" in plot.caption
    assert "without a result" in plot.caption


def test_cells_not_run_are_drawn_beside_errors_of_other_magnitudes(tmp_path):
    """Their colours are on a logarithmic scale, which has no place for what is not there."""
    for name, lr, size, rate in [("a", 1, 2, 0.01), ("b", 1, 3, 0.9), ("c", 2, 2, 0.5)]:
        make_run(tmp_path / name, {"optim.lr": lr, "batch_size": size}, error_rate=rate)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot = heat_map.draw(*groups_and_keys(tmp_path))
    assert "log scale" in plot.figure.axes[1].get_ylabel() and "Hatched: not run." in plot.caption


def test_the_caption_mentions_failed_runs_of_a_cell(tmp_path):
    make_sweep(tmp_path / "s", {"optim.lr": [0.2, 0.1], "batch_size": [10, 20], "seed": [0, 1]},
               lambda job: NAN if job == {"optim.lr": 0.1, "batch_size": 10, "seed": 1} else 0.1)  # fmt: skip
    assert "Runs without a result are left out" in heat_map.draw(*groups_and_keys(tmp_path)).caption


def test_a_heat_map_needs_two_keys(tmp_path):
    make_sweep(tmp_path / "s", {"optim.lr": [0.1, 0.2]}, lambda job: 0.1)
    assert isinstance(heat_map.draw(*groups_and_keys(tmp_path)), Missing)
    assert isinstance(parallel_coordinates.draw(*groups_and_keys(tmp_path)), Missing)


@pytest.mark.parametrize(("name", "points"), [
    ("optim.lr", [(0.1, 10), (0.2, 20), (0.3, 10), (0.4, 20)]),
    ("batch_size", [(0.1, 10), (0.2, 20), (0.1, 30)]),
])  # fmt: skip
def test_there_is_no_heat_map_of_points_drawn_at_random(tmp_path, name, points):
    for lr, size in points:
        make_run(tmp_path / f"{lr},{size}", {"optim.lr": lr, "batch_size": size})
    missing = heat_map.draw(*groups_and_keys(tmp_path))
    assert missing == Missing(f"each value of {name} was run with a single value of the other key")


@pytest.fixture
def three_keys(tmp_path):
    def rate(job):
        return NAN if (job["optim.lr"], job["batch_size"]) == (0.1, 10) else job["batch_size"] / 100

    make_sweep(tmp_path / "s", {"optim.lr": [0.001, 0.1], "batch_size": [10, 20], "init": ["default", "xavier"]}, rate)
    return groups_and_keys(tmp_path)


def test_parallel_coordinates_have_a_line_for_each_group(three_keys):
    found, keys = three_keys
    plot = parallel_coordinates.draw(found, keys)
    paths = plot.figure.axes[0].collections[0].get_segments()
    assert len(paths) == 8
    assert {len(path) for path in paths} == {4}
    assert [text.get_text() for text in plot.figure.axes[0].get_xticklabels()] == [*keys, "test error (%)"]
    assert "2 groups without a result" in plot.caption
    assert sum(path[-1, 1] > 1 for path in paths) == 2  # above the axis of the error


def test_a_scale_of_powers_of_ten_is_logarithmic():
    assert parallel_coordinates._scale([0.001, 0.01, 0.1]).places == pytest.approx([0, 0.5, 1])
    assert parallel_coordinates._scale([1, 2, 3]).places == pytest.approx([0, 0.5, 1])
    assert parallel_coordinates._scale(["a", "b", "a"]).places == [0, 1, 0]
    assert parallel_coordinates._scale([True, False]).places == [0, 1]
    assert parallel_coordinates._scale([7, 7]).places == [0, 0]


def test_the_learning_rate_plot_has_points_of_seeds_and_crosses_for_failures(tmp_path):
    make_sweep(tmp_path / "s", {"optim.lr": [0.001, 0.01, 10.0], "seed": [0, 1, 2]},
               lambda job: NAN if job["optim.lr"] > 1 else 0.2 + 0.1 * job["seed"])  # fmt: skip
    plot = learning_rate.draw(*groups_and_keys(tmp_path))
    axis = plot.figure.axes[0]
    assert axis.get_xscale() == "log"
    line, *points = axis.lines
    assert list(line.get_ydata()) == pytest.approx([30, 30])
    assert list(points[0].get_ydata()) == pytest.approx([20, 30, 40])
    crosses = [mark for mark in axis.lines if mark.get_marker() == "x"]
    assert [list(cross.get_xdata()) for cross in crosses] == [[10.0]]
    assert "3 of 9 runs failed" in plot.caption


def test_the_learning_rate_plot_has_a_series_for_each_other_value(tmp_path):
    make_sweep(tmp_path / "s", {"optim.lr": [0.01, 0.1], "batch_size": [10, 20]}, lambda job: 0.2)
    plot = learning_rate.draw(*groups_and_keys(tmp_path))
    assert [text.get_text() for text in plot.figure.legends[0].get_texts()] == ["batch_size=10", "batch_size=20"]


def test_a_long_legend_makes_the_picture_higher_and_not_the_axes_lower(tmp_path):
    grid = {"val_fraction": [0.1234567, 0.2345678], "label_smoothing": [0.0123456, 0.0234567]}
    grid |= {"clip_grad_norm": [1.2345678, 2.3456789]}
    for index, values in enumerate(itertools.product(*grid.values())):
        others = dict(zip(grid, values, strict=True)) | {"max_minutes": 1234567.5 + index % 2}
        make_run(tmp_path / str(index), {"optim.lr": 0.01 * (index + 1), **others})
    figure = learning_rate.draw(*groups_and_keys(tmp_path)).figure
    figure.draw_without_rendering()
    axes, legend = figure.axes[0].get_window_extent(), figure.legends[0].get_window_extent()
    assert legend.height > 2 * figure.dpi and 0 <= legend.y0 < legend.y1 < axes.y0
    assert axes.height > 2 * figure.dpi


def test_learning_rates_without_a_result_do_not_affect_axis_and_legend(tmp_path):
    make_sweep(tmp_path / "s", {"optim.lr": [0.07, 0.16], "batch_size": [10, 30]}, lambda job: 0.2)
    make_sweep(tmp_path / "t", {"optim.lr": [0.0001], "batch_size": [20]}, lambda job: 0.2, status="paused")
    plot = learning_rate.draw(*groups_and_keys(tmp_path))
    assert plot.figure.axes[0].get_xscale() == "linear", "0.1 alone would be written at a logarithmic one"
    assert [text.get_text() for text in plot.figure.legends[0].get_texts()] == ["batch_size=10", "batch_size=30"]


def test_without_varying_learning_rates_there_is_no_plot(tmp_path):
    make_sweep(tmp_path / "s", {"optim": ["sgd", "adam"]}, lambda job: 0.2)
    assert "does not vary" in learning_rate.draw(*groups_and_keys(tmp_path)).reason


def test_a_label_with_bytes_that_are_not_utf_8_can_be_drawn():
    figure, axes = plotting.figure()
    axes[0, 0].set_title(literal("data.root=b\udcff $x"))
    assert plotting.as_png(figure)
