"""Decoded pictures on disk: made once, memory-mapped afterwards, made again when a file changes.

A cache folder holds `train.npy`, `test.npy` and perhaps `val.npy` (samples, height, width, channels; uint8), and
`manifest.json` with their checksums. Its name is a digest of the list of files, so that a cache is never used for other
files, and it gets that name only once it is complete. Caches of several splits of a folder lie side by side; a new one
replaces older ones of the same split, whose files have changed since.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout

from deepexp.data import decode
from deepexp.data.decode import show
from deepexp.data.folder_scan import Listing, PictureFile
from deepexp.data.source import Shape, Split, Splits
from deepexp.errors import InputError, RunFailed
from deepexp.process.spawning import signals_held_back
from deepexp.runtime import available_cores
from deepexp.text.console import progress
from deepexp.text.units import amount

log = logging.getLogger(__name__)

_FORMAT = 1
_CHUNK_BYTES = 1 << 22  # of decoded pixels that one process hands back at a time
_MAX_CHUNK = 64  # pictures: so that the progress bar moves
_BUILDING = "building-"  # prefix of the names of incomplete cache folders
_SHOWN = 5  # broken pictures that are named


def open_or_build(
    root: Path, listing: Listing, shape: Shape, where: Path | None, keep_out_of: Collection[str]
) -> Splits:
    """All splits in the order of the listing, memory-mapped, decoding the pictures if no cache has them.

    `where`: the folder for caches; None: beside the data if that can be written to, else the user's cache folder.
    `keep_out_of`: which of `root` and `cache` a stranger may have chosen; a cache there is read, but none is made.
    """
    homes = [where] if where is not None else [_beside(root), *_of_user()]
    is_foreign = ("cache" if where is not None else "root") in keep_out_of
    name = f"{root.name[:40] or 'root'}-{_digest(_FORMAT, shape, str(root))[:12]}"
    cache = _name_of_split(listing) + _digest(listing.digest(root))[:16]
    for home in dict.fromkeys([*homes, *_of_user()]):
        found = _read(home / name / cache, listing)
        if found is not None:
            log.info("decoded pictures are read from %s", show(home / name / cache))
            return found
    writable = [home for home in (_of_user() if is_foreign else homes) if _is_writable(home)]
    if not writable:
        raise InputError(
            f"decoded pictures cannot be kept in {' or '.join(show(home) for home in homes)}: "
            f"not writable; set data.cache to a folder that is"
        )
    home = writable[0]
    try:
        return _build(home / name / cache, listing, shape)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{show(home / name)}: decoded pictures cannot be written there ({reason})") from error


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _name_of_split(listing: Listing) -> str:
    """The prefix of the names of a split's caches, with a dash; empty for a folder with its own train/ and test/."""
    if listing.split is not None or listing.table is not None:
        return f"{_digest(*(listing.split or ()), *filter(None, [listing.table]))[:8]}-"
    return "val-" if listing.val else ""


def _beside(root: Path) -> Path:
    """Not inside: other programs would take it for a class."""
    return root.parent / ".deepexp-cache"


def _of_user() -> list[Path]:
    """The user's cache folder; none for a user without a home, as in containers."""
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return [] if caches.startswith("~") else [Path(caches) / "deepexp"]


def _is_writable(home: Path) -> bool:
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            return True
    except OSError:
        return False


