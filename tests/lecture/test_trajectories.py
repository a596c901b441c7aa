import io

import numpy as np
import pytest
import torch
from PIL import Image

from deepexp.cli import main
from deepexp.errors import InputError
from deepexp.lecture import curvature, trajectories
from deepexp.lecture.surfaces import SURFACES
from deepexp.lecture.trajectories import crossings, walk


@pytest.fixture(scope="module")
def facts():
    return trajectories.demonstrate(surfaces=["valley", "barrier"]).facts


@pytest.mark.parametrize("name", SURFACES)
def test_the_minimum_of_each_surface_is_where_it_says(name):
    surface = SURFACES[name]
    point = torch.tensor(surface.minimum, dtype=torch.float64, requires_grad=True)
    height = surface.height(*point)
    height.backward()
    assert point.grad.abs().max() < 1e-4  # not 0: the foot of the barrier reaches the minimum beside it
    around = point.detach() + 0.05 * torch.randn(100, 2, dtype=torch.float64)
    assert (surface.height(*around.t()) > height.item() - 1e-6).all()


def test_first_steps_equal_those_computed_by_hand():
    start = np.array([-4.0, 0.5])
    gradient = np.array([0.4 * -4.0, 39.6 * 0.5])
    found = walk(SURFACES["valley"], "momentum", 0.05, 2).points
    first = start - 0.05 * gradient
    second = first - (0.9 * 0.05 * gradient + 0.05 * np.array([0.4, 39.6]) * first)
    assert found == pytest.approx(np.stack([start, first, second]), rel=1e-12)
    adam = walk(SURFACES["valley"], "adam", 0.1, 1).points
    assert adam[1] == pytest.approx(start - 0.1 * np.sign(gradient), rel=1e-7)


def test_the_cross_at_the_minimum_lies_above_the_paths_that_end_there():
    (panel,) = trajectories.demonstrate(optim=["adam"], surfaces=["valley"]).pictures[0].figure.axes
    cross = next(line for line in panel.lines if line.get_marker() == "x")
    assert cross.get_zorder() > max(line.get_zorder() for line in panel.lines if line is not cross)


def test_the_legend_of_many_optimizers_covers_no_path():
    many = ["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamax", "nadam", "adamw"]
    figure = trajectories.demonstrate(optim=many, surfaces=["valley", "barrier"]).pictures[0].figure
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == many
    figure.draw_without_rendering()
    right = max(panel.get_window_extent().x1 for panel in figure.axes)
    assert right <= legend.get_window_extent().x0 and all(panel.get_legend() is None for panel in figure.axes)


def test_momentum_runs_past_the_minimum_and_comes_back(facts):
    assert facts["valley/momentum/overshoot"] > 1
    assert facts["valley/momentum/x_crossings"] >= 2
    assert facts["valley/sgd/overshoot"] == facts["valley/sgd/x_crossings"] == 0
    assert facts["valley/momentum/distance"] < 0.1 * facts["valley/sgd/distance"]


def test_momentum_calms_the_oscillation_across_the_valley(facts):
    assert facts["valley/sgd/y_crossings"] == 100  # at every step
    assert facts["valley/momentum/late_oscillation"] < 0.2 * facts["valley/sgd/late_oscillation"]


def test_momentum_goes_through_the_barrier_that_stops_plain_descent(facts):
    assert facts["barrier/sgd/distance"] > 1.5
    assert facts["barrier/momentum/distance"] < 0.1


def test_adam_steps_equally_far_in_both_coordinates(facts):
    assert facts["valley/adam/first_step_ratio"] == pytest.approx(1, rel=1e-6)
    assert facts["valley/sgd/first_step_ratio"] == pytest.approx(39.6 * 0.5 / (0.4 * 4), rel=1e-12)


