import dataclasses
import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.optim import lr_scheduler

from deepexp.optim.schedules import Constant, Cosine, Linear, OneCycle, Schedule, Step
from deepexp.paths import CONF_DIR

TOTAL = 40
ALL = [Constant, Cosine, Linear, OneCycle, Step]


def torch_rates(scheduler_of: Callable[[torch.optim.Optimizer], Any], updates: int) -> list[float]:
    """The learning rate at each update under one of torch's schedulers, with a base of 1."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = scheduler_of(optimizer)
    rates = []
    for _ in range(updates):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def rates(schedule: Schedule, total_steps: int = TOTAL) -> list[float]:
    return [schedule(step, total_steps) for step in range(total_steps)]


@pytest.mark.parametrize(
    ("schedule", "reference"),
    [
        (Constant(), lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
        (Step([0.25, 0.5, 0.75], gamma=0.3), lambda o: lr_scheduler.StepLR(o, step_size=10, gamma=0.3)),
        (Step([7, 30]), lambda o: lr_scheduler.MultiStepLR(o, milestones=[7, 30], gamma=0.1)),
        (Step([30, 0.5]), lambda o: lr_scheduler.MultiStepLR(o, milestones=[20, 30], gamma=0.1)),
        (Cosine(), lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=TOTAL)),
        (Cosine(final=0.2), lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=TOTAL, eta_min=0.2)),
        (Linear(), lambda o: lr_scheduler.LinearLR(o, 1.0, 0.0, total_iters=TOTAL)),
        (Linear(final=0.1), lambda o: lr_scheduler.LinearLR(o, 1.0, 0.1, total_iters=TOTAL)),
        (OneCycle(), lambda o: lr_scheduler.OneCycleLR(o, max_lr=1.0, total_steps=TOTAL, cycle_momentum=False)),
        (
            OneCycle(warmup=10, start_division=5, final_division=100, anneal="linear"),
            lambda o: lr_scheduler.OneCycleLR(
                o,
                1.0,
                TOTAL,
                pct_start=0.25,
                div_factor=5,
                final_div_factor=100,
                anneal_strategy="linear",
                cycle_momentum=False,
            ),
        ),
    ],
    ids=lambda value: "" if inspect.isfunction(value) else repr(value),
)
def test_schedules_equal_torchs(schedule: Schedule, reference: Callable[[torch.optim.Optimizer], Any]) -> None:
    # The last of torch's schedulers cannot step past its end, so it is asked for one update less.
    assert rates(schedule)[:-1] == pytest.approx(torch_rates(reference, TOTAL - 1), abs=1e-12)


def test_one_cycle_ends_at_its_last_update() -> None:
    assert OneCycle(start_division=10, final_division=100)(TOTAL - 1, TOTAL) == pytest.approx(1e-3)


@pytest.mark.parametrize("warmup", [0.3, 0.99, 1, 0])
def test_one_cycle_of_a_single_update_has_the_whole_rate(warmup: int | float) -> None:
    """torch would give it the final rate, 4e-6 of the learning rate, at which nothing is learnt."""
    assert rates(OneCycle(warmup=warmup), 1) == [1.0]


@pytest.mark.parametrize("warmup", [8, 0.2])
def test_warmup_is_linear_and_then_the_schedule_begins(warmup: int | float) -> None:
    ramp = [(step + 1) / 8 for step in range(8)]
    rest = range(32)
    assert rates(Constant(warmup=warmup)) == pytest.approx([*ramp, *[1.0] * 32])
    assert rates(Linear(warmup=warmup)) == pytest.approx([*ramp, *[1 - step / 32 for step in rest]])
    cosine = [(1 + math.cos(math.pi * step / 32)) / 2 for step in rest]
    assert rates(Cosine(warmup=warmup)) == pytest.approx([*ramp, *cosine])
    # Milestones are counted from the beginning of the run, as He et al. count them.
    assert rates(Step([0.5], warmup=warmup)) == pytest.approx([*ramp, *[1.0] * 12, *[0.1] * 20])


def test_a_share_of_the_run_is_rounded_to_the_nearest_update() -> None:
    assert 0.29 * 100 < 29
    assert rates(Step([0.29]), 100) == [1.0] * 29 + [0.1] * 71
    assert rates(Constant(warmup=0.29), 100).index(1.0) == 28


def test_the_first_update_of_the_shortest_run_has_the_whole_rate() -> None:
    assert rates(Step([0.4, 0.75]), 1) == [1.0]
    assert rates(Step([0.1, 0.75]), 2) == pytest.approx([1.0, 0.1])


@pytest.mark.parametrize("schedule", [Cosine(final=0.2), Linear(final=0.2), OneCycle()], ids=str)
def test_beyond_its_end_a_schedule_is_constant(schedule: Schedule) -> None:
    assert schedule(TOTAL + 7, TOTAL) == schedule(TOTAL, TOTAL) >= 0


def test_without_warmup_the_first_rate_is_the_base_rate() -> None:
    for schedule in (Constant(), Step(), Cosine(), Linear(), OneCycle(warmup=0), OneCycle(warmup=1)):
        assert schedule(0, TOTAL) == 1.0


@pytest.mark.parametrize("schedule", [make(warmup=0.5) for make in ALL], ids=str)
@pytest.mark.parametrize("total_steps", [1, 2, 3, 1000])
def test_every_multiplier_is_above_0_and_at_most_1(schedule: Schedule, total_steps: int) -> None:
    schedule.check(total_steps)
    assert all(0 < value <= 1 for value in rates(schedule, total_steps))


@pytest.mark.parametrize("schedule", [make(warmup=0.5) for make in ALL], ids=str)
@pytest.mark.parametrize("total_steps", [2, 3, 1000])
def test_every_schedule_reaches_the_base_rate(schedule: Schedule, total_steps: int) -> None:
    assert max(rates(schedule, total_steps)) == pytest.approx(1.0)


@pytest.mark.parametrize("schedule", [Constant(), Constant(warmup=5), Step([10, 20], warmup=5)], ids=str)
def test_schedules_that_do_not_depend_on_the_horizon(schedule: Schedule) -> None:
    assert not schedule.depends_on_horizon()
    assert rates(schedule, 30) == rates(schedule, 60)[:30]


@pytest.mark.parametrize(
    "schedule",
    [Constant(warmup=0.5), Step([0.5]), Step([5], warmup=0.5), Cosine(), Linear(), OneCycle(warmup=5)],
    ids=str,
)
def test_schedules_that_depend_on_the_horizon(schedule: Schedule) -> None:
    assert schedule.depends_on_horizon()
    assert rates(schedule, 30) != rates(schedule, 60)[:30]


@pytest.mark.parametrize("make", ALL)
def test_a_warmup_longer_than_the_run_is_an_error(make: type) -> None:
    make(warmup=40).check(40)
    make(warmup=0.99).check(2)
    with pytest.raises(ValueError, match="warmup: 41 is more than all updates of the run, 40; "):
        make(warmup=41).check(40)


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("warmup", [-1, 1.0, 1.5, -0.1, "long", math.nan])
def test_an_impossible_warmup_is_an_error(make: type, warmup: Any) -> None:
    with pytest.raises(ValueError, match="warmup: "):
        make(warmup=warmup)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (Step, {"milestones": [0.5, 1.5]}, "milestones: 1.5"),
        (Step, {"milestones": [0]}, "milestones: 0"),
        (Step, {"milestones": 5}, "milestones: 5 is no list"),
        (Step, {"gamma": -0.1}, "gamma: -0.1"),
        (Cosine, {"final": -1}, "final: -1"),
        (Linear, {"final": math.inf}, "final: inf"),
        (OneCycle, {"start_division": 0.5}, "start_division: 0.5"),
        (OneCycle, {"final_division": 0}, "final_division: 0"),
        (OneCycle, {"anneal": "cos"}, "anneal: 'cos'"),
    ],
)
def test_impossible_arguments_are_errors(make: type, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**arguments)


@pytest.mark.parametrize("path", sorted((CONF_DIR / "schedule").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_yaml_lists_every_argument_with_its_default(path: Any) -> None:
    config = OmegaConf.load(path)
    schedule = instantiate(config, _convert_="all")
    assert {*config} == {"_target_", *(item.name for item in dataclasses.fields(schedule))}
    assert rates(schedule) == rates(type(schedule)())
