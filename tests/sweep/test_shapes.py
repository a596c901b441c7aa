import math
import statistics

import pytest

from deepexp.errors import InputError
from deepexp.sweep import shapes


def test_the_last_word_varies_fastest() -> None:
    assert shapes.grid(["epochs=1", "batch_size=10,100", "optim.lr=choice(0.1,0.2)"]) == [
        ["epochs=1", "batch_size=10", "optim.lr=0.1"],
        ["epochs=1", "batch_size=10", "optim.lr=0.2"],
        ["epochs=1", "batch_size=100", "optim.lr=0.1"],
        ["epochs=1", "batch_size=100", "optim.lr=0.2"],
    ]


def test_ranges_and_globs_are_expanded() -> None:
    assert shapes.grid(["seed=range(3)"]) == [["seed=0"], ["seed=1"], ["seed=2"]]
    assert shapes.grid(["schedule=glob(co*)"]) == [["schedule=constant"], ["schedule=cosine"]]


def test_a_later_word_replaces_an_earlier_one() -> None:
    assert shapes.grid(["seed=1,2", "seed=3"]) == [["seed=3"]]


def test_zipped_keys_are_paired() -> None:
    points = shapes.grid(["batch_size=10,100", "seed=0,1", "optim.lr=0.1,0.2"], ["batch_size", "optim.lr"])
    assert points == [
        ["batch_size=10", "seed=0", "optim.lr=0.1"],
        ["batch_size=100", "seed=0", "optim.lr=0.2"],
        ["batch_size=10", "seed=1", "optim.lr=0.1"],
        ["batch_size=100", "seed=1", "optim.lr=0.2"],
    ]


@pytest.mark.parametrize(
    ("words", "zipped", "message"),
    [
        (["seed=0,1", "batch_size=1,2,3"], ["seed", "batch_size"], "seed has 2, batch_size has 3"),
        (["seed=0,1", "batch_size=1"], ["seed", "batch_size"], "batch_size: has no values to be paired"),
        (["seed=0,1"], ["seed", "lr"], "lr: has no values"),
        (["optim.lr=interval(0.1,1)"], [], "hydra.sweeper.samples"),
    ],
)
def test_words_that_make_no_grid_are_refused(words: list[str], zipped: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        shapes.grid(words, zipped)


def test_samples_are_drawn_from_their_intervals() -> None:
    words = ["optim.lr=tag(log, interval(1e-4, 1e-1))", "dropout=interval(0.2, 0.6)", "batch_size=int(interval(8, 16))"]
    points = shapes.samples(words, 2000, seed=0)
    values = [[float(word.partition("=")[2]) for word in point] for point in points]
    rates, drops, sizes = zip(*values, strict=True)
    assert min(rates) >= 1e-4 and max(rates) <= 1e-1
    # Uniform in the logarithm: half of them below the geometric mean, 10**-2.5.
    assert abs(statistics.fmean(math.log10(rate) for rate in rates) + 2.5) < 0.06
    assert min(drops) >= 0.2 and max(drops) <= 0.6 and abs(statistics.fmean(drops) - 0.4) < 0.01
    assert set(sizes) == set(range(8, 16))
    assert min(len(set(rates)), len(set(drops))) > 1900  # not rounded


def test_whole_numbers_are_drawn_on_a_logarithmic_scale_too() -> None:
    points = shapes.samples(["batch_size=int(tag(log, interval(1, 1000)))"], 2000, seed=0)
    sizes = [int(point[0].partition("=")[2]) for point in points]
    assert min(sizes) == 1 and max(sizes) < 1000
    # A third of them in each of 1–9, 10–99 and 100–999.
    assert all(abs(sum(10**power <= size < 10 ** (power + 1) for size in sizes) / 2000 - 1 / 3) < 0.04
               for power in range(3))  # fmt: skip


def test_samples_are_the_same_each_time_and_differ_with_their_seed() -> None:
    words = ["optim.lr=interval(0,1)", "batch_size=10,20"]
    assert shapes.samples(words, 5, seed=1) == shapes.samples(words, 5, seed=1) != shapes.samples(words, 5, seed=2)


def test_words_with_one_value_do_not_change_the_samples() -> None:
    words = ["optim=sgd,adam", "optim.lr=interval(0,1)"]
    points = shapes.samples(["data.workers=0", *words, "epochs=20", "name=longer"], 20, seed=0)
    assert [point[1:3] for point in points] == shapes.samples(words, 20, seed=0)


def test_each_sample_is_taken_with_every_seed() -> None:
    points = shapes.samples(["seed=range(3)", "optim.lr=interval(0,1)"], 4, seed=0)
    assert len(points) == 12
    assert len({point[1] for point in points}) == 4
    assert [point[0] for point in points[:3]] == ["seed=0", "seed=1", "seed=2"]


def test_seeds_of_an_interval_are_drawn_like_other_keys() -> None:
    points = shapes.samples(["seed=int(interval(0, 1000))", "batch_size=10,20"], 4, seed=0)
    assert len({point[0] for point in points}) == 4


@pytest.mark.parametrize("interval", ["interval(1, 0)", "tag(log, interval(0, 1))"])
def test_impossible_intervals_are_refused(interval: str) -> None:
    with pytest.raises(InputError, match="needs a start below its end"):
        shapes.samples([f"optim.lr={interval}"], 1, seed=0)


def test_one_at_a_time_has_every_value_and_both_ends() -> None:
    assert shapes.one_at_a_time(["seed=0,1", "batch_size=1,2,3", "optim.lr=interval(0.5,1)"]) == [
        ["seed=0", "batch_size=1", "optim.lr=0.5"],
        ["seed=1", "batch_size=1", "optim.lr=0.5"],
        ["seed=0", "batch_size=2", "optim.lr=0.5"],
        ["seed=0", "batch_size=3", "optim.lr=0.5"],
        ["seed=0", "batch_size=1", "optim.lr=1"],
    ]


def test_a_key_of_a_sweep_is_not_swept_itself() -> None:
    words = [
        "hydra.sweeper.zip=seed,optim.lr",
        "seed=0,1",
        "hydra.launcher.jobs=1,2",
        "hydra.sweeper.samples=choice(1,2)",
    ]
    with pytest.raises(InputError) as caught:
        shapes.check_settings(words)
    assert str(caught.value).splitlines() == [
        "hydra.sweeper.zip: seed,optim.lr is several values, and it takes one; a list is written "
        "hydra.sweeper.zip=[seed,optim.lr]",
        "hydra.launcher.jobs: 1,2 is several values, and it takes one; a list is written hydra.launcher.jobs=[1,2]",
        "hydra.sweeper.samples: choice(1,2) is several values, and it takes one; a list is written "
        "hydra.sweeper.samples=[a,b]",
    ]
    single = ["hydra.sweeper.zip=[seed,optim.lr]", "hydra.launcher.jobs=2", "hydra.sweeper.seed='1,2'"]
    shapes.check_settings([*single, r"hydra.sweeper.study=a\,b"])
