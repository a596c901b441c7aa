"""The first steps of every optimizer under one gradient, against its paper's formula in NumPy."""

import numpy as np
import pytest

from deepexp.config import catalogue
from deepexp.errors import InputError
from deepexp.lecture import update_rules
from deepexp.lecture.update_rules import step_lengths

from ..optim import update_rules as rules
from ..optim.test_update_rules import RULES, VARIANTS, configured

G = (0.5, -3.0)  # a constant gradient
STEPS = 4


@pytest.mark.parametrize("name", VARIANTS)
def test_first_steps_follow_the_formula(name):
    options = configured(name).keywords
    lr, lengths = step_lengths(name, G, STEPS)
    assert lr == options["lr"]
    update = getattr(rules, RULES.get(name, name))(**options)
    x = np.ones(len(G))
    for length in lengths:
        before, x = x, update(x, np.array(G))
        # torch keeps the product of NAdam's momenta in float32.
        assert length.numpy() == pytest.approx(abs(x - before), rel=1e-7 if name == "nadam" else 1e-12)


def test_adamw_is_adam_that_also_shrinks_the_weights():
    (lr, adamw), (_, adam) = (step_lengths(name, [0.5], 1, lr=0.001) for name in ("adamw", "adam"))
    assert adamw.item() == pytest.approx(lr * 0.01 * 1.0 + adam.item(), rel=1e-12)


def test_steps_of_momentum_tend_to_lr_over_one_minus_gamma():
    lr, lengths = step_lengths("momentum", [2.0], 300, lr=0.05)
    assert lengths[-1, 0].item() == pytest.approx(lr / (1 - 0.9) * 2.0, rel=1e-10)
    assert lengths[0, 0].item() == pytest.approx(lr * 2.0)


def test_only_plain_and_momentum_steps_scale_with_the_loss():
    facts = update_rules.demonstrate(steps=3).facts
    notice = {name for name in catalogue.names("optim") if name != "lbfgs" and facts[f"{name}/scaling"] > 50}
    assert notice == {"sgd", "momentum", "nesterov"}
    assert facts["adam/first_0"] == pytest.approx(facts["adam/first_1"], rel=1e-5)
    assert facts["sgd/first_0"] == pytest.approx(100 * facts["sgd/first_1"], rel=1e-12)


@pytest.mark.parametrize("steps", [1, 10])
def test_the_label_is_inside_a_plot_of_few_steps(steps):
    picture = update_rules.demonstrate(optim=["sgd", "momentum"], steps=steps).pictures[0].figure
    (panel,) = picture.axes
    picture.draw_without_rendering()
    (label,) = panel.texts
    assert panel.get_window_extent().contains(*label.get_window_extent().get_points().mean(0))


@pytest.mark.parametrize(
    ("optim", "momentum", "blind"),
    [(["sgd"], False, False), (["sgd", "adam"], False, True), (["nesterov"], True, False), (None, True, True)],
)
def test_the_text_is_only_about_the_chosen_rules(optim, momentum, blind):
    made = update_rules.demonstrate(optim=optim, steps=2)
    (panel,) = made.pictures[0].figure.axes
    assert ("1/(1−γ)" in made.text) == bool(panel.texts) == momentum
    assert ("do not notice" in made.text) == blind


def test_rates_too_small_to_measure_steps_are_refused():
    with pytest.raises(InputError, match="lr: 1e-10 is not allowed; at least 1e-09"):
        update_rules.demonstrate(lr=1e-10)
    facts = update_rules.demonstrate(optim=["sgd", "adam"], lr=1e-9, steps=1).facts
    assert facts["sgd/first_1"] == pytest.approx(1e-11, rel=1e-3)
    assert facts["adam/first_1"] == pytest.approx(1e-9, rel=1e-3)


def test_lbfgs_is_refused_under_a_constant_gradient():
    with pytest.raises(InputError, match="leave it out"):
        update_rules.demonstrate(optim=["sgd", "lbfgs"])
