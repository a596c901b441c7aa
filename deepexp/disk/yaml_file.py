"""YAML from outside, read as plain values: files that a run has left behind, and values typed on a command line.

Nothing in them is evaluated, whoever wrote them. `text_of` makes the text of a config for such a file.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from deepexp.errors import InputError

if TYPE_CHECKING:
    from omegaconf import DictConfig, ListConfig

# The parser in C is seven times as fast, which matters for the runs of a large sweep.
SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# What an undecodable file name leaves in a path, as PyYAML writes it; the parser in C refuses to read it.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a file; `InputError` names the file if it is missing, damaged or holds anything else."""
    content = _read(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: is no mapping of keys to values")
    return content


def read_list(path: Path) -> list[Any]:
    """The list in a file; `InputError` as for `read_mapping`."""
    content = _read(path)
    if not isinstance(content, list):
        raise InputError(f"{path}: is no list")
    return content


def read_value(text: str) -> Any:
    """A value as it is typed in YAML; `ValueError` if PyYAML cannot read it."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{text!r} is no value in YAML") from error


def text_of(config: "DictConfig | ListConfig") -> str:
    """A config as YAML that reads back as the same config."""
    from omegaconf import OmegaConf  # late: most callers only read YAML

    text = OmegaConf.to_yaml(config)
    if "\x85" in text:  # a line break, which is read as a blank where it is not written as an escape
        text = yaml.safe_dump(OmegaConf.to_container(config), sort_keys=False)
    return text


def _read(path: Path) -> Any:
    if not path.is_file():  # a pipe, say, would be waited for
        raise InputError(f"{path} is {'no file' if path.exists() else 'missing'}")
    try:
        text = path.read_text(encoding="utf-8")
        loader = yaml.SafeLoader if _SURROGATE.search(text) else SAFE_LOADER
        if "*" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, loader)):
            raise ValueError("it has an alias, which deepexp never writes")  # a few aliases can expand to a huge text
        return yaml.load(text, loader)
    except Exception as error:  # PyYAML also lets through errors of the conversions that it tries
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: cannot be read ({reason})") from None
