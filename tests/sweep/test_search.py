"""Which setting a search tries next, on functions with known minima."""

import importlib.util
import logging
import math
import random
import statistics
from typing import Any

import pytest

from deepexp.errors import InputError
from deepexp.sweep import shapes
from deepexp.sweep.search import Method, Search, Setting, Trial
from deepexp.sweep.shapes import Space

WORDS = ["epochs=2", "optim.lr=tag(log, interval(1e-5, 1))", "optim=sgd,adam,rmsprop", "seed=0,1"]


def make(*words: str, method: Method = "tpe", count: int = 20, seed: int = 0, zipped: tuple[str, ...] = ()) -> Search:
    return Search(Space.of(words or WORDS, zipped), method, count, seed)


def bowl(setting: Setting) -> float:
    """A function with its minimum, 0, for Adam at 1e-3."""
    values = dict(word.split("=") for word in setting)
    return 0.1 * (math.log10(float(values["optim.lr"])) + 3) ** 2 + (values["optim"] != "adam") * 0.3


def run(search: Search, trials: list[Trial] | None = None) -> list[Trial]:
    trials = list(trials or [])
    while (setting := search.next(trials)) is not None:
        trials.append(Trial(setting, bowl(setting)))
    return trials


@pytest.mark.parametrize(("method", "count", "seeds"), [("tpe", 40, 3), ("gp", 15, 2)])
def test_a_search_finds_better_settings_than_random_points(method: Method, count: int, seeds: int) -> None:
    found = [min(trial.value for trial in run(make(method=method, count=count, seed=seed))) for seed in range(seeds)]  # type: ignore[type-var]
    at_random = []
    for seed in range(100):
        points = shapes.samples(WORDS[:3], count, seed)
        at_random.append(min(bowl(tuple(point)) for point in points))
    assert statistics.median(found) < 0.5 * statistics.median(at_random)  # type: ignore[type-var]


@pytest.mark.parametrize("method", ["tpe", "gp"])
def test_a_resumed_search_tries_the_same_settings(method: Method) -> None:
    whole = run(make(method=method, count=13, seed=3))
    for cut in (4, 11):
        assert run(make(method=method, count=13, seed=3), whole[:cut]) == whole
    assert run(make(method=method, count=13, seed=4)) != whole


@pytest.mark.parametrize("method", ["tpe", "gp"])
def test_settings_that_still_run_are_not_tried_again(method: Method) -> None:
    search = make(method=method, count=30)
    trials = run(make(method=method, count=12))
    for _ in range(4):
        setting = search.next(trials)
        assert setting is not None
        trials.append(Trial(setting, None))
    assert len({trial.setting for trial in trials}) == 16


def test_each_combination_of_a_finite_space_is_tried_once() -> None:
    search = make("batch_size=10,20,30", "optim=sgd,adam", "batch_norm=true", "seed=range(3)", count=50)
    trials: list[Trial] = []
    while (setting := search.next(trials)) is not None:
        trials.append(Trial(setting, 0.5))
    assert search.count == len(trials) == len({trial.setting for trial in trials}) == 6
    assert all("batch_norm=true" in trial.setting and len(trial.setting) == 3 for trial in trials)


def test_all_numbers_of_a_small_integer_interval_are_tried() -> None:
    search = make("batch_size=int(interval(10, 13))", count=50)
    assert search.count == 3
    trials: list[Trial] = []
    while (setting := search.next(trials)) is not None:
        trials.append(Trial(setting, 0.5))
    assert {trial.setting for trial in trials} == {("batch_size=10",), ("batch_size=11",), ("batch_size=12",)}


@pytest.mark.parametrize("seed", range(2))
def test_repeated_suggestions_of_integers_are_replaced_by_untried_ones(seed: int) -> None:
    # The best value is at an end of the interval, so that the sampler suggests it again and again.
    search = make("batch_size=int(interval(1, 7))", "dropout=0.0,0.1,0.2", count=50, seed=seed)
    trials: list[Trial] = []
    while (setting := search.next(trials)) is not None:
        trials.append(Trial(setting, float(setting[1].split("=")[1]) / 10))
    assert search.count == len(trials) == len({trial.setting for trial in trials}) == 18
    assert all(search.setting_of(trial.setting) == trial.setting for trial in trials)


def test_repeated_suggestions_of_floats_are_replaced_by_untried_ones() -> None:
    # A Gaussian process suggests the end of the interval with the best value again and again.
    search = make("optim.lr=interval(0, 1)", method="gp", count=16)
    trials: list[Trial] = []
    while (setting := search.next(trials)) is not None:
        trials.append(Trial(setting, float(setting[0].split("=")[1])))
    assert len(trials) == len({trial.setting for trial in trials}) == 16
    assert all(search.setting_of(trial.setting) == trial.setting for trial in trials)


def test_a_search_ends_when_six_digits_give_no_new_number() -> None:
    search = make("optim.lr=interval(0.1, 0.100001)", count=9)
    trials: list[Trial] = []
    while (setting := search.next(trials)) is not None:
        trials.append(Trial(setting, 0.5))
    assert {trial.setting for trial in trials} == {("optim.lr=0.1",), ("optim.lr=0.100001",)}


