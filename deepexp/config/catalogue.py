"""What can be chosen: the groups and options in the package's and the user's conf.

They are read from the folders and the text of the files alone, without Hydra, so that lists and shell completion answer
at once. `compose.py` composes what is chosen.
"""

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from deepexp import paths

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Option:
    """One YAML file of a group."""

    group: str
    name: str
    path: Path
    mine: bool
    """Whether it lies in the user's conf."""
    hidden: bool
    """Whether the package has an option of that name, which takes precedence."""

    @cached_property
    def _lines(self) -> list[str]:
        return self.path.read_text(encoding="utf-8", errors="replace").splitlines()

    @property
    def summary(self) -> str:
        """The first comment line that is neither Hydra's `@package` header nor the file's own name."""
        own_name = rf"#\s*(\S*/)?{re.escape(self.path.name)}\s*"
        for line in self._lines:
            if line.startswith("#") and not re.match(r"#\s*@", line) and not re.fullmatch(own_name, line):
                return line.lstrip("#").strip()
            if line.strip() and not line.startswith("#"):
                break
        return ""

    @property
    def keys(self) -> list[str]:
        """The keys at its top level, except `_target_` and the like, and the defaults list."""
        found = (re.match(r"([A-Za-z]\w*)\s*:", line) for line in self._lines)
        return [match[1] for match in found if match and match[1] != "defaults"]


def groups() -> dict[str, list[Option]]:
    """Every group of the package but Hydra's, with its options and then those of the user's conf, each by alphabet.

    A folder within a group is no group: `experiment/NAME` holds the other scales of a preset (see `presets.py`).
    """
    folders = [path for path in paths.CONF_DIR.rglob("*") if any(path.glob("*.yaml"))]
    names = [folder.relative_to(paths.CONF_DIR).as_posix() for folder in sorted(folders)]
    names = [name for name in names if "/" not in name]
    order = list(defaults())
    return {name: options(name) for name in sorted(names, key=lambda n: order.index(n) if n in order else len(order))}


def defaults() -> dict[str, str | None]:
    """The default option of each group, in the order of the defaults list."""
    text = (paths.CONF_DIR / "train.yaml").read_text(encoding="utf-8")
    listed = re.findall(r"^  - (?:optional )?(\w+): (\w+)$", text, flags=re.MULTILINE)
    return {group: None if option == "null" else option for group, option in listed}


def names(group: str) -> list[str]:
    """The names that can be chosen in a group; none if there is no such group."""
    return [option.name for option in options(group) if not option.hidden]


def options(group: str) -> list[Option]:
    """The options of a group, deepexp's own first, hidden ones with them; none if there is no such group."""
    taken = {path.stem for path in _files(paths.CONF_DIR / group)}
    ours = [Option(group, path.stem, path, mine=False, hidden=False) for path in _files(paths.CONF_DIR / group)]
    conf = paths.user_conf_dir()
    theirs = _files(conf / group) if conf else []
    return ours + [Option(group, path.stem, path, mine=True, hidden=path.stem in taken) for path in theirs]


def warn_of_unused(choices: Iterable[tuple[str, str | None]]) -> None:
    """Warn of each file in the user's conf that has the name of a chosen option of deepexp's own: it has no effect.

    `choices`: (group, name).
    """
    for group, name in choices:
        for option in options(group):
            if option.hidden and option.name == name:
                file = paths.shown(option.path)
                log.warning("%s is not used: %s=%s is an option of deepexp's own; rename the file", file, group, name)


def _files(folder: Path) -> list[Path]:
    """But for what an editor may leave: Emacs locks a file by a link that leads nowhere, `.#mlp.yaml`."""
    return sorted(path for path in folder.glob("*.yaml") if path.is_file())
