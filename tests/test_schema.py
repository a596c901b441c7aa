"""All values are checked together, with messages that say what is allowed."""

from pathlib import Path

import pytest
import yaml

from deepexp import paths, schema
from deepexp.errors import InputError


def config(**changes):
    content = yaml.safe_load((paths.CONF_DIR / "train.yaml").read_text(encoding="utf-8"))
    del content["defaults"]
    for group in ("model", "data", "optim", "schedule", "augment", "loss"):
        content[group] = {**content.get(group, {}), "_target_": "some.thing", "width": 3}
    content["data"]["root"] = "data"
    for key, value in changes.items():
        *sections, last = key.split("__")
        node = content
        for section in sections:
            node = node[section]
        node[last] = value
    return content


def check(**changes):
    problems = schema.Problems()
    result = schema.typed(config(**changes), problems)
    if not problems.lines:
        schema.check_values(result, problems)
    return result, problems.lines


def test_the_yaml_has_every_key_with_the_default_of_the_schema():
    result, problems = check()
    assert problems == []
    for key, default, _ in schema.describe_keys():
        value = result
        for part in key.split("."):
            value = getattr(value, part)
        if key != "data.root":
            assert value == default, key


def test_a_component_keeps_its_target_and_arguments():
    result, _ = check()
    assert result.model.component == schema.Component("some.thing", {"width": 3})


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("batch_size", 0, "batch_size: 0 is not allowed; a whole number ≥ 1 or 'full'"),
        ("batch_size", "abc", "batch_size: 'abc' is not allowed; a whole number ≥ 1 or 'full'"),
        ("batch_size", 2.5, "batch_size: 2.5 is not allowed; a whole number ≥ 1 or 'full'"),
        ("batch_size", True, "batch_size: true is not allowed; a whole number ≥ 1 or 'full'"),
        ("dropout", 1.5, "dropout: 1.5 is not allowed; a number ≥ 0.0 and < 1.0 or null"),
        ("dropout", float("nan"), "dropout: nan is not allowed; a number ≥ 0.0 and < 1.0 or null"),
        ("val_fraction", 1, "val_fraction: 1 is not allowed; a number ≥ 0.0 and < 1.0"),
        ("batch_norm", "yes", "batch_norm: 'yes' is not allowed; true or false or null"),
        ("order", "random", "order: 'random' is not allowed; 'shuffled' or 'sequential' or 'with_replacement'"),
        ("epochs", {"a": [None, "b"]}, "epochs: {a: [null, 'b']} is not allowed; a whole number ≥ 1"),
        ("epochs", None, "epochs: null is not allowed; a whole number ≥ 1"),
        ("data__mode", "stream", "data.mode: 'stream' is not allowed; 'auto' or 'resident' or 'streamed'"),
        ("freeze", "features", "freeze: 'features' is not allowed; a list or null"),
        ("freeze", [{"patern": "x"}], "freeze[0].patern: there is no such key (did you mean 'pattern'?)"),
        ("checkpoint", 3, "checkpoint: 3 is not allowed; a mapping is needed"),
        ("optim__groups", [3], "optim.groups[0]: 3 is not allowed; a mapping is needed"),
        ("class_weights", "balance", "class_weights: 'balance' is not allowed; 'balanced' or a list or null"),
        ("class_weights", [1, -1], "class_weights[1]: -1 is not allowed; a number ≥ 0.0"),
        ("class_weights", ["a"], "class_weights[0]: 'a' is not allowed; a number ≥ 0.0"),
        ("epohcs", 3, "epohcs: there is no such key (did you mean 'epochs'?)"),
    ],
)
def test_a_bad_value_gets_one_line(key, value, line):
    _, problems = check(**{key: value})
    assert problems == [line]


def test_wrong_values_are_replaced_by_defaults():
    wrong = {"batch_size": 0, "optim__groups": [3], "freeze": "features", "checkpoint": 3, "model__input__width": "x"}
    result, problems = check(**wrong, seed=4)
    usual, _ = check(seed=4)
    assert len(problems) == len(wrong)
    assert result == usual


def test_a_part_that_is_no_mapping_gives_no_config():
    result, problems = check(model=3)
    assert result is None
    assert problems == ["model: 3 is not allowed; a mapping is needed"]


def test_all_problems_are_reported_together():
    _, problems = check(batch_size=0, dropout=2, seed=-1)
    assert [line.split(":")[0] for line in problems] == ["batch_size", "dropout", "seed"]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("batch_size", "full", "full"),
        ("clip_grad_norm", 1, 1.0),
        ("epochs", 2.0, 2),
        ("class_weights", "balanced", "balanced"),
        ("class_weights", [1, 0.5], [1.0, 0.5]),
        ("name", 7, "7"),
        ("ema", None, None),
    ],
)
def test_a_right_value_is_converted_to_its_type(key, value, expected):
    result, problems = check(**{key: value})
    assert problems == []
    assert getattr(result, key) == expected
    assert type(getattr(result, key)) is type(expected)


@pytest.mark.parametrize(
    ("changes", "begin"),
    [
        ({"freeze": [{"pattern": "a"}]}, "freeze[0]: needs either share or epochs"),
        ({"freeze": [{"pattern": "a", "share": 0.5, "epochs": 2}]}, "freeze[0]: needs either share or epochs"),
        ({"freeze": [{"share": 0.5}]}, "freeze[0]: needs a pattern"),
        ({"batch_size": "full", "accumulate": 2}, "accumulate:"),
        ({"batch_size": "full", "drop_last": True}, "drop_last:"),
    ],
)
def test_values_that_do_not_go_together_are_refused(changes, begin):
    result, problems = check(**changes)
    assert result is not None
    assert [line for line in problems if line.startswith(begin)]


def test_a_group_without_an_option_is_missing_or_its_file_is_empty():
    _, problems = check(optim={"groups": []})
    assert problems == ["optim: is missing or empty; choose an option of this group that has a _target_"]


def test_problems_are_raised_as_one():
    problems = schema.Problems()
    problems.raise_any()
    for line in ("a: wrong", "b: wrong", "a: wrong"):
        problems.add(line)
    with pytest.raises(InputError, match=r"\Aa: wrong\nb: wrong\Z"):
        problems.raise_any()


def test_no_heavy_import_is_needed():
    source = Path(schema.__file__).read_text(encoding="utf-8")
    assert "import torch" not in source
    assert "omegaconf" not in source
