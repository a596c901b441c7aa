"""Writing to disk so that a crash loses nothing, and saying clearly why it could not be done.

What belongs here: replacing a file in one step, appending to one that can be cut back, syncing, and
turning the system's errors into ours. Which files there are, and what they contain, does not.
"""

import contextlib
import errno
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from deepexp.errors import DISK_TROUBLE, InputError, RunFailed

# What some network and FUSE file systems answer that cannot sync a directory.
_CANNOT_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP})

# Of a disk, a folder or a file that may not be written to.
_NOT_WRITABLE = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})

_TRIES = 20 if os.name == "nt" else 1  # to rename a file
_PAUSE_SECONDS = 0.05

_OUTPUT_DIR = "output_dir=DIR"
_place_stays: ContextVar[bool] = ContextVar("_place_stays", default=False)


@contextlib.contextmanager
def place_that_stays() -> Iterator[None]:
    """Within the block, errors suggest no other `output_dir`: a resumed run or a job stays where it is."""
    before = _place_stays.set(True)
    try:
        yield
    finally:
        _place_stays.reset(before)


@contextlib.contextmanager
def storage_errors(path: Path, *, chosen_by_user: bool = False, option: str | None = _OUTPUT_DIR) -> Iterator[None]:
    """Turn an `OSError` of the block into ours, which names `path`, the reason, and on a full disk the space left.

    That is a `RunFailed`; with `chosen_by_user` (nothing was ever written there), a folder that
    refuses is an `InputError` instead, unless the disk itself is the trouble. `option`: the word by
    which another place can be chosen; None where there is no choice, as for a resumed run.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not chosen_by_user:
            text = f"cannot write {path}: its folder was removed during the run"
            raise RunFailed(text) from error
        of_disk = error.errno in DISK_TROUBLE
        remedies = ["make room there"] if of_disk else []
        has_choice = option is not None and not (option == _OUTPUT_DIR and _place_stays.get())
        if has_choice:
            remedies.append(f"choose another place with {option}")
        elif error.errno in _NOT_WRITABLE:
            remedies += ["make it writable", "work in a copy elsewhere"]
        text = f"cannot write {path}: {error.strerror or error}" + (f" ({_free_space(path)})" if of_disk else "")
        if remedies:
            text += f"; {', or '.join(remedies)}"
        if chosen_by_user and not of_disk:
            raise InputError(text) from error
        raise RunFailed(text) from error


@contextlib.contextmanager
def named_by(option: str, place: Path) -> Iterator[None]:
    """Report trouble with any file that the block writes as trouble with `place`, which the user named by `option`."""
    with storage_errors(place, option=option):
        try:
            yield
        except RunFailed as error:
            if isinstance(error.__cause__, OSError):
                raise error.__cause__ from None
            raise


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable, which the fsync of a file in it does not do, where there is a way."""
    if os.name == "nt":  # a directory cannot be opened there, and NTFS journals names itself
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _sync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    """Return once a loss of power could not take back what was written."""
    if sys.platform == "darwin":  # whose fsync leaves it in the drive's cache, and in any order
        import fcntl

        with contextlib.suppress(OSError):  # a file system that has no more than fsync
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)


def make_directory(path: Path) -> None:
    """Make `path` and what is missing above it, durably; `FileExistsError` if it is there already."""
    missing = [folder for folder in path.absolute().parents if not folder.exists()]
    for folder in reversed(missing):
        if folder.is_symlink():  # to a disk that is not mounted, say
            raise FileNotFoundError(errno.ENOENT, f"{folder} is a link to {os.readlink(folder)}, which is not there")
        folder.mkdir(exist_ok=True)  # another process may make it in the same instant
        sync_directory(folder.parent)
    path.mkdir()
    sync_directory(path.absolute().parent)


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Replace `path` by `data`: whenever power is lost, the old file is there or the new one.

    Raises `RunFailed` when the disk refuses; then, as after Ctrl-C, only the old file is there.
    """
    # One fixed name: a writer that is killed leaves at most one such file, and the next reuses it.
    partial = path.with_name(f".{path.name}.partial")
    with storage_errors(path):
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                _sync(file.fileno())
            _rename(partial, path)
        except BaseException:
            with contextlib.suppress(OSError):  # the first error is the one to tell of
                partial.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


def _rename(source: Path, target: Path) -> None:
    """Replace `target` by `source`; tried for a second on Windows, which refuses while another process reads it."""
    for _ in range(_TRIES - 1):
        with contextlib.suppress(PermissionError):
            source.replace(target)
            return
        time.sleep(_PAUSE_SECONDS)
    source.replace(target)


def put_new(source: Path, target: Path) -> None:
    """Move a file to a name in one step, but only if nothing has it; else raise `FileExistsError`."""
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links, if the name is free
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        source.replace(target)
    else:
        source.unlink()


def write_text(path: Path, text: str) -> None:
    """`write_atomically` for a text; surrogates, as from a file name that is no UTF-8, are written as escapes."""
    write_atomically(path, text.encode(errors="backslashreplace"))


class AppendFile:
    """A file that only grows, knows how long it is, and can be cut back to an earlier length.

    Unbuffered: what `write` accepted survives a kill; only a loss of power asks for `sync`.
    The methods raise `RunFailed` when the disk refuses.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        with storage_errors(path):
            is_new = not path.exists()
            self._descriptor = os.open(path, flags, 0o666)
            try:
                if is_new:
                    sync_directory(path.parent)
            except OSError:
                self.close()
                raise

    def write(self, data: bytes) -> None:
        """Append all of `data` or nothing: what a full disk has torn is taken back."""
        with storage_errors(self.path):
            before = self.offset()
            rest = memoryview(data)
            try:
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
            except OSError:
                with contextlib.suppress(OSError):  # the first error is the one to tell of
                    os.ftruncate(self._descriptor, before)
                raise

    def offset(self) -> int:
        """Bytes in the file."""
        return os.fstat(self._descriptor).st_size

    def cut_back(self, offset: int) -> None:
        """Drop all bytes after `offset`; `InputError` if the file is shorter than that."""
        check_length(self.path, self.offset(), offset)
        with storage_errors(self.path):
            os.ftruncate(self._descriptor, offset)

    def sync(self) -> None:
        """Return once a loss of power could not take back what was written."""
        with storage_errors(self.path):
            _sync(self._descriptor)

    def close(self) -> None:
        """Close the file; nothing is buffered."""
        os.close(self._descriptor)


def check_length(path: Path, size: int, offset: int) -> None:
    """Raise `InputError` if a file of `size` bytes is shorter than it was when a checkpoint was written."""
    if offset > size:
        raise InputError(
            f"{path} has {size} bytes but had {offset} when the checkpoint was written: "
            "it was damaged or replaced since; put the original back, or move it away to go on without what it held"
        )


def _free_space(path: Path) -> str:
    """The room on the disk that `path` lies on, or would lie on."""
    for folder in (path, *path.absolute().parents):
        with contextlib.suppress(OSError):
            return f"{shutil.disk_usage(folder).free / 1e6:,.1f} MB free there"
    return "free space unknown"
