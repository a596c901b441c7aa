"""Glob patterns on parameter names, first match wins: how `optim.groups` and `freeze` choose."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from deepexp.text.suggest import branches, did_you_mean


def first_match(names: Sequence[str], patterns: Sequence[str], key: str) -> list[int | None]:
    """For each name, the index of the first pattern that it matches, or None.

    `key` is the config key of the list that the patterns come from. Raises `ValueError` with a line
    for every pattern that takes no name, because a misspelt one would otherwise silently do nothing.
    """
    owners = [_owner(name, patterns) for name in names]
    problems = [
        f"{key}[{index}].pattern: {_reason(pattern, names)}"
        for index, pattern in enumerate(patterns)
        if index not in owners
    ]
    if problems:
        raise ValueError("\n".join(problems))
    return owners


def _owner(name: str, patterns: Sequence[str]) -> int | None:
    return next((i for i, pattern in enumerate(patterns) if fnmatchcase(name, pattern)), None)


def _reason(pattern: str, names: Sequence[str]) -> str:
    if any(fnmatchcase(name, pattern) for name in names):
        return f"{pattern!r} matches only parameters that rules before it take; put it before them"
    suggestion = did_you_mean(pattern, [*branches(names), *names])
    sample = ", ".join([*names[:4], *(["…"] if len(names) > 4 else [])])
    return f"{pattern!r} matches no parameter{suggestion}; parameters are {sample}"
