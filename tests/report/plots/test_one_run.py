"""The plots of a single run (confusions and first filters), and that of steps to a baseline's best."""

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix

from deepexp import load_run
from deepexp.report import figures, variation
from deepexp.report.comparison import Predictions
from deepexp.report.make import make
from deepexp.report.plots import confusion, filters, steps_to
from deepexp.report.plots.plot import Missing, Plot
from deepexp.report.runs import read
from deepexp.report.steps_to import steps_to as find_steps_to
from deepexp.run.pictures import first_filters

from ..synthetic import make_run


@pytest.fixture
def made(tmp_path):
    return read([make_run(tmp_path / "a", error_rate=0.2, samples=300)]).runs[0]


def test_a_confusion_matrix_is_that_of_scikit_learn(made):
    predicted, target = made.predictions()
    assert np.array_equal(confusion.matrix(made), confusion_matrix(target, predicted))


def test_the_diagonal_is_muted_and_every_error_has_its_number(made):
    plot = confusion.draw(made, "confusion_1")
    axis = plot.figure.axes[0]
    assert np.diag(axis.images[0].get_array().mask).all()
    assert sum(int(text.get_text()) for text in axis.texts) == 300
    assert "60 of 300" in plot.caption


def test_the_most_frequent_confusions_come_first_and_name_their_classes():
    cells = np.array([[5, 2, 0], [7, 1, 0], [0, 0, 3]])
    found = confusion.frequent(cells, ("cat", "dog", "fox"))
    assert [(one.true, one.predicted, one.samples, one.of) for one in found] == [
        ("dog", "cat", 7, 8), ("cat", "dog", 2, 7),
    ]  # fmt: skip


def test_a_hundred_classes_are_a_picture_without_numbers(tmp_path):
    run = read([make_run(tmp_path / "a", error_rate=0.5, samples=1000, classes=100)]).runs[0]
    axis = confusion.draw(run, "confusion_1").figure.axes[0]
    assert axis.images[0].get_array().shape == (100, 100)
    assert not axis.texts


def test_missing_and_damaged_files_are_named(tmp_path):
    path = make_run(tmp_path / "a", predictions=False)
    assert "no predictions.npz" in confusion.draw(read([path]).runs[0], "c").reason
    np.savez(path / "predictions.npz", predicted=np.array([-1, 2]), target=np.array([1, 2]))
    assert "damaged" in confusion.draw(read([path]).runs[0], "c").reason
    assert "no checkpoint" in filters.draw(read([path]).runs[0]).reason


def test_filters_are_those_of_the_checkpoint_on_one_symmetric_range(run):
    directory = run(["data.subset=100", "epochs=1"]).directory
    plot = filters.draw(read([directory]).runs[0])
    assert isinstance(plot, Plot)
    shown = plot.figure.axes[0].images[0]
    weight = first_filters(load_run(directory).model).detach().numpy()  # (32, 1, 5, 5)
    assert shown.get_clim() == (0, 1)
    first = shown.get_array()[:5, :5]
    assert np.allclose(first, 0.5 + weight[0, 0] / (2 * np.abs(weight).max()), atol=1e-6)
    assert "32 filters of 5×5" in plot.caption


def test_a_mosaic_puts_zero_in_the_middle_and_the_largest_at_the_edge():
    weight = np.zeros((2, 3, 2, 2), dtype=np.float32)
    weight[1, 0] = 0.5
    weight[1, 1] = -0.5
    picture = filters.mosaic(weight, 0.5)
    assert picture.shape == (2, 5, 3)
    assert (picture[:, :2] == 0.5).all()
    assert (picture[:, 2] == 1).all()  # paper
    assert (picture[:, 3:] == [1, 0, 0.5]).all()


def test_filters_of_other_than_three_channels_are_shown_by_their_mean():
    weight = np.stack([np.full((1, 1), 0.2), np.full((1, 1), -0.1)]).reshape(1, 2, 1, 1)
    assert filters.mosaic(weight, 0.2) == pytest.approx(np.array([[0.5 + 0.05 / 0.4]]))