def test_settings_stay_within_intervals_and_pairs() -> None:
    search = make(
        *("batch_size=int(tag(log, interval(1, 1000)))", "dropout=interval(0.1, 0.5)", "optim.lr=0.1,0.2,0.3"),
        *("optim.momentum=0.3,0.2,0.1", "epochs=int(interval(1, 4))"),
        count=40,
        zipped=("optim.lr", "optim.momentum"),
    )
    numbers = random.Random(0)
    trials: list[Trial] = []
    while (setting := search.next(trials)) is not None:
        trials.append(Trial(setting, numbers.random()))
    assert len(trials) == 40
    for trial in trials:
        values = {key: float(value) for key, value in (word.split("=") for word in trial.setting)}
        assert 1 <= values["batch_size"] < 1000 and 0.1 <= values["dropout"] <= 0.5 and values["epochs"] in (1, 2, 3)
        assert values["optim.lr"] + values["optim.momentum"] == pytest.approx(0.4)


def test_the_setting_of_a_job_is_recognised() -> None:
    search = make()
    setting = search.next([])
    assert setting is not None
    points = search.space.points(setting)
    assert [point[3] for point in points] == ["seed=0", "seed=1"]
    assert [point[0] for point in points] == ["epochs=2", "epochs=2"], "in the order of the words"
    for point in points:
        assert search.setting_of([*point, "threads=1", "data.mode=resident"]) == setting


@pytest.mark.parametrize("before", [[], ["log_every=10"], ["data.workers=2"]])
def test_jobs_are_recognised_despite_keys_without_effect_on_results(before: list[str]) -> None:
    overrides = [*before, "epochs=2", "optim.lr=0.01", "optim=adam", "seed=1", "threads=2", "data.mode=resident"]
    setting = ("epochs=2", "optim=adam", "log_every=50", "data.mode=streamed", "optim.lr=0.01")
    assert make(*WORDS, "log_every=50", "data.mode=streamed").setting_of(overrides) == setting
    assert make(*WORDS, "log_every=20,50").setting_of(overrides) is None


@pytest.mark.parametrize(
    "overrides",
    [
        ["epochs=3", "optim.lr=0.01", "optim=adam", "seed=0"],
        ["epochs=2", "optim.lr=1.5", "optim=adam", "seed=0"],
        ["epochs=2", "optim.lr=nan", "optim=adam", "seed=0"],
        ["epochs=2", "optim.lr=0.01", "optim=nadam", "seed=0"],
        ["epochs=2", "optim.lr=0.01", "optim=adam", "seed=2"],
        ["epochs=2", "optim.lr=0.01", "optim=adam"],
        ["epochs=2", "optim.momentum=0.01", "optim=adam", "seed=0"],
        [],
    ],
)
def test_jobs_of_another_search_are_not_recognised(overrides: list[str]) -> None:
    assert make().setting_of(overrides) is None
    assert make().setting_of(["epochs=2", "optim.lr=0.01", "optim=adam", "seed=0"]) is not None


def test_jobs_with_unpaired_values_are_not_recognised() -> None:
    search = make("optim.lr=0.1,0.2", "optim.momentum=0.3,0.4", zipped=("optim.lr", "optim.momentum"))
    assert search.setting_of(["optim.lr=0.1", "optim.momentum=0.3"]) == ("optim.lr=0.1", "optim.momentum=0.3")
    assert search.setting_of(["optim.lr=0.1", "optim.momentum=0.4"]) is None


def test_a_search_without_choices_is_refused() -> None:
    with pytest.raises(InputError, match="nothing to choose from"):
        make("epochs=2", "seed=range(5)")
    with pytest.raises(InputError, match="nothing to choose from"):
        make("epochs=int(interval(2, 3))")


def test_keys_without_effect_on_results_do_not_change_random_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["optim.lr=interval(0, 1)", "optim=sgd,adam"]
    found = []
    for how in ((), ("log_every=10",)):
        tried = (*how, "optim=sgd", "optim.lr=1")
        monkeypatch.setattr(
            Search, "_suggested", lambda *_, tried=tried: tried
        )  # a setting that was tried, so that another is drawn at random
        setting = make(*how, *words).next([Trial(tried, 0.5)])
        assert setting is not None and setting != tried
        found.append(setting[len(how) :])
    assert found[0] == found[1]


def test_messages_of_optuna_are_silenced(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = told.append  # type: ignore[method-assign]
    monkeypatch.setattr(logging.getLogger("optuna"), "handlers", [handler])
    made = Search._sampler

    def sampler(search: Search, seed: int) -> Any:
        logging.getLogger("optuna._gp").warning("slower without greenlet")  # as on its first import
        return made(search, seed)

    monkeypatch.setattr(Search, "_sampler", sampler)
    assert make().next([]) is not None and told == []


def test_without_optuna_installing_it_is_advised(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec

    def spec(name: str, *rest: Any) -> Any:
        return None if name == "optuna" else found(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", spec)
    with pytest.raises(InputError, match="needs optuna, which is not installed; pip install optuna"):
        make()