BACK, THROUGH, CALMS, EQUAL = "and comes back", "goes through the barrier", "calms the oscillation", "its first step is"


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"surfaces": ["valley", "barrier"]}, {BACK, THROUGH, CALMS, EQUAL}),
        ({"optim": ["adam"], "surfaces": ["rosenbrock"]}, {EQUAL}),
        ({"optim": ["sgd", "momentum"], "surfaces": ["barrier"], "steps": 3}, set()),
        ({"optim": ["sgd", "momentum"], "surfaces": ["valley"], "lr": 0.5}, {BACK}),  # both go to infinity
        ({"optim": ["momentum", "adam"], "surfaces": ["valley"], "lr": 0.0}, set()),
    ],
)
def test_the_text_says_what_the_paths_show(choice, said):
    text = trajectories.demonstrate(**choice).text
    assert {words for words in (BACK, THROUGH, CALMS, EQUAL) if words in text} == said, text


def test_a_diverged_path_is_called_diverged():
    shown = trajectories.demonstrate(optim=["sgd"], surfaces=["rosenbrock"], lr=0.05)
    assert shown.tables[0].rows[0][4] == "diverged"


@pytest.mark.filterwarnings("error")
def test_a_diverged_path_has_no_end_marker():
    shown = trajectories.demonstrate(optim=["sgd", "adam"], surfaces=["valley"], lr={"sgd": 1.0})
    assert [row[4] == "diverged" for row in shown.tables[0].rows] == [True, False]
    squares = [line for line in shown.pictures[0].figure.axes[0].lines if line.get_markersize() == 7]
    assert [line.get_marker() for line in squares] == ["o", "s"]  # the start, and where Adam ends


def test_crossings_are_counted():
    assert crossings(np.array([1.0, 0.0, -1.0, -2.0, 3.0]), 0.0) == 2


def test_an_animation_ends_with_the_whole_path():
    made = trajectories.demonstrate(optim=["sgd", "adam"], surfaces=["valley"], steps=10, animate=True)
    with Image.open(io.BytesIO(made.animations["trajectories.gif"])) as film:
        frames = []
        for frame in range(film.n_frames):
            film.seek(frame)
            frames.append(np.asarray(film.convert("RGB")).astype(int))
    coloured = [int(((frame.max(2) - frame.min(2)) > 60).sum()) for frame in frames]
    assert len(frames) >= 10  # equal frames may be merged
    assert coloured[-1] > 2 * coloured[0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"optim": ["adm"]}, "did you mean 'adam'"),
        ({"surfaces": ["vally"]}, "did you mean 'valley'"),
        ({"lr": {"adma": 0.1}}, "did you mean 'adam'"),
        ({"lr": {"adam": -0.1}}, "at least 0"),
    ],
)
def test_mistakes_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        trajectories.demonstrate(**given)


def test_a_step_on_a_parabola_multiplies_by_one_minus_lr_times_curvature():
    facts = curvature.demonstrate(lr=0.1, curvatures=[1, 5, 25]).facts
    assert facts == pytest.approx({"factor_1": 0.9, "factor_5": 0.5, "factor_25": 1.5})


@pytest.mark.parametrize(
    ("lr", "begins"),
    [
        (0.05, "At η = 0.05 one rule creeps, arrives at once, oscillates or diverges, "),
        (0.01, "At η = 0.01 the rule creeps on each "),
        (1.0, "At η = 1 one rule jumps between two points or diverges, "),
    ],
)
def test_the_text_on_steps_is_only_about_the_given_curvatures(lr, begins):
    assert curvature.demonstrate(lr=lr).text.startswith(begins)


@pytest.mark.parametrize("steps", [10, 10_000])
def test_the_factor_of_a_step_is_measured_between_normal_numbers(steps):
    """0.9, 1.1 and 0 for ηλ of 0.1, 2.1 and 1; after thousands of steps numbers are subnormal or infinite."""
    for curvature_, factor in [(1, 0.9), (21, 1.1), (10, 0.0)]:
        points = curvature.descend(curvature_, 0.1, steps)
        assert curvature.measured(points) == pytest.approx(factor, rel=1e-9)


@pytest.mark.parametrize("name", ["curvature", "update_rules", "parameter_groups"])
@pytest.mark.parametrize("lr", ["0", "-0.1"])
def test_a_learning_rate_of_zero_or_less_is_refused(capsys, name, lr):
    assert main(["lecture", name, f"lr={lr}"]) == 2
    assert capsys.readouterr().err == f"deepexp: lr: {lr} is not allowed; a number above 0\n"
