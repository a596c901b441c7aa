"""Curves show the figures of the runs: means, bands, and what is left out."""

import itertools
import json

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from deepexp.pages import plotting
from deepexp.paths import CONF_DIR
from deepexp.report import variation
from deepexp.report.plots import curves
from deepexp.report.plots.plot import Missing, Plot, error_axis, loss_axis, shortened_labels, value_axis
from deepexp.report.runs import read

from ..synthetic import make_run, make_sweep

NAN = float("nan")


def groups(path):
    return variation.groups(read([path]).runs)


def lines(plot, row):
    """The lines with points of one of the two axes."""
    return [line for line in plot.figure.axes[row].lines if len(line.get_xdata())]


@pytest.fixture
def seeds(tmp_path):
    """Three runs that differ in the seed, with known error rates."""
    for seed, rates in enumerate(([0.5, 0.2], [0.6, 0.1], [0.7, 0.3])):
        make_run(tmp_path / str(seed), {"seed": seed, "epochs": 2}, rates=rates, seconds_per_epoch=1 + seed)
    return groups(tmp_path)


def test_a_line_is_the_mean_over_seeds_and_its_band_reaches_the_extremes(seeds):
    found = curves.curve(seeds[0].runs, "test_error_rate", "epochs", 100)
    assert found.x == [1, 2]
    assert found.mean == pytest.approx([60, 20])
    assert (found.low, found.high) == (pytest.approx([50, 10]), pytest.approx([70, 30]))


def test_seconds_on_the_x_axis_are_means_over_seeds(seeds):
    found = curves.curve(seeds[0].runs, "test_error_rate", "seconds")
    assert found.x == pytest.approx([1.1 * 2, 1.1 * 2 * 2])


def test_test_is_bold_training_thin_and_they_share_a_colour(seeds):
    plot = curves.draw(seeds)
    train, test = lines(plot, 1)
    assert test.get_linewidth() > 2 * train.get_linewidth()
    assert test.get_color() == train.get_color()
    assert list(test.get_ydata()) == pytest.approx([60, 20])
    assert list(train.get_ydata()) == pytest.approx([48, 16])
    assert len(plot.figure.axes[1].collections) == 1  # the band
    assert "3 runs" in plot.caption
    assert "lowest to the highest" in plot.caption


def test_groups_differ_in_colour_and_marker(tmp_path):
    make_sweep(tmp_path / "s", {"optim.lr": [0.1, 0.2, 0.3]}, lambda job: job["optim.lr"])
    found = [line for line in lines(curves.draw(groups(tmp_path)), 1) if line.get_linewidth() > 2]
    assert len({line.get_color() for line in found}) == 3
    assert len({line.get_marker() for line in found}) == 3


def test_two_keys_are_shown_by_colour_and_by_marker(tmp_path):
    make_sweep(tmp_path / "s", {"optim.lr": [0.1, 0.2], "batch_size": [10, 20]}, lambda job: 0.2)
    found = [line for line in lines(curves.draw(groups(tmp_path)), 1) if line.get_linewidth() > 2]
    assert [line.get_color() for line in found[:2]] == [found[0].get_color()] * 2
    assert found[0].get_color() != found[2].get_color()
    assert found[0].get_marker() == found[2].get_marker() != found[1].get_marker()


@pytest.mark.parametrize(("last", "scale"), [(0.5, "linear"), (0.01, "log")])
def test_an_axis_begins_at_zero_or_is_logarithmic_and_says_so(tmp_path, last, scale):
    make_run(tmp_path / "a", {"epochs": 3}, rates=[0.9, 0.6, last])
    axis = curves.draw(groups(tmp_path)).figure.axes[1]
    assert axis.get_yscale() == scale
    assert ("log" in axis.get_ylabel()) == (scale == "log")
    assert scale == "log" or axis.get_ylim()[0] == 0


def test_many_groups_of_a_numeric_key_have_a_colour_bar(tmp_path):
    make_sweep(tmp_path / "s", {"optim.lr": [0.001 * 2**k for k in range(12)]}, lambda job: 0.1 + job["optim.lr"] / 10)
    plot = curves.draw(groups(tmp_path))
    assert len(plot.figure.axes) == 3
    assert plot.figure.axes[2].get_ylabel() == "optim.lr"
    assert not plot.figure.legends
    assert len({tuple(line.get_color()) for line in lines(plot, 1)}) == 12


def test_of_many_groups_only_the_best_and_the_worst_are_named(tmp_path):
    make_sweep(tmp_path / "s", {"init": [f"i{k}" for k in range(12)]}, lambda job: 0.05 * (1 + int(job["init"][1:])))
    plot = curves.draw(groups(tmp_path))
    named = [text.get_text() for text in plot.figure.legends[0].get_texts()]
    assert named == ["init=i0", "init=i1", "init=i2", "init=i9", "init=i10", "init=i11"]
    assert "rest grey" in plot.caption


