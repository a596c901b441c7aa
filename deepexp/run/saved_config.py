"""The config that a run was started with, read again.

It is data from a file: plain YAML, whose targets must be known here (`trust.check_targets`).
"""

from typing import Any

from deepexp import schema
from deepexp.disk.yaml_file import read_mapping
from deepexp.errors import InputError
from deepexp.run.rundir import RunDirectory
from deepexp.user_code import trust


def read(run: RunDirectory) -> tuple[dict[str, Any], schema.TrainConfig]:
    """(its plain values, the config that they are); `InputError` names the file if it is damaged."""
    place = run.path / ".hydra" / "config.yaml"
    values = read_mapping(place)
    trust.check_targets(values)
    problems = schema.Problems()
    config = schema.typed(values, problems)
    if config is None or problems.lines:
        raise InputError("\n".join(f"{place} is damaged: {line}" for line in problems.lines))
    return values, config
