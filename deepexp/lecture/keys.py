"""The keys of each demonstration and of `all`, for help and tab completion.

They are the arguments of its `demonstrate` (the fields of `course.Choices`), read from the source: importing that would
take the seconds of torch.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from deepexp.config.help_text import parsed

_IN_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "list[int]": "whole numbers with commas between",
    "list[str]": "names with commas between",
    "dict[str, float]": "{name: number, …}",
}


@dataclass(frozen=True)
class Key:
    """A key, its default, and its values in words."""

    name: str
    default: Any
    takes: str
    words: tuple[str, ...]
    """Its values as they are typed, if it takes no others."""


def of(name: str) -> list[Key]:
    """The keys of a demonstration, or of `all`, in the order of its arguments."""
    module = _module("course" if name == "all" else name)
    keys = []
    for argument, annotation, default in _choices() if name == "all" else _arguments(name):
        options = list(_options(module, annotation))
        words = tuple(word for option in options for word in _words(option))
        takes = " or ".join(", ".join(_words(option)) or _IN_WORDS[ast.unparse(option)] for option in options)
        keys.append(Key(argument, ast.literal_eval(default), takes, words if all(map(_words, options)) else ()))
    return keys


def description(name: str) -> str:
    """What a demonstration is, and does with its keys: the docstrings of its file and of its `demonstrate`."""
    texts = (ast.get_docstring(parsed(_module(name))), ast.get_docstring(_named(_module(name), "demonstrate")))
    return "\n\n".join(text for text in texts if text)


def _module(name: str) -> str:
    return f"deepexp.lecture.{name}"


def _named(module: str, name: str) -> Any:
    """The function or class of this name in a module."""
    return next(node for node in parsed(module).body if getattr(node, "name", None) == name)


def _arguments(name: str) -> Iterator[tuple[str, ast.expr, ast.expr]]:
    """(name, annotation, default) of each argument of a demonstration."""
    arguments = _named(_module(name), "demonstrate").args
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield argument.arg, argument.annotation, default


def _choices() -> Iterator[tuple[str, ast.expr, ast.expr]]:
    """The same of `all`."""
    for node in _named(_module("course"), "Choices").body:
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            yield ast.unparse(node.target), node.annotation, node.value


def _options(module: str, annotation: ast.expr) -> Iterator[ast.expr]:
    """The kinds that an annotation joins by `|`, except None; a name that stands for others is looked up."""
    if isinstance(annotation, ast.BinOp):
        yield from _options(module, annotation.left)
        yield from _options(module, annotation.right)
    elif ast.unparse(annotation) != "None":
        yield _meant(module, annotation)


def _meant(module: str, annotation: ast.expr) -> ast.expr:
    """The `Literal[…]` that a name stands for in a module, or in the one that it is imported from."""
    name = ast.unparse(annotation)
    for node in parsed(module).body:
        if isinstance(node, ast.Assign) and name in map(ast.unparse, node.targets):
            return node.value
        if isinstance(node, ast.ImportFrom) and node.module and name in (alias.name for alias in node.names):
            return _meant(node.module, annotation)
    return annotation


def _words(option: ast.expr) -> tuple[str, ...]:
    """What may be typed for a kind that has a few values only."""
    if ast.unparse(option) == "bool":
        return ("true", "false")
    if isinstance(option, ast.Subscript) and ast.unparse(option.value) == "Literal":
        values = ast.literal_eval(option.slice)
        return values if isinstance(values, tuple) else (values,)
    return ()
