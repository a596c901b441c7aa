"""The folder that a report is written into: where it is, and that only files of a report are replaced in it.

`report.json` in it lists the files that a report wrote; these alone are replaced or removed by the next one.
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path

import filelock

from deepexp.disk import json_file
from deepexp.disk.storage import named_by
from deepexp.errors import InputError
from deepexp.paths import shown

NAME = "report"
_OURS = "report.json"
_STAGING, _LOCK = ".report-", ".lock"
"""The prefix of temporary folders in which reports are made, and the lock in them, released when the process ends."""
_ALWAYS = (_OURS, "report.html", "table.csv", "table.md")
"""The files that every report has; which pictures it has is known only once they are drawn."""


def choose(paths: Sequence[Path], to: str | None) -> Path:
    """`to`, or a folder in the one path or in the folder that the paths have in common.

    That is `report`, or `report-2` and so on where a report on other paths, or something else, has that name.
    """
    if to is not None:
        return Path(os.path.expanduser(to)).absolute()
    absolute = sorted({str(path.resolve()) for path in paths})
    common = Path(os.path.commonpath(absolute))
    return next(folder for folder in _candidates(common) if _is_free_or_ours(folder, absolute))


def without_reports(paths: Sequence[Path]) -> list[Path]:
    """The paths without folders of reports, which `*` in a shell gives too; all of them if there is nothing else."""
    return [path for path in paths if not _is_report(path)] or list(paths)


def _is_report(path: Path) -> bool:
    """Whether there is nothing in a folder but what a report wrote; it may have been written into a run's."""
    return bool(_content(path)) and {entry.name for entry in path.iterdir()} <= {*_written(path), _OURS}


def write(directory: Path, paths: Sequence[Path], fill: Callable[[Path], object]) -> list[Path]:
    """Let `fill` write files into an empty folder, and then put them into `directory`, each in one step.

    Returns their paths. Files of an earlier report that this one has not are removed. Raises `InputError` before
    anything is replaced if a file of that name is there that no report wrote, or if the folder cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        try:
            return _filled(directory, paths, fill)
        except BaseException:
            with contextlib.suppress(OSError):  # the next report would avoid the name of an empty folder
                directory.rmdir()
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot write {shown(directory)}: {reason}; choose another place with to=DIR") from error


def _filled(directory: Path, paths: Sequence[Path], fill: Callable[[Path], object]) -> list[Path]:
    _check_free(directory, _ALWAYS)
    with staged(directory, _STAGING) as staging, named_by("to=DIR", directory):
        fill(staging)
        return _put(staging, directory, paths)


@contextlib.contextmanager
def staged(directory: Path, prefix: str) -> Iterator[Path]:
    """A temporary folder in `directory`, removed at the end. Those that killed processes left are removed first."""
    for killed in _left_behind(directory, prefix):
        shutil.rmtree(killed, ignore_errors=True)
    staging = Path(tempfile.mkdtemp(prefix=prefix, dir=directory))
    try:
        with filelock.FileLock(staging / _LOCK):
            yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _put(staging: Path, directory: Path, paths: Sequence[Path]) -> list[Path]:
    earlier = _written(directory)
    names = sorted({*(path.name for path in staging.iterdir()), _OURS} - {_LOCK})
    _check_free(directory, names)
    _note(directory, paths, earlier.union(names))  # first, so that its files are known if it is killed
    for name in names:
        if name != _OURS:
            (staging / name).replace(directory / name)
    for name in earlier.difference(names):
        (directory / name).unlink(missing_ok=True)
    _note(directory, paths, names)
    return [directory / name for name in names]


def _note(directory: Path, paths: Sequence[Path], names: Iterable[str]) -> None:
    """Record which files in the folder are a report's, and the paths of its runs."""
    content = {"paths": sorted({str(path.resolve()) for path in paths}), "files": sorted(names)}
    json_file.write(directory / _OURS, content)


def _left_behind(directory: Path, prefix: str = _STAGING) -> list[Path]:
    """The temporary folders of commands that were killed while they wrote, whose locks are free."""
    found = []
    for staging in directory.glob(f"{prefix}*"):
        with contextlib.suppress(OSError, filelock.Timeout):
            if (staging / _LOCK).is_file():
                with filelock.FileLock(staging / _LOCK, timeout=0):
                    found.append(staging)
    return found


def _check_free(directory: Path, names: Sequence[str]) -> None:
    """`InputError` if there is anything of these names that no report wrote."""
    earlier = _written(directory)
    foreign = [name for name in names if name not in earlier and os.path.lexists(directory / name)]
    if foreign:
        raise InputError(
            f"{shown(directory)}: {', '.join(foreign)} there was not written by `deepexp report` and is not replaced; "
            "choose another place with to=DIR"
        )


def _candidates(common: Path) -> Iterator[Path]:
    yield common / NAME
    yield from (common / f"{NAME}-{number}" for number in count(2))


def _is_free_or_ours(folder: Path, paths: Sequence[str]) -> bool:
    if not os.path.lexists(folder):
        return True
    left = _left_behind(folder)
    if left and sorted(folder.iterdir()) == sorted(left):  # there is nothing else in it
        return True
    return _content(folder).get("paths") == list(paths)


def _written(folder: Path) -> set[str]:
    """The names of the files in a folder that an earlier report wrote."""
    files = _content(folder).get("files")
    names = files if isinstance(files, list) else []
    return {name for name in names if isinstance(name, str) and Path(name).name == name and (folder / name).is_file()}


def _content(folder: Path) -> dict[str, object]:
    """The content of `report.json`; nothing if there is none, or it is not one of ours."""
    try:
        content = json.loads((folder / _OURS).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
