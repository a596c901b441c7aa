"""What a `_target_` in YAML names: a class or a function, of deepexp, of an installed package, or beside `./conf`."""

import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.utils import get_object

from deepexp import paths


def find(name: str) -> Callable[..., Any]:
    """The object of a dotted name. Raises `ImportError` with one line that says why and, in whose file, where."""
    paths.make_working_directory_importable()
    hydras = logging.getLogger("hydra.utils")  # which would tell the same, in three lines and without the place
    was_disabled, hydras.disabled = hydras.disabled, True
    try:
        found: Callable[..., Any] = get_object(name)
    except Exception as error:  # importing the user's own module may raise anything
        raise ImportError(_reason(name, error.__cause__ or error)) from error
    finally:
        hydras.disabled = was_disabled
    return found


def _reason(name: str, cause: BaseException) -> str:
    if isinstance(cause, ModuleNotFoundError) and cause.name and f"{name}.".startswith(f"{cause.name}."):
        parent, _, part = cause.name.rpartition(".")
        return f"{parent} has no {part!r}" if parent else f"no module {part!r} is here or installed"
    if isinstance(cause, SyntaxError) and cause.filename:
        return f"{paths.shown(Path(cause.filename))}:{cause.lineno}: {type(cause).__name__}: {cause.msg}"
    frames = [frame for frame in traceback.extract_tb(cause.__traceback__) if not _is_machinery(frame.filename)]
    place = f"{paths.shown(Path(frames[-1].filename))}:{frames[-1].lineno}: " if frames else ""
    return place + f"{type(cause).__name__}: {cause}".splitlines()[0]


def _is_machinery(filename: str) -> bool:
    return filename.startswith("<") or any(part in ("importlib", "hydra") for part in Path(filename).parts)