def test_curves_have_the_markers_of_the_legend(tmp_path):
    names = [f"i{k}" for k in range(12)]
    make_sweep(tmp_path / "s", {"init": names}, lambda job: 0.05 * (1 + int(job["init"][1:])))
    make_run(tmp_path / "t", {"epochs": 40}, rates=[0.9 / k for k in range(1, 41)])
    for where in ("s", "t"):
        figure = curves.draw(groups(tmp_path / where)).figure
        shown = {(line.get_color(), line.get_marker()) for line in figure.axes[1].lines}
        named = [line for line in figure.legends[0].get_lines() if line.get_marker() not in ("", "None")]
        assert named and all((line.get_color(), line.get_marker()) in shown for line in named)
    (test,) = (line for line in figure.axes[1].lines if line.get_marker() == "o")
    assert len(test.get_xdata()[:: test.get_markevery()]) <= 15


def test_a_legend_of_long_names_stays_within_the_picture(tmp_path):
    grid = {"val_fraction": [0.1234567, 0.2345678], "label_smoothing": [0.0123456, 0.0234567]}
    grid |= {"clip_grad_norm": [1.2345678, 2.3456789], "max_minutes": [1234567.5, 2345678.5]}
    for index, values in enumerate(itertools.product(*grid.values())):
        make_run(tmp_path / str(index), dict(zip(grid, values, strict=True)), rates=[0.9] * 3)
    figure = curves.draw(groups(tmp_path)).figure
    figure.savefig(tmp_path / "curves.png")
    box = figure.legends[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    assert any("\n" in text.get_text() for text in figure.legends[0].get_texts())


def test_a_curve_of_one_evaluation_is_a_mark_within_the_picture(tmp_path):
    make_sweep(tmp_path / "s", {"epochs": [1], "optim.lr": [0.1, 0.2], "seed": [0, 1]}, lambda job: job["optim.lr"])
    plot = curves.draw(groups(tmp_path))
    for axis in plot.figure.axes[:2]:
        assert axis.get_xlim() == (0, 2)
        assert len(axis.lines) == 4 and all(line.get_marker() in ("o", "s") for line in axis.lines)
    assert "one evaluation is a mark" in plot.caption
    make_sweep(tmp_path / "t", {"epochs": [3], "seed": [0, 1]}, lambda job: 0.1)
    plot = curves.draw(groups(tmp_path / "t"))
    assert plot.figure.axes[0].get_xlim()[1] > 2.9 and "is a mark" not in plot.caption


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([{}, {"seed": 1}], None),
        ([{"label_smoothing": 0.1}], "The training loss is of smoothed labels; no test loss is."),
        ([{"class_weights": [1.0, 2.0]}], "The training loss is of weighted classes; no test loss is."),
        ([{"augment._target_": "deepexp.data.augment.CropFlip"}], None),
        (
            [{}, {"augment._target_": "deepexp.data.augment.CutMix"}],
            "In some of the runs the training loss is of mixed pictures; no test loss is.",
        ),
        (
            [{"label_smoothing": 0.1}, {"augment._target_": "deepexp.data.augment.Mixup"}],
            "The training loss is of mixed pictures or smoothed labels; no test loss is.",
        ),
        (
            [{"label_smoothing": 0.1, "augment._target_": "deepexp.data.augment.Mixup"}],
            "The training loss is of mixed pictures and smoothed labels; no test loss is.",
        ),
    ],
)
def test_the_caption_says_where_training_and_test_loss_differ(tmp_path, settings, expected):
    for index, words in enumerate(settings):
        make_run(tmp_path / str(index), words)
    caption = curves.draw(groups(tmp_path)).caption
    assert expected in caption if expected else "training loss" not in caption


def test_the_caption_knows_all_augmentations_that_mix():
    """Those whose `apply` gives a `Mix`."""
    mixing = set()
    images = torch.zeros(4, 3, 8, 8)
    for path in (CONF_DIR / "augment").glob("*.yaml"):
        augment = instantiate(OmegaConf.load(path))
        if augment.apply(images, augment.draw(4, (3, 8, 8), torch.Generator()))[1] is not None:
            mixing.add(OmegaConf.load(path)["_target_"])
    assert mixing == curves._MIXING


def test_the_caption_counts_runs_without_a_result(tmp_path):
    make_sweep(tmp_path / "s", {"optim.lr": [0.1, 9.0], "seed": [0, 1]},
               lambda job: NAN if job["optim.lr"] > 1 or job["seed"] else 0.2)  # fmt: skip
    caption = curves.draw(groups(tmp_path)).caption
    assert "Left out of the means: 1 run without a result." in caption
    assert "none of which has a result: optim.lr=9.0" in caption


