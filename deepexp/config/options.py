"""`KEY=VALUE` words that are options of a command itself, and no keys of a config."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, get_type_hints

from deepexp.disk.yaml_file import read_value
from deepexp.errors import InputError
from deepexp.schema import Problems, section

Options = TypeVar("Options")


_DOTTED = {"data_root": "data.root"}
"""Field → the key of a config that an option stands for."""


def names_of(kind: type) -> list[str]:
    """The names of a command's options, given their dataclass."""
    return list(_fields(kind))


def parse(
    words: Sequence[str], kind: type[Options], refuse: Callable[[str], str | None] = lambda _: None
) -> tuple[Options, list[str]]:
    """(options, the other words); `InputError` with a line for each value that is not allowed.

    `kind`: a dataclass of `schema.key` fields. Texts are taken as they stand, other values are read as YAML. `refuse`:
    says what is wrong with one of the other words, if anything.
    """
    texts = {name for name, annotation in get_type_hints(kind).items() if annotation in (str, str | None)}
    fields = _fields(kind)
    problems = Problems()
    given: dict[str, Any] = {}
    others = []
    for word in words:
        name, equals, value = word.partition("=")
        if word.startswith("-"):
            problems.add(f"{word}: there is no such flag; allowed: --help")
        elif equals and name in fields:
            is_text = fields[name] in texts and value != "null"
            given[fields[name]] = value if is_text else _value(name, value)
        elif complaint := refuse(word):
            problems.add(complaint)
        else:
            others.append(word)
    options: Options = section(kind, given, "", problems)
    problems.raise_any()
    return options, others


def _fields(kind: type) -> dict[str, str]:
    """Option → field of the dataclass."""
    return {_DOTTED.get(item.name, item.name): item.name for item in dataclasses.fields(kind)}


def _value(name: str, text: str) -> Any:
    try:
        return read_value(text)
    except ValueError:
        raise InputError(f"{name}: {text!r} cannot be read as a value") from None