def _read(folder: Path, listing: Listing) -> Splits | None:
    """The splits in a cache; None if there is none, it is damaged, or another process is removing it."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        for name in (f"{split}.npy" for split in listing.splits()):
            with (folder / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != manifest["sha256"][name]:
                    log.warning("%s is damaged; the pictures are decoded again", show(folder / name))
                    return None
        return _map(folder, listing)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be used (%s); the pictures are decoded again", show(folder), error)
        return None


def _map(folder: Path, listing: Listing) -> Splits:
    splits = listing.splits().items()
    train, test, *val = [Split.mapped(folder / f"{name}.npy", _labels(files)) for name, files in splits]
    return (train, test, val[0]) if val else (train, test)


def _labels(files: list[PictureFile]) -> torch.Tensor:
    return torch.tensor([file.label for file in files])


def _build(target: Path, listing: Listing, shape: Shape) -> Splits:
    """Decode into a temporary folder and rename it; one of several processes does so, and the others wait.

    Caches are removed only under the lock, so one that is opened under it cannot disappear meanwhile.
    """
    folder = target.parent
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder / "lock"):
        found = _read(target, listing)
        if found is not None:
            return found
        _remove_outdated(folder, _name_of_split(listing))
        temporary = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=folder))
        try:
            log.info("pictures are decoded, once, into %s", show(target))
            _decode_all(temporary, listing, shape)
            temporary.chmod(0o755)  # mkdtemp makes it private
            temporary.rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return _map(target, listing)


def _remove_outdated(folder: Path, split: str) -> None:
    """Remove a split's caches of files that have changed since, and what killed processes have left."""
    # "": made when the folder had its own train/ and test/.
    outdated = {split, "", _BUILDING}
    for old in folder.iterdir():
        if old.is_dir() and "".join(old.name.rpartition("-")[:2]) in outdated:
            shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("waiting for another process that is decoding the same pictures (%s)", show(path))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _decode_all(folder: Path, listing: Listing, shape: Shape) -> None:
    needed = sum(map(len, listing.splits().values())) * int(np.prod(shape))
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{show(folder.parent)}: decoded pictures need {amount(needed, 'B')} and {amount(free, 'B')} are free; "
            f"set data.cache to a folder with more space, or data.size to something smaller"
        )
    broken: list[tuple[str, str]] = []
    sha256 = {}
    with _processes() as pool:
        for split, files in listing.splits().items():
            target = folder / f"{split}.npy"
            sha256[target.name] = _decode_split(pool, target, files, shape, broken)
    if broken:
        raise InputError(_name_broken(broken))
    manifest = {"format": _FORMAT, "shape": shape, "sha256": sha256}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _name_broken(broken: list[tuple[str, str]]) -> str:
    named = [f"{show(path)}: {reason}" for path, reason in broken[:_SHOWN]]
    if len(broken) == 1:
        return f"{named[0]}; replace or remove this picture"
    if len(broken) > _SHOWN:
        named.append(f"… and {len(broken) - _SHOWN} more")
    return "\n".join([f"{len(broken)} pictures cannot be read; replace or remove them:", *named])


@contextlib.contextmanager
def _processes() -> Iterator[concurrent.futures.Executor]:
    """A process for each core. On Linux they are forks, which start at once and do not run the user's script again."""
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    pool = concurrent.futures.ProcessPoolExecutor(available_cores(), context, decode.start_process)
    try:
        yield pool
    except BrokenProcessPool as error:
        raise RunFailed("a process that decoded pictures was killed, most likely for lack of memory") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _decode_split(
    pool: concurrent.futures.Executor,
    target: Path,
    files: list[PictureFile],
    shape: Shape,
    broken: list[tuple[str, str]],
) -> str:
    """Write one split and return the file's SHA-256; broken pictures are added to `broken`."""
    channels, height, width = shape
    chunk = max(1, min(_MAX_CHUNK, _CHUNK_BYTES // (channels * height * width)))
    chunks = [[file.path for file in files[start : start + chunk]] for start in range(0, len(files), chunk)]
    with signals_held_back():  # this starts the processes
        results = pool.map(decode.decode_many, chunks, [shape] * len(chunks))
    lost_colour = transparent = 0
    with target.open("wb") as file, progress(f"decoding {target.stem} pictures", len(files), "pictures") as bar:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(files), height, width, channels)}
        np.lib.format.write_array_header_1_0(file, header)
        for paths, (pixels, broken_here, lost_here, transparent_here) in zip(chunks, results, strict=True):
            file.write(pixels)
            broken.extend(broken_here)
            lost_colour += lost_here
            transparent += transparent_here
            bar.advance(len(paths))
    if lost_colour:
        log.warning(
            "%d of %d %s pictures are in colour and become grey; data.channels=3 keeps colours",
            lost_colour,
            len(files),
            target.stem,
        )
    if transparent:
        log.warning(
            "%d of %d %s pictures are transparent in places, which is left out", transparent, len(files), target.stem
        )
    with target.open("rb") as written:
        return hashlib.file_digest(written, "sha256").hexdigest()
