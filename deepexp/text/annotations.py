"""What a type annotation lets a config key or an argument be: in words, and for a value. Standard library only."""

import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal


def kinds(annotation: Any) -> tuple[Any, ...]:
    """The types that an annotation joins by `|`, or itself."""
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return typing.get_args(annotation)
    return (annotation,)


def allowed(annotation: Any, limits: Mapping[str, Any]) -> str:
    """The values that a key takes, in words: `a whole number ≥ 1 or 'full'`."""
    return _in_words(kinds(annotation), limits)


def refusal(annotation: Any, value: Any) -> str | None:
    """The values that an argument with this annotation takes, in words, if this value is none of them.

    Annotations that are more than plain types (protocols, sequences) are left to the target.
    """
    found = [kind for kind in kinds(annotation) if getattr(kind, "__name__", "") != "Tensor"]
    if not all(kind in _PLAIN or typing.get_origin(kind) is Literal for kind in found):
        return None
    if any(match(kind, value)[0] for kind in found):
        return None
    return _in_words(found, {})


_PLAIN = (int, float, bool, str, type(None))


def match(kind: Any, value: Any) -> tuple[bool, Any]:
    """Whether the value is of this one type, and the value as that type (a whole number may stand for a float)."""
    if kind is type(None):
        return value is None, None
    if typing.get_origin(kind) is Literal:
        return isinstance(value, str) and value in typing.get_args(kind), value
    if kind is bool:
        return isinstance(value, bool), value
    if isinstance(value, bool):
        return False, value
    if kind is float and isinstance(value, (int, float)):
        return math.isfinite(value), float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return True, int(value)
    if kind is str and isinstance(value, (int, float)):
        return True, str(value)  # a name or folder that looks like a number
    return isinstance(value, kind), value


def is_within(value: float, limits: Mapping[str, Any]) -> bool:
    """Whether a number is within the `limits` of a key: `minimum`, `above`, `maximum`, `below`."""
    return (
        ("minimum" not in limits or value >= limits["minimum"])
        and ("above" not in limits or value > limits["above"])
        and ("maximum" not in limits or value <= limits["maximum"])
        and ("below" not in limits or value < limits["below"])
    )


def _in_words(found: Sequence[Any], limits: Mapping[str, Any]) -> str:
    words = []
    for kind in found:
        if kind is type(None):
            words.append("null")
        elif typing.get_origin(kind) is Literal:
            words.extend(repr(value) for value in typing.get_args(kind))
        elif kind in (int, float):
            words.append(" ".join([{int: "a whole number", float: "a number"}[kind], _range(limits)]).strip())
        elif kind is bool:
            words.append("true or false")
        elif kind is str:
            words.append("a text")
        else:
            words.append("a list" if typing.get_origin(kind) is list else "a mapping")
    return " or ".join(words)


def _range(limits: Mapping[str, Any]) -> str:
    signs = {"minimum": "≥", "above": ">", "maximum": "≤", "below": "<"}
    return " and ".join(f"{sign} {limits[name]}" for name, sign in signs.items() if name in limits)