def test_averaged_weights_are_shown_where_a_run_has_them():
    import torch

    content = {
        "model": {"bias": torch.zeros(2), "w": torch.zeros(2, 1, 3, 3)},
        "ema": {"averages": {"w": torch.ones(2, 1, 3, 3)}},
    }
    assert (filters.first_kernels(content) == 1).all()
    assert (filters.first_kernels({**content, "ema": None}) == 0).all()
    assert filters.first_kernels({"model": {"bias": torch.zeros(2)}, "ema": None}) is None


def test_bars_have_their_steps_or_never_reached(tmp_path):
    make_run(tmp_path / "a", {"batch_norm": None, "epochs": 3}, rates=[0.5, 0.3, 0.2])
    make_run(tmp_path / "b", {"batch_norm": True, "epochs": 3}, rates=[0.5, 0.15, 0.1])
    make_run(tmp_path / "c", {"batch_norm": False, "epochs": 3}, rates=[0.5, 0.5, 0.4])
    found = variation.groups(read([tmp_path]).runs)
    baseline = next(group for group in found if group.values["batch_norm"] is None)
    plot = steps_to.draw(find_steps_to(found, baseline, Predictions()))
    left, right = plot.figure.axes
    assert sorted(text.get_text() for text in left.texts) == ["28", "42", "never reached"]
    assert sorted(text.get_text() for text in right.texts) == ["60.00", "80.00", "90.00"]
    assert all(text.get_bbox_patch() for text in right.texts)  # a background keeps the dashed line from crossing them


def test_with_several_seeds_each_run_is_held_to_its_own_seed(tmp_path):
    """Each run of the baseline reaches its own best, also the one whose best is below the mean."""
    for seed, best in enumerate([0.2, 0.4]):
        make_run(tmp_path / f"a{seed}", {"batch_norm": False, "seed": seed}, rates=[0.5, best])
        make_run(tmp_path / f"b{seed}", {"batch_norm": True, "seed": seed}, rates=[best + seed / 100, best])
    found = variation.groups(read([tmp_path]).runs)
    baseline = next(group for group in found if group.values["batch_norm"] is False)
    steps = find_steps_to(found, baseline, Predictions())
    assert {row.label: (row.reached, row.steps) for row in steps.rows}["batch_norm=false"] == (2, 28)
    plot = steps_to.draw(steps)
    for caption in (steps.table().caption, plot.caption):
        assert "of batch_norm=false under the same seed (the mean, 70.00%, for a seed that it lacks)" in caption
    assert [text.get_text() for text in plot.figure.axes[0].texts] == ["28", "21"]


def test_a_fractional_median_is_equal_in_plot_and_table():
    from deepexp.report.steps_to import Reach, StepsTo

    found = StepsTo("b", 0.5, [Reach("a", 2, 2, 7.5, 1.5, 2.0, 0.5, 0.1)])
    assert [text.get_text() for text in steps_to.draw(found).figure.axes[0].texts] == ["7.5"]
    assert "7.5" in found.table().rows[0]


def test_nothing_is_drawn_where_no_run_reaches_the_aim(tmp_path):
    from deepexp.report.steps_to import Reach, StepsTo

    row = Reach("a", 1, 0, None, None, None, 0.5, None)
    assert isinstance(steps_to.draw(StepsTo("b", 0.9, [row])), Missing)


def test_class_names_come_from_a_checkpoint_that_is_whole(run, tmp_path):
    for index in range(12):
        file = tmp_path / "data" / ("ants", "bees", "wasps")[index % 3] / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((24, 24), 20 * index, dtype=np.uint8)).save(file)
    words = ["data=image_folder", f"data.root={tmp_path / 'data'}", "data.test_fraction=0.5", "epochs=2"]
    directory = run([*words, "batch_size=3"]).directory

    def rows():
        examined = figures.draw(make([directory])).examined[0]
        return [label.get_text() for label in examined.matrix.figure.axes[0].get_yticklabels()]

    assert rows() == ["ants", "bees", "wasps"]
    (directory / "checkpoints" / "last.pt").write_bytes(b"damaged")
    assert rows() == ["ants", "bees", "wasps"]
    (directory / "checkpoints" / "previous.pt").unlink()
    assert set(rows()) <= {"0", "1", "2"}
