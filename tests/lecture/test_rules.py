"""The first steps of every optimizer against its paper's formula, by hand in float64."""

import math

import pytest

from deepexp import catalogue
from deepexp.errors import InputError
from deepexp.lecture import update_rules
from deepexp.lecture.update_rules import step_lengths

G = (0.5, -3.0)  # a constant gradient
STEPS = 4


def adam(lr, g, steps, b1=0.9, b2=0.999, eps=1e-8):
    m = v = 0.0
    for t in range(1, steps + 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        yield lr * (m / (1 - b1**t)) / (math.sqrt(v / (1 - b2**t)) + eps)


def momentum(lr, g, steps, gamma=0.9):
    u = 0.0
    for _ in range(steps):
        u = gamma * u + lr * g
        yield u


def nesterov(lr, g, steps, gamma=0.9):
    u = 0.0
    for _ in range(steps):
        u = gamma * u + lr * g
        yield gamma * u + lr * g


def adagrad(lr, g, steps, eps=1e-10):
    for t in range(1, steps + 1):
        yield lr * g / (math.sqrt(t * g * g) + eps)


def rmsprop(lr, g, steps, alpha=0.99, eps=1e-8):
    v = 0.0
    for _ in range(steps):
        v = alpha * v + (1 - alpha) * g * g
        yield lr * g / (math.sqrt(v) + eps)


def adadelta(lr, g, steps, rho=0.9, eps=1e-6):
    v = d = 0.0
    for _ in range(steps):
        v = rho * v + (1 - rho) * g * g
        step = math.sqrt(d + eps) / math.sqrt(v + eps) * g
        d = rho * d + (1 - rho) * step * step
        yield lr * step


def adamax(lr, g, steps, b1=0.9, b2=0.999, eps=1e-8):
    m = u = 0.0
    for t in range(1, steps + 1):
        m, u = b1 * m + (1 - b1) * g, max(b2 * u, abs(g) + eps)
        yield lr / (1 - b1**t) * m / u


def nadam(lr, g, steps, b1=0.9, b2=0.999, eps=1e-8, decay=0.004):
    m = v = 0.0
    product = 1.0
    for t in range(1, steps + 1):
        mu, following = (b1 * (1 - 0.5 * 0.96 ** ((t + k) * decay)) for k in (0, 1))
        product *= mu
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        mean = following * m / (1 - product * following) + (1 - mu) * g / (1 - product)
        yield lr * mean / (math.sqrt(v / (1 - b2**t)) + eps)


def sgd(lr, g, steps):
    yield from [lr * g] * steps


RULES = {rule.__name__: rule for rule in (sgd, momentum, nesterov, adagrad, adadelta, rmsprop, adam, adamax, nadam)}


@pytest.mark.parametrize("name", RULES)
def test_first_steps(name):
    lr, lengths = step_lengths(name, G, STEPS)
    for coordinate, g in enumerate(G):
        expected = [abs(step) for step in RULES[name](lr, g, STEPS)]
        # torch keeps the product of NAdam's momenta in float32.
        assert lengths[:, coordinate].tolist() == pytest.approx(expected, rel=1e-7 if name == "nadam" else 1e-12)


def test_adamw_is_adam_that_also_shrinks_the_weights():
    lr, lengths = step_lengths("adamw", [0.5], 1)
    assert lengths[0, 0].item() == pytest.approx(lr * 0.01 * 1.0 + next(adam(lr, 0.5, 1)), rel=1e-12)


def test_momentum_tends_to_one_over_one_minus_gamma():
    lr, lengths = step_lengths("momentum", [2.0], 300, lr=0.05)
    assert lengths[-1, 0].item() == pytest.approx(lr / (1 - 0.9) * 2.0, rel=1e-10)
    assert lengths[0, 0].item() == pytest.approx(lr * 2.0)


def test_who_notices_that_the_loss_was_multiplied():
    facts = update_rules.demonstrate(steps=3).facts
    notice = {name for name in catalogue.names("optim") if name != "lbfgs" and facts[f"{name}/scaling"] > 50}
    assert notice == {"sgd", "momentum", "nesterov"}
    assert facts["adam/first_0"] == pytest.approx(facts["adam/first_1"], rel=1e-5)
    assert facts["sgd/first_0"] == pytest.approx(100 * facts["sgd/first_1"], rel=1e-12)


@pytest.mark.parametrize("steps", [1, 10])
def test_the_picture_of_few_steps_has_its_label_inside(steps):
    picture = update_rules.demonstrate(optim=["sgd", "momentum"], steps=steps).pictures[0].figure
    (panel,) = picture.axes
    picture.draw_without_rendering()
    (label,) = panel.texts
    assert panel.get_window_extent().contains(*label.get_window_extent().get_points().mean(0))


@pytest.mark.parametrize(
    ("optim", "momentum", "blind"),
    [(["sgd"], False, False), (["sgd", "adam"], False, True), (["nesterov"], True, False), (None, True, True)],
)
def test_only_rules_that_are_there_are_spoken_of(optim, momentum, blind):
    made = update_rules.demonstrate(optim=optim, steps=2)
    (panel,) = made.pictures[0].figure.axes
    assert ("1/(1−γ)" in made.text) == bool(panel.texts) == momentum
    assert ("do not notice" in made.text) == blind


def test_steps_that_are_too_short_to_be_told_are_refused():
    with pytest.raises(InputError, match="lr: 1e-10 is not allowed; at least 1e-09"):
        update_rules.demonstrate(lr=1e-10)
    facts = update_rules.demonstrate(optim=["sgd", "adam"], lr=1e-9, steps=1).facts
    assert facts["sgd/first_1"] == pytest.approx(1e-11, rel=1e-3)
    assert facts["adam/first_1"] == pytest.approx(1e-9, rel=1e-3)


def test_lbfgs_has_no_step_on_a_plane():
    with pytest.raises(InputError, match="leave it out"):
        update_rules.demonstrate(optim=["sgd", "lbfgs"])
