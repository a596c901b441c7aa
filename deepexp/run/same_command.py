"""`resume=auto`: go on with what the same command began, so that it can be given again until it has come to its end."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deepexp import schema, weights
from deepexp.config.composer import Composed
from deepexp.config.overrides import split
from deepexp.errors import InputError
from deepexp.run import resuming, saved_config
from deepexp.run.identity import HOW, differing
from deepexp.run.rundir import RunDirectory

_WHERE = {"name", "output_dir", "resume", "dry_run", "device", "threads", "data.root"}
"""Keys that may have other values now without making it another run."""


@dataclass(frozen=True)
class Begun:
    """What the same command began before."""

    place: Path | None = None
    """Where the last of it lies; None if there is none to go on with."""
    why_not: str | None = None
    """Why a run that the same command began is not gone on with."""


def words_without_resume(words: Sequence[str]) -> list[str]:
    """The words that say what is to be trained."""
    return [word for word in words if not resuming.names_place(word)]


def are_same(words: Sequence[str], others: Sequence[str] | None) -> bool:
    """Whether two commands have the same words, but for `resume`; in any order, except words for one and the same key.

    Of these the last one counts.
    """
    return others is not None and _by_key(words_without_resume(words)) == _by_key(words_without_resume(others))


def begun_run(composed: Composed) -> Begun:
    """The newest run that was begun with the same words, if these make the same config now.

    They do not if a file of the user's in `./conf` was edited meanwhile, or a default was changed.
    """
    found = (path for path in newest_first(composed) if are_same(composed.overrides, saved_config.began_with(path)))
    path = next(found, None)
    if path is None:
        return Begun()
    if changes := _changes(path, composed):
        return Begun(why_not=f"{path} was begun by the same command, but {'; '.join(changes)}: a new run begins")
    return Begun(path)


def newest_first(composed: Composed) -> Iterator[Path]:
    """The folders where runs and sweeps of this config lie, by the time in their names; the last used of a second."""
    above = Path(os.path.expanduser(str(composed.config.output_dir)), composed.run_name)
    try:
        found = [entry for entry in os.scandir(above) if entry.is_dir() and not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return
    found.sort(key=lambda entry: (entry.name.rpartition("_")[0], entry.stat().st_mtime_ns), reverse=True)
    yield from (above / entry.name for entry in found)


def _by_key(words: Sequence[str]) -> list[str]:
    return sorted(words, key=lambda word: split(word)[1])


def _changes(path: Path, composed: Composed) -> list[str]:
    """`optim.lr is 0.2 and was 0.1` for keys that no word sets, and that have another value than in the run."""
    _, before = saved_config.read(RunDirectory.open(path))
    problems = schema.Problems()
    now = schema.typed(composed.resolved(), problems)
    if now is None:
        raise InputError("\n".join(problems.lines))
    weights.make_absolute(now)  # as in the saved one
    given = {split(word)[1] for word in composed.overrides}
    if now.model.component.arguments.get("pretrained") == "auto":  # the saved one says what it came to
        given.add("model.pretrained")
    return differing(before, now, but_for={*HOW, *_WHERE, *given})
