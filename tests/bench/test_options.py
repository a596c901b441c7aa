import dataclasses

import pytest

from deepexp.bench.options import EpochOptions, StartOptions, StepOptions, SweepOptions, parse
from deepexp.errors import InputError
from deepexp.schema import TrainConfig


def test_options_are_separated_from_overrides():
    words = ["rounds=2", "model=resnet", "seconds=1", "json=true", "epochs=3", "epoch_rounds=0"]
    options, overrides = parse(words, StepOptions)
    assert options == StepOptions(rounds=2, seconds=1.0, epoch_rounds=0, json=True)
    assert overrides == ["model=resnet", "epochs=3"]


def test_defaults():
    assert parse([], StepOptions) == (StepOptions(), [])


@pytest.mark.parametrize("kind", [StepOptions, EpochOptions, SweepOptions, StartOptions])
def test_no_option_has_the_name_of_a_config_key(kind):
    names = {item.name for item in dataclasses.fields(kind)}
    assert not names & {item.name for item in dataclasses.fields(TrainConfig)}
    assert "experiment" not in names


@pytest.mark.parametrize(
    "word, expected",
    [
        ("rounds=0", "rounds: 0 is not allowed; a whole number ≥ 1"),
        ("rounds=many", "rounds: 'many' is not allowed"),
        ("rounds=", "rounds: null is not allowed"),
        ("seconds=0", "seconds: 0 is not allowed; a number > 0"),
        ("json=yes please", "json: 'yes please' is not allowed; true or false"),
        ("epoch_rounds=-1", "epoch_rounds: -1 is not allowed; a whole number ≥ 0 or null"),
        ("round=3", "round: there is no such key (did you mean 'rounds'?)"),
        ("secnods=3", "did you mean 'seconds'?"),
        ("rounds=[", "'[' cannot be read"),
        ("-m", "-m: there is no such flag"),
    ],
)
def test_a_wrong_option_is_named(word, expected):
    with pytest.raises(InputError) as caught:
        parse([word], StepOptions)
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_all_problems_are_reported_together():
    with pytest.raises(InputError) as caught:
        parse(["rounds=0", "seconds=-1", "-x"], StepOptions)
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize("word", ["epochs=3", "optmi=adam", "model.width=3", "batch_sise=3", "monster"])
def test_a_word_nearer_to_a_config_key_is_left_to_the_config(word):
    assert parse([word], StepOptions)[1] == [word]