def test_curves_over_steps_are_left_out_if_epochs_have_equal_steps(seeds):
    assert curves.same_steps_each_epoch(seeds)


def test_without_an_epoch_there_is_no_plot(tmp_path):
    path = make_run(tmp_path / "a")
    (path / "metrics.jsonl").write_text("")
    found = curves.draw(groups(tmp_path))
    assert isinstance(found, Missing)
    assert not isinstance(found, Plot)


def test_shortened_labels_stay_different():
    labels = [f"batch_norm=true, optim.lr={lr}, model.activation=relu" for lr in (0.1, 0.5, 3.0)]
    assert shortened_labels(labels)[1] == "batch_norm=true, lr=0.5, activation=relu"
    assert len(set(shortened_labels(labels, 20))) == 3, "too long for it, but not the same"
    assert shortened_labels(["a.x=1, b.x=2", "a.x=2, b.x=1"], 10)[0].startswith("a.x="), "which x is to be seen"
    assert shortened_labels(["optim.lr=0.1"]) == ["optim.lr=0.1"]
    assert shortened_labels(["k" * 60, "l" * 60], 21) == ["k" * 10 + "…" + "k" * 10, "l" * 10 + "…" + "l" * 10]


def test_numbers_of_a_log_axis_have_one_format():
    _, axes = plotting.figure(4.0, 3.0)
    axis = axes[0, 0]
    value_axis(axis, [0.5, 20_000.0], "loss")
    ticks = [axis.yaxis.get_major_formatter()(x) for x in (0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0, 1e6)]
    assert ticks == ["0.1", "1", "10", "100", "1,000", "10,000", "1e6"]


@pytest.mark.parametrize(("losses", "highest"), [
    ([0.0, 0.0, 0.0, 0.5], None), ([-1e5, -1.0, -1.0, -2.0], None), ([1.0, 2.0, NAN], None), ([NAN], None),
    ([1.0, 2.0, 1e9], 2.0), ([-0.5, 1.0, 2.0, 1e32, NAN], 2.0),
])  # fmt: skip
def test_losses_are_cut_only_where_the_usual_ones_are_positive(losses, highest):
    _, axes = plotting.figure(4, 4)
    axes[0, 0].plot(losses)
    sentence = loss_axis(axes[0, 0], losses, "loss")
    assert sentence.startswith("" if highest is None else f"Losses above {highest:g}, up to 1e+")
    assert bool(sentence) is (highest is not None)
    if highest is not None:
        low, high = axes[0, 0].get_ylim()
        assert low == pytest.approx(min(0.0, 1.25 * losses[0])) and highest < high < 3


@pytest.mark.parametrize(("errors", "scale"), [
    ([90.0, 5.0, 0.0], "linear"), ([90.0, 1.0, 0.0], "log"), ([90.0, 1.0, NAN, 0.0], "log"), ([0.0, 0.0], "linear"),
    ([90.0, 1.0], "log"),
])  # fmt: skip
def test_errors_of_0_do_not_press_the_others_together(errors, scale):
    _, axes = plotting.figure(4, 4)
    axes[0, 0].plot(errors)
    sentence = error_axis(axes[0, 0], errors, "error (%)")
    low, high = axes[0, 0].get_ylim()
    assert axes[0, 0].get_yscale() == scale
    assert bool(sentence) is (scale == "log" and 0.0 in errors)
    assert (low, high) == (pytest.approx(0.8), pytest.approx(112.5)) if sentence else low <= min(errors)


@pytest.mark.parametrize(("lowest", "scale"), [(1.5, "linear"), (0.001, "log")])
def test_losses_of_a_run_that_nearly_diverged_leave_room_for_the_others(tmp_path, lowest, scale):
    for lr, losses in ((0.1, [2.0, lowest]), (0.2, [2.1, 1.8]), (0.3, [2.2, 1.9]), (9.0, [1e32, 2.0])):
        path = make_run(tmp_path / str(lr), {"optim.lr": lr, "epochs": 2}, rates=[0.5, 0.4]) / "metrics.jsonl"
        evaluations = map(json.loads, path.read_text().splitlines())
        pairs = zip(evaluations, losses, strict=True)
        changed = [line | {"train_loss": loss, "test_loss": loss} for line, loss in pairs]
        path.write_text("".join(f"{json.dumps(line)}\n" for line in changed))
    plot = curves.draw(groups(tmp_path))
    axis = plot.figure.axes[0]
    low, high = axis.get_ylim()
    assert low < lowest and 2.2 < high < 4 and axis.get_yscale() == scale
    assert "Losses above 2.2, up to 1e+32, lie beyond the upper edge." in plot.caption
    assert max(plot.figure.axes[1].get_ylim()) < 100
