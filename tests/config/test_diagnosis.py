"""Overrides that cannot be read or used: messages name the cause, and their advice works."""

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from deepexp.config import diagnosis


def complaint(word: str) -> str:
    found = diagnosis.parse(word, loader=None)  # type: ignore[arg-type]  # only globs need a loader
    assert isinstance(found, str), f"{word} can be read"
    return found


@pytest.mark.parametrize(
    "text", ["a=b", 'a"b', "it's", "costs $5 = nothing", "`a`", "a!b=c", "a\\b=c", "x:1=2", "a:)", "foo)bar"]
)
def test_a_text_quoted_as_advised_is_read_literally(text: str) -> None:
    hint = complaint(f"model.x={text}").partition("quote it twice: ")[2]
    (word,) = shlex.split(hint)  # as a shell reads it
    (override,) = OverridesParser.create().parse_overrides([word])
    assert override.key_or_group == "model.x" and override.value() == text


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("[1", "its [ is not closed"),
        ("[{pattern: x, lr_mult: 2]", "its ] has no matching ["),
        ("[{pattern: x}", "its [ is not closed"),
        ("[{pattern:", "its { is not closed"),
        ("[1]]", "its ] has no matching ["),
        ("['[', (]", "its ] has no matching ["),
        ("choice(1,2", "its ( is not closed"),
    ],
)
def test_brackets_that_do_not_match_are_named(value: str, what: str) -> None:
    assert complaint(f"model.x={value}").startswith(f"model.x: {value} cannot be read as a value: {what} ")


@pytest.mark.parametrize("value", ["0.1,", ",0.1", "0.1,,0.2", "[0.1,]", "[{pattern: x},]"])
def test_a_comma_without_a_value_beside_it_is_named(value: str) -> None:
    assert complaint(f"model.x={value}") == (
        f"model.x: {value} cannot be read as a value: nothing stands beside a comma (write a,b without blanks)"
    )


@pytest.mark.parametrize(("word", "told"), [
    ("optim.lr==0.1", "optim.lr: is set by a single =: optim.lr=0.1"),
    ("+optim.lr==0.1", "optim.lr: is set by a single =: +optim.lr=0.1"),
    ("name=“a b”", "name: “a b” has the typographic quote “, which is read as a letter; write ' or \""),
    ("seed=rang(3)", "seed: rang(3) cannot be read as a value: rang: there is no such function (did you"),
])  # fmt: skip
def test_values_that_were_meant_otherwise_are_explained(word: str, told: str) -> None:
    assert complaint(word).startswith(told)


def test_brackets_in_quotes_do_not_count() -> None:
    assert "quote it twice" in complaint("model.x='[' = 2")


@pytest.mark.parametrize("word", ["++optim.groups.foo=1", "+optim.groups.0.lr_mult=0.1"])
def test_nothing_is_added_to_an_element_that_a_list_lacks(word: str) -> None:
    (override,) = OverridesParser.create().parse_overrides([word])
    line = diagnosis.unknown_key(override, OmegaConf.create({"optim": {"groups": []}}))
    advice = "optim.groups is a list without such an element; set all of it with optim.groups=[…]"
    assert line == f"{override.key_or_group}: {advice}"
