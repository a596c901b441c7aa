"""From `KEY=VALUE` words to the arguments of a demonstration, whose signature says what it takes."""

import functools
import inspect
import operator
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deepexp.disk.yaml_file import read_value
from deepexp.errors import raise_any
from deepexp.text.annotations import refusal
from deepexp.text.suggest import no_such

_LARGEST_SEED = 2**63 - 1


def parse(words: Sequence[str], function: Callable[..., Any], extra: Sequence[str] = ()) -> dict[str, Any]:
    """The keyword arguments that the words set; `extra`: further keys, whose values are texts.

    A value is YAML; a list may also be written with commas alone (`optim=sgd,adam`).
    Raises `InputError` with a line for each word that is no key or whose value is not allowed.
    """
    hints = typing.get_type_hints(function)
    known = [*inspect.signature(function).parameters, *extra]
    given: dict[str, Any] = {}
    problems = []
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or name not in known:
            problems.append(no_such("key", name, known))
        elif name in extra:
            given[name] = text
            if not text:
                problems.append(f"{name}: is empty; give a folder, or leave it out")
        else:
            given[name] = value = _value(text, hints[name])
            wanted = _refusal(hints[name], value)
            if wanted is None and name == "seed" and not 0 <= value <= _LARGEST_SEED:
                wanted = f"0 to {_LARGEST_SEED}"
            if wanted is None and name == "lr" and isinstance(value, float | int) and value <= 0:
                wanted = "a number above 0"
            if wanted:
                problems.append(f"{name}: {text} is not allowed; {wanted}")
    raise_any(problems)
    return given


def folder(given: dict[str, Any], default: Path) -> Path:
    """The folder that `to=` names, taken out of what was given."""
    return Path(os.path.expanduser(given.pop("to", default)))


def _value(text: str, hint: Any) -> Any:
    value = _read(text)
    if value is None and type(None) in _kinds(hint):
        return None
    if _is_list(hint) and not isinstance(value, list):
        return [_read(item) for item in text.split(",")]
    return _numbers(value) if float in _kinds(hint) else value


def _read(text: str) -> Any:
    """The value; the text itself if it is not YAML, so that it is refused by its type."""
    try:
        return read_value(text)
    except ValueError:
        return text


def _numbers(value: Any) -> Any:
    """YAML 1.1 takes `1e-1` for a text; here it is a number."""
    if isinstance(value, Mapping):
        return {key: _numbers(item) for key, item in value.items()}
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _refusal(hint: Any, value: Any) -> str | None:
    """What the argument takes instead, in words, if this value is not it."""
    if value is None and type(None) in _kinds(hint):
        return None
    if _is_list(hint):
        (item,) = typing.get_args(next(kind for kind in _kinds(hint) if typing.get_origin(kind) is list))
        name = {str: "names", int: "whole numbers"}[item]
        fits = isinstance(value, list) and value and all(type(one) is item for one in value)  # true is no number
        return None if fits else f"a list of {name}"
    if isinstance(value, Mapping):
        return None if any(typing.get_origin(kind) is dict for kind in _kinds(hint)) else "a single value"
    plain = [kind for kind in _kinds(hint) if typing.get_origin(kind) is not dict]
    return refusal(functools.reduce(operator.or_, plain), value)


def _kinds(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _is_list(hint: Any) -> bool:
    return any(typing.get_origin(kind) is list for kind in _kinds(hint))
