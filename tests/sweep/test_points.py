from typing import Any

import pytest

from deepexp.errors import InputError
from deepexp.models import pretrained
from deepexp.sweep.points import check_points, choose_pretrained, config_hash, settled


def checked(*points: list[str], fixed: set[str] | None = None, needs_validation: bool = False) -> Any:
    return check_points(list(points), fixed or set(), needs_validation=needs_validation)


def test_threads_are_the_sweeps_unless_the_user_gives_them() -> None:
    ours, theirs = checked(["seed=1"], ["seed=1", "threads=2"])
    assert settled(ours, pretrained=None, threads=1).overrides == ["seed=1", "threads=1"]
    assert settled(theirs, pretrained=None, threads=1).overrides == ["seed=1", "threads=2"]


def test_pretrained_weights_are_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def resolve(choice: object) -> pretrained.Resolved:
        asked.append(choice)
        return pretrained.Resolved(False)

    monkeypatch.setattr(pretrained, "resolve", resolve)
    points = checked(["model=monster", "seed=0"], ["model=monster", "seed=1"], ["model=mnist_net", "seed=0"])
    choice = choose_pretrained(points)
    assert asked == ["auto"] and choice is False
    words = [settled(point, pretrained=choice, threads=1).overrides for point in points]
    assert [("model.pretrained=false" in word) for word in words] == [True, True, False]


def test_the_choice_is_part_of_what_a_job_is_known_by() -> None:
    (point,) = checked(["model=monster"])
    random, imagenet = (settled(point, pretrained=choice, threads=1) for choice in (False, True))
    assert random.config_hash != imagenet.config_hash
    (explicit,) = checked(["model=monster", "model.pretrained=true"])
    assert settled(explicit, pretrained=None, threads=4).config_hash == imagenet.config_hash


def test_a_job_is_known_by_what_decides_its_result() -> None:
    config = {"seed": 0, "optim": {"lr": 0.1}, "name": "a", "output_dir": "x", "resume": None, "dry_run": False}
    assert config_hash(config) == config_hash({**config, "name": "b", "output_dir": "y"})
    assert config_hash(config) != config_hash({**config, "seed": 1})
    assert config_hash(config) != config_hash({**config, "optim": {"lr": 0.2}})


def test_names_leave_out_what_is_fixed() -> None:
    (point,) = checked(["seed=1", "data.root='/a b'", "epochs=2"], fixed={"epochs"})
    assert point.varying == {"seed": "1", "data.root": "/a b"}


def test_every_problem_is_told_with_the_points_that_have_it() -> None:
    with pytest.raises(InputError) as caught:
        checked(["batch_size=10", "dropout=2"], ["batch_size=0", "dropout=2"], ["batch_size=5000", "dropout=2"])
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("all 3 points: dropout: 2")
    assert lines[1].startswith("batch_size=0,dropout=2: batch_size: 0")
    assert lines[-1] == "nothing was started"


@pytest.mark.parametrize("word", ["name=a", "output_dir=a"])
def test_what_names_the_sweep_cannot_vary(word: str) -> None:
    with pytest.raises(InputError, match="cannot be different from job to job"):
        checked([word])


def test_a_search_needs_validation_data() -> None:
    with pytest.raises(InputError, match=r"val_fraction=0\.1.*objective=test_error_rate"):
        checked(["seed=0"], needs_validation=True)
    assert len(checked(["val_fraction=0.1"], needs_validation=True)) == 1
