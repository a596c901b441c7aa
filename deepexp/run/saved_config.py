"""The config that a run was started with, read again.

It is data from a file: plain YAML, whose targets must be known here (`trust.check_targets`).
"""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from deepexp import schema
from deepexp.config.composed_of import completed
from deepexp.config.composer import Composed
from deepexp.config.overrides import split
from deepexp.disk.yaml_file import read_list, read_mapping
from deepexp.errors import InputError
from deepexp.run.rundir import RunDirectory
from deepexp.user_code import trust

_ABSENT = object()


def values(run: RunDirectory) -> dict[str, Any]:
    """The values in the file, not checked, with those that all runs had when it began; `InputError` if unreadable."""
    return completed(read_mapping(_place(run)))


def read(run: RunDirectory) -> tuple[dict[str, Any], schema.TrainConfig]:
    """(the values in the file, the config made of them); `InputError` names the file if it is damaged."""
    place, found = _place(run), values(run)
    trust.check_targets(found)
    problems = schema.Problems()
    config = schema.typed(found, problems)
    if config is None or problems.lines:
        raise InputError("\n".join(f"{place} is damaged: {line}" for line in problems.lines))
    return found, config


def changed_keys(run: RunDirectory, found: dict[str, Any], composed: Composed) -> list[str]:
    """The keys of a command's overrides that have other values in the saved config, and are not as the run began.

    A word with an interpolation is judged by its value now.
    """
    before = OmegaConf.create(found)
    began = {split(word)[1]: word for word in began_with(run.path) or ()}  # the last for each key
    changed = []
    for word in composed.overrides:
        key = split(word)[1]
        value = OmegaConf.select(composed.config, key, default=_ABSENT)
        is_same = value is not _ABSENT and OmegaConf.select(before, key, default=_ABSENT) == value
        if not is_same and (word != began.get(key) or "${" in word):
            changed.append(key)
    return changed


def began_with(run: Path) -> list[str] | None:
    """The overrides that the run in a directory began with; None if they are lost or damaged."""
    try:
        return [str(word) for word in read_list(run / ".hydra" / "overrides.yaml")]
    except InputError:
        return None


def _place(run: RunDirectory) -> Path:
    return run.path / ".hydra" / "config.yaml"
