"""Where YAML lies, the package's own and, searched after it, the user's; and how paths are saved and shown."""

import os
import sys
from pathlib import Path

PACKAGE_DIR = Path(__file__).resolve().parent
"""The folder of the Python package."""


_added: set[str] = set()  # to sys.path, by us


def find_conf_dir(package_dir: Path) -> Path:
    """`conf` inside the package, as a wheel has it, else the one beside it, as in a checkout."""
    inside = package_dir / "conf"
    return inside if inside.is_dir() else package_dir.parent / "conf"


CONF_DIR = find_conf_dir(PACKAGE_DIR)
"""The package's own YAML."""


def user_conf_dir() -> Path | None:
    """`./conf` of the folder that deepexp is called from, or None if there is none or it is the package's own."""
    candidate = Path("conf")
    if not candidate.is_dir() or (CONF_DIR.is_dir() and candidate.samefile(CONF_DIR)):
        return None
    return candidate.absolute()


def conf_directories() -> list[Path]:
    """The package's conf and, behind it, the user's if there is one; a file is taken from the first that has it."""
    theirs = user_conf_dir()
    return [CONF_DIR, theirs] if theirs else [CONF_DIR]


def make_working_directory_importable() -> None:
    """Let `_target_` name modules that lie beside the user's `./conf`; installed ones of the same name come first."""
    try:
        here = str(Path.cwd())
    except FileNotFoundError:  # the folder was removed under us; nothing in it can be named
        return
    for before in _added - {here}:
        if before in sys.path:
            sys.path.remove(before)  # the process has gone elsewhere since
        _added.discard(before)
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
        _added.add(here)


def absolute(place: str) -> str:
    """The absolute path of a place that the user names, with `~` expanded."""
    return str(Path(os.path.expanduser(place)).absolute())


def check_folder_name(name: str) -> None:
    """`ValueError` if this value of the key `name` cannot be the name of one folder."""
    if name in ("", ".", "..") or any(sign in name for sign in "/\\\0"):
        raise ValueError(f"name: {name!r} is not allowed; the name of one folder, without a slash")
    length = len(os.fsencode(name))
    if length > _LONGEST_NAME:
        raise ValueError(f"name: is {length} bytes long; the name of a folder has {_LONGEST_NAME} at most")


_LONGEST_NAME = 255  # bytes, of what Linux, macOS and Windows allow


def shown(path: Path) -> str:
    """A path as messages name it: relative when it lies below the working directory."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, FileNotFoundError):
        return str(path)
