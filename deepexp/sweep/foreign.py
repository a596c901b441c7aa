"""Checks of a sweep directory before it is resumed: it may come from a stranger, so its files are only data.

They must not run code, nor have files written elsewhere. Which `_target_` may be named, `user_code/trust.py` decides.
"""

import dataclasses
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from deepexp.config import overrides
from deepexp.errors import InputError, raise_any
from deepexp.run.identity import FREE
from deepexp.run.rundir import check_entries
from deepexp.run.saved_config import began_with
from deepexp.sweep import ledger
from deepexp.sweep.directory import LEDGER, SWEEP_FILE, read_description
from deepexp.sweep.settings import LauncherConfig
from deepexp.user_code import trust

_LAUNCHER = {f"hydra.launcher.{field.name}" for field in dataclasses.fields(LauncherConfig)}
_SWEEPER = {f"hydra.sweeper.{name}" for name in ("zip", "samples", "search", "seed")}


def check_sweep(directory: Path, asked: Collection[str]) -> None:
    """Raise `InputError` for a sweep with files that lead elsewhere or belong to other jobs, or with unsafe words.

    Nothing is written. `asked`: the words given now, which replace saved words of the same keys.
    """
    check_entries(directory)
    content = read_description(directory)
    replaced = {overrides.split(word)[1] for word in asked}
    raise_any(
        [
            f"{word}: is in {SWEEP_FILE}, and {complaint}; if you want that, give it in this command too"
            for word in content["overrides"]
            if overrides.split(word)[1] not in replaced and (complaint := _complaint(word))
        ]
    )
    _check_ledger(directory / LEDGER)


def said_again(words: Sequence[str]) -> list[str]:
    """The words of a sweep that have to be given again to resume it, as they are typed."""
    return [overrides.as_typed(word) for word in words if _complaint(word) is not None]


def _complaint(word: str) -> str | None:
    """Why a saved word is not used unless the user gives it again; None if it is safe."""
    _, key, value = overrides.split(word)
    value = value or ""
    if "_target_" in word:
        known = key.endswith("._target_") and value in trust.trusted_targets()
        return None if known else "no YAML file of deepexp or of ./conf here has that _target_"
    if "${" in word:
        return "interpolations from a file are not evaluated"
    if key.startswith("hydra.") and key not in _LAUNCHER | _SWEEPER:
        return "it sets a key of Hydra's own, which may run code"
    if key == "data.cache":
        return "decoded pictures would be written there"
    if key == "data.root" and not os.path.isdir(os.path.expanduser(overrides.unquote(value))):
        return "that folder does not exist and would be made"
    return None


def _check_ledger(path: Path) -> None:
    """Refuse entries whose run lies elsewhere."""
    for entry in ledger.read(path).values():
        run = entry.directory
        if run is not None and (run in ("", ".", "..") or any(sign in run for sign in "/\\\0")):
            raise InputError(f"{path}: is damaged (the run of {entry.job!r} is in {run!r}, which is no folder's name)")
        if run is not None:
            _check_run(path.parent / run, entry)


def _check_run(run: Path, entry: ledger.Entry) -> None:
    """Refuse a run that began with other values than its job has: its result would be taken for the job's."""
    began, meant = _values(began_with(run) or []), _values(entry.overrides)
    other = [key for key in meant if key not in FREE and began.get(key, meant[key]) != meant[key]]
    if other:
        words = ", ".join(f"{key}={began[key]}" for key in other)
        raise InputError(
            f"{run}: is a run with {words}, where that of {entry.job} should be; put that one back, or remove this one"
        )


def _values(words: Iterable[str]) -> dict[str, str | None]:
    return {key: value and overrides.unquote(value) for _, key, value in map(overrides.split, words)}
