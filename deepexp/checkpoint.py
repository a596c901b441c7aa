"""Checkpoints: one file each, in which any damage is noticed, and which replaces an older one only once it is safe.

A checkpoint is what `torch.save` writes, followed by one line with its SHA-256. The digest is in the same file because
two files cannot be replaced in one step; `torch.load` ignores the line. It holds tensors and plain values only, so that
it is loaded with `weights_only=True`. The trainer decides what goes into it.

Torch is imported where it is needed: callers that need only names, or whether a file is whole, do not wait for it.
"""

import hashlib
import io
import logging
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

from deepexp.disk.storage import storage_errors, sync_directory, write_atomically
from deepexp.errors import InputError, RunFailed

log = logging.getLogger(__name__)

FORMAT = 1
LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"
EARLIER_BEST = "best_earlier.pt"
"""The `best.pt` that the final evaluation of a run replaced; it is put back if the run is trained further."""
_MARK = b"\ndeepexp-sha256:"
_TRAILER = len(_MARK) + 64 + 1  # mark, digest in hexadecimal, newline


def save(path: Path, content: dict[str, Any], *, keep_previous: Path | None = None) -> None:
    """Write `content` to `path`, safe against a crash or a power cut at any point.

    Until the new file is wholly on the disk, the old one stays under its name; after that, as `keep_previous`.
    Raises `RunFailed`: with the path and the free space where it cannot be written, or with the name of a value that
    `load` would refuse.
    """
    import torch

    for key, value in content.items():
        check_readable(key, value)
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    with buffer.getbuffer() as saved:
        digest = hashlib.sha256(saved).hexdigest().encode()
    buffer.write(_MARK + digest + b"\n")
    if keep_previous is not None and path.exists():
        with storage_errors(keep_previous):
            _link(path, keep_previous)
    with buffer.getbuffer() as written:
        write_atomically(path, written)


def check_readable(name: str, value: Any) -> None:
    """Raise `RunFailed` for a value that `load` would refuse; an optimizer of the user's may keep one in its state."""
    import torch

    if value is None or isinstance(value, torch.Tensor) or type(value) in (bool, int, float, str):
        return
    if type(value) in (dict, OrderedDict):
        for key, held in value.items():
            check_readable(f"{name}.{key}", held)
    elif type(value) in (list, tuple):
        for index, held in enumerate(value):
            check_readable(f"{name}.{index}", held)
    else:
        buffer = io.BytesIO()
        try:
            torch.save(value, buffer)
            torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
        except Exception:  # pickling and unpickling raise nearly anything
            kind = f"{type(value).__module__}.{type(value).__qualname__}"
            raise RunFailed(
                f"{name} is of type {kind}, which cannot be loaded again: "
                "let it be a tensor or a plain value (for a number of NumPy's: float(…))"
            ) from None


def load(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, tensors on the CPU; `InputError` if it is missing, damaged or not one of ours."""
    import torch

    payload = _payload(path)
    try:
        content = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever unpickling refuses, the file is not one that we wrote
        raise InputError(f"{path}: holds more than tensors and plain values ({type(error).__name__})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path}: is no checkpoint of format {FORMAT}; a newer deepexp may have written it")
    return content


def is_whole(path: Path) -> bool:
    """Whether a checkpoint is there and as it was written; cheaper than loading it."""
    try:
        _payload(path)
    except InputError:
        return False
    return True


def load_latest(directory: Path) -> tuple[Path, dict[str, Any]]:
    """`last.pt` of a checkpoints directory, or `previous.pt` (saying so) where that is damaged.

    `InputError` where that is damaged too, or missing.
    """
    last, previous = directory / LAST, directory / PREVIOUS
    try:
        return last, load(last)
    except InputError as error:
        try:
            content = load(previous)
        except InputError:
            other = f"{PREVIOUS} is no better" if previous.exists() else "there is no other"
            best = directory / BEST
            way_on = f"copy {BEST}, which is whole, to {LAST} to go on from there, or " if is_whole(best) else ""
            raise InputError(
                f"{error}, and {other}; {way_on}start a new run with the config in its .hydra folder"
            ) from None
        log.warning("%s; taking %s", error, previous.name)
        return previous, content


def set_aside(path: Path) -> None:
    """Rename a damaged checkpoint, so that the next save does not keep it as `previous.pt` in place of a good one."""
    if path.exists():
        with storage_errors(path, option=None):
            path.replace(path.with_name(f"{path.name}.damaged"))
            sync_directory(path.parent)


def put_back_best(directory: Path, *, aside: str) -> None:
    """Rename `best.pt` to `aside`, and what was best before it to `best.pt`, if it was kept.

    If the process is killed in between, it can be done again.
    """
    best, earlier = directory / BEST, directory / EARLIER_BEST
    with storage_errors(best):
        _link(best, directory / aside)
        sync_directory(directory)  # the second name must be on the disk before the first is taken away
        if earlier.exists():
            os.replace(earlier, best)
        else:
            best.unlink()
        sync_directory(directory)


def _payload(path: Path) -> bytes:
    """What `torch.save` wrote; `InputError` if the digest behind it does not fit."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    payload, trailer = data[:-_TRAILER], data[-_TRAILER:]
    if not trailer.startswith(_MARK):
        raise InputError(f"{path}: is cut short or no checkpoint of deepexp (the digest at its end is missing)")
    if trailer != _MARK + hashlib.sha256(payload).hexdigest().encode() + b"\n":
        raise InputError(f"{path}: is damaged (its digest does not fit its content)")
    return payload


def _link(source: Path, target: Path) -> None:
    """Give `source` a second name, replacing whatever had that name in one step."""
    temporary = target.with_name(target.name + ".tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:  # a file system without hard links
        write_atomically(target, source.read_bytes())
    else:
        os.replace(temporary, target)
        temporary.unlink(missing_ok=True)  # where the target was the same file already, the rename did nothing
