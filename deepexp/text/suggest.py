"""Misspelt words: which word was probably meant. Standard library only, since the command line imports it."""

from collections.abc import Collection, Iterable


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """The end of an error message: ` (did you mean 'adam'?)`, or nothing when no candidate is near."""
    best = nearest(word, candidates)
    return f" (did you mean '{best}'?)" if best is not None else ""


def branches(names: Iterable[str]) -> list[str]:
    """The globs that take whole branches of dotted names: `a.*` and `a.b.*` for `a.b.c`."""
    parts = [name.split(".") for name in names]
    found = [".".join(part[:depth]) + ".*" for part in parts for depth in range(1, len(part))]
    return list(dict.fromkeys(found))


def no_such(kind: str, name: str, known: Collection[str]) -> str:
    """The error message for a name of some `kind` (a key, a command) that is not among the `known` ones."""
    return f"{name}: there is no such {kind}{did_you_mean(name, known)}; one of {', '.join(known)}"


def no_word_but_keys(word: str, keys: Collection[str], meant: str) -> str:
    """The error message for a word that is none of a command's options (`keys`), one of which is `run=…`.

    `meant`: what the command does with a run, as the word may have been meant as one.
    """
    name, equals, _ = word.partition("=")
    return no_such("key", name, keys) if equals else f"{word}: is no KEY=VALUE; run={word} {meant}"


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that is the fewest typing mistakes away from `word`, or None if all are too far.

    A third of the letters may be wrong, at least one. Behind these come candidates of which one is the beginning of the
    other (`optimizer` and `optim`) or that end in the word (`net`). Ties go to the first candidate.
    """
    typed = _plain(word)
    costs = {candidate: _cost(typed, _plain(candidate)) for candidate in candidates}
    near = {candidate: cost for candidate, cost in costs.items() if cost is not None}
    return min(near, key=near.__getitem__) if near else None


def _cost(typed: str, goal: str) -> int | None:
    longer = max(len(typed), len(goal))
    mistakes = edit_distance(typed, goal)
    if mistakes <= max(1, longer // 3) and mistakes < min(len(typed), len(goal)):
        return mistakes
    begins = goal.startswith(typed) or typed.startswith(goal)
    if min(len(typed), len(goal)) >= 3 and (begins or goal.endswith(typed)):
        return longer + mistakes
    return None


def edit_distance(a: str, b: str) -> int:
    """Insertions, deletions, replacements and swaps of neighbours between two words.

    The optimal-string-alignment form of Damerau's distance (Damerau 1964): a swap costs one, so `optmi` is one
    mistake away from `optim`, as it is for the one who typed it.
    """
    rows = [list(range(len(b) + 1))]
    for i, letter in enumerate(a, start=1):
        row = [i]
        for j, other in enumerate(b, start=1):
            cost = min(rows[-1][j] + 1, row[j - 1] + 1, rows[-1][j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == other:
                cost = min(cost, rows[-2][j - 2] + 1)
            row.append(cost)
        rows.append(row)
    return rows[-1][-1]


def _plain(word: str) -> str:
    return word.lower().replace("-", "_")
