"""The text of `deepexp --help` and `deepexp COMMAND --help`, put together without importing anything heavy.

The help of a command is the docstring of its module: one text for readers of the code and of the help.
"""

import ast
import functools
import importlib.util
import shutil
import textwrap
from collections.abc import Sequence

from deepexp import schema
from deepexp.commands import COMMANDS, Command
from deepexp.config import catalogue
from deepexp.disk.yaml_words import yaml_word

OVERVIEW = """\
usage: deepexp COMMAND [ARGUMENTS]

Image-classification experiments described by YAML.

{commands}

  deepexp COMMAND --help   what a command takes
  deepexp --version        the version

examples:
  deepexp train model=monster optim=adam
  deepexp train -m batch_size=10,100,1000 optim.lr=0.01,0.1
  tensorboard --logdir outputs"""


def overview() -> str:
    """All commands with a line each."""
    width = max(len(name) for name in COMMANDS)
    lines = [f"  {name.ljust(width)}   {command.summary}" for name, command in COMMANDS.items()]
    return OVERVIEW.format(commands="\n".join(lines))


def of_command(command: Command) -> str:
    """The docstring of a command's module, and the config keys for a command that takes them."""
    text = ast.get_docstring(parsed(command.module)) or ""
    return f"{text}\n\n{keys()}" if command.takes_keys else text


def keys() -> str:
    """Every group with its options, and every key with its default and meaning."""
    chosen = [(f"{group}=…", ", ".join(catalogue.names(group))) for group in catalogue.groups()]
    closed = [(f"{key}={yaml_word(default)}", meaning) for key, default, meaning in schema.describe_keys()]
    return "\n".join(
        [
            "groups (`deepexp list` explains options; --cfg job shows their keys, GROUP.KEY=VALUE):",
            *table(chosen),
            "",
            "keys, with their defaults:",
            *table(closed),
        ]
    )


def table(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Two columns; a long text goes on below itself, and a long first word has a line of its own."""
    indent = 28
    width = min(shutil.get_terminal_size((100, 24)).columns, 120)
    lines = []
    for word, text in rows:
        start = f"  {word}".ljust(indent)
        if not start.endswith(" "):
            lines.append(start)
            start = " " * indent
        lines += textwrap.wrap(text, width, initial_indent=start, subsequent_indent=" " * indent) or [start]
    return lines


@functools.cache
def parsed(module: str) -> ast.Module:
    """The source of a module, which is not imported: that could take seconds."""
    spec = importlib.util.find_spec(module)
    source = spec.loader.get_source(module) if spec and spec.loader else None  # type: ignore[attr-defined]
    return ast.parse(source or "")
