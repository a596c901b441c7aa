"""What a run was composed of, read from its `.hydra` folder: the options chosen, and the overrides.

Either can be lost or damaged although the run is whole. Then a warning says so, and the options are inferred from the
config.
"""

import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepexp.config import catalogue
from deepexp.config.overrides import split
from deepexp.disk.yaml_file import read_list, read_mapping
from deepexp.errors import InputError
from deepexp.schema import CROSS_ENTROPY

log = logging.getLogger(__name__)

GROUPS = ("model", "data", "optim", "schedule", "augment", "loss")

_BEFORE = {"loss": "cross_entropy"}
_NODES_BEFORE = {"loss": {"_target_": CROSS_ENTROPY}, "monitor": "error_rate"}
"""The options that all runs had before there was a choice; what stands for them in a config, and for later keys."""


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A saved config, nested, with the groups and keys that deepexp did not have yet when the run began."""
    return {**_NODES_BEFORE, **config}


def words_of(run: Path) -> list[str]:
    """The overrides of a run; none if their file is missing or damaged. `InputError` if it is a folder, say."""
    path = run / ".hydra" / "overrides.yaml"
    try:
        return _words(path)
    except InputError as error:
        if not path.is_file():
            raise
        log.warning("%s; the overrides of the run are not known", error)
        return []


def choices_of(run: Path, config: Mapping[str, Any]) -> dict[str, str | None]:
    """Group → the option that was chosen in it, None where there was a choice and none was made.

    `config`: the saved one, nested. `InputError` if there is a folder, say, in place of the file with the choices.
    """
    path = run / ".hydra" / "hydra.yaml"
    try:
        return _said(path)
    except InputError as error:
        if path.exists() and not path.is_file():
            raise
        log.warning("%s; its options are inferred from its config", error)
    asked: dict[str, str | None] = {}
    with contextlib.suppress(InputError):
        asked = {split(word)[1]: split(word)[2] for word in _words(run / ".hydra" / "overrides.yaml")}
    return {group: _shown(group, completed(config).get(group), asked.get(group)) for group in GROUPS}


def _words(path: Path) -> list[str]:
    return [str(word) for word in read_list(path)] if path.exists() else []


def _said(path: Path) -> dict[str, str | None]:
    runtime = read_mapping(path).get("runtime")
    names = runtime.get("choices") if isinstance(runtime, dict) else None
    if not isinstance(names, dict) or not names.keys() | _BEFORE.keys() >= set(GROUPS):
        needed = ", ".join(sorted(set(GROUPS) - _BEFORE.keys()))
        raise InputError(f"{path} is damaged: runtime.choices must name the options of {needed}")
    return {str(group): None if name is None else str(name) for group, name in (_BEFORE | names).items()}


def _shown(group: str, node: Any, asked: str | None) -> str | None:
    """The option with the target of a part of the config: the one asked for, or that with most of its values."""
    if not isinstance(node, Mapping) or "_target_" not in node:
        return None
    found: dict[str, tuple[bool, int]] = {}
    for option in catalogue.options(group):
        try:
            values = read_mapping(option.path)
        except InputError:  # of the user's own; composing it reports it
            continue
        if values.get("_target_") == node["_target_"] and not option.hidden:
            same = sum(node.get(key) == value for key, value in values.items())
            found[option.name] = (option.name == asked, same)
    return max(found, key=lambda name: found[name]) if found else str(node["_target_"]).rpartition(".")[2]
