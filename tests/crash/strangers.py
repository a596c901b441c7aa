"""Helpers for tests on directories from strangers: a pickle that runs code, and the content of folders."""

from pathlib import Path
from typing import Any


class Bomb:
    """Unpickling it creates a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def everything_below(folder: Path) -> dict[str, bytes | None]:
    """Content of every file below a folder, None for folders."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}
