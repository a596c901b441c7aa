"""The config that a run was started with, read again.

It is data from a file: plain YAML, whose targets must be known here (`trust.check_targets`).
"""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from deepexp import schema
from deepexp.disk.yaml_file import read_mapping
from deepexp.errors import InputError
from deepexp.run.rundir import RunDirectory
from deepexp.user_code import trust


def values(run: RunDirectory) -> dict[str, Any]:
    """The values in the file, not checked; `InputError` names the file if it cannot be read."""
    return read_mapping(_place(run))


def read(run: RunDirectory) -> tuple[dict[str, Any], schema.TrainConfig]:
    """(the values in the file, the config made of them); `InputError` names the file if it is damaged."""
    place, found = _place(run), values(run)
    trust.check_targets(found)
    problems = schema.Problems()
    config = schema.typed(found, problems)
    if config is None or problems.lines:
        raise InputError("\n".join(f"{place} is damaged: {line}" for line in problems.lines))
    return found, config


def has(found: dict[str, Any], key: str, value: Any) -> bool:
    """Whether a dotted key has this value in a saved config, and not just none in both."""
    return value is not None and OmegaConf.select(OmegaConf.create(found), key) == value


def _place(run: RunDirectory) -> Path:
    return run.path / ".hydra" / "config.yaml"
