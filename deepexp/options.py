"""The `KEY=VALUE` words of a command that has options of its own and no config."""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar, get_type_hints

import yaml

from deepexp.errors import InputError
from deepexp.schema import Problems, section

Options = TypeVar("Options")


def parse(words: Sequence[str], kind: type[Options]) -> tuple[Options, list[str]]:
    """(options, the other words); `InputError` with a line for each value that is not allowed.

    `kind`: a dataclass of `schema.key` fields. Texts are taken as they stand, other values are read as YAML.
    """
    texts = {name for name, annotation in get_type_hints(kind).items() if annotation in (str, str | None)}
    names = [item.name for item in dataclasses.fields(kind)]  # type: ignore[arg-type]
    problems = Problems()
    given: dict[str, Any] = {}
    others = []
    for word in words:
        name, equals, value = word.partition("=")
        if word.startswith("-"):
            problems.add(f"{word}: there is no such flag; allowed: --help")
        elif equals and name in names:
            given[name] = value if name in texts and value != "null" else _value(word, value)
        else:
            others.append(word)
    options: Options = section(kind, given, "", problems)
    problems.raise_any()
    return options, others


def _value(word: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError(f"{word}: cannot be read as a value") from None
