"""Published files: found in the data root, or downloaded and checked.

A file appears under its own name only once its checksum is right, so an interrupted download cannot be mistaken for
it. Which files a data set needs is said in the set's own module.
"""

import contextlib
import hashlib
import http.client
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock

from deepexp.errors import InputError
from deepexp.text.console import progress

_TIMEOUT_SECONDS = 8  # for an answer and between pieces of it; without a network, the user waits no longer than this
_PIECE_BYTES = 1 << 18
WITHOUT_NETWORK = "data=digits needs no download"


def damaged(path: Path, why: str) -> InputError:
    """The error for a file that is not the published one."""
    return InputError(f"{path}: damaged ({why}); remove it, and it will be downloaded again")


def check_root(root: Path) -> None:
    """`InputError` if the data root is a file."""
    if root.exists() and not root.is_dir():
        raise InputError(f"data.root: {root} is a file; give the folder where data sets are, or are to be put")


def check_download(path: Path, allowed: bool, keep_out: bool) -> None:
    """`InputError` if the missing `path` must not be downloaded.

    `allowed`: `data.download`; `keep_out`: a stranger may have chosen the folder.
    """
    if not allowed:
        raise InputError(f"{path} is missing, and data.download is false; {WITHOUT_NETWORK}")
    if keep_out:
        raise InputError(
            f"{path} is missing; nothing is downloaded to a folder that is named in the saved config only: "
            f"give data.root=DIR to have it there"
        )


def fetch(path: Path, urls: Sequence[str], md5: str, what: str) -> None:
    """Make sure that the file `path` of the data set `what` is there, downloading it from the first URL that has it.

    Processes that want the same file wait for the one that downloads it. `InputError` if no URL gives the file; folders
    that were made for it are then removed, as they may have been named by mistake.
    """
    if path.exists():
        return
    made = [folder for folder in path.parents if not folder.exists()]
    lock = path.parent / f".{path.name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)  # a process that failed meanwhile has removed it
                _download(path, urls, md5, what)
    except InputError:
        lock.unlink(missing_ok=True)  # a process that still waits for it fails too, or downloads the file once more
        with contextlib.suppress(OSError):  # another process has put something into it
            for folder in made:
                folder.rmdir()
        raise
    except OSError as error:
        raise InputError(
            f"{what}: {path} is missing, and cannot be written there ({error.strerror or error}); "
            f"set data.root to a folder that can be written to, or to where the files lie"
        ) from error


def _download(path: Path, urls: Sequence[str], md5: str, what: str) -> None:
    failures = []
    for url in urls:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        part = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                _receive(url, file, md5, what)
            part.chmod(0o644)  # mkstemp makes it private
            part.replace(path)
            return
        except _Unavailable as error:
            failures.append(f"{url}: {error}")
        finally:
            part.unlink(missing_ok=True)
    raise InputError(
        f"{what}: {path} is missing, and downloading it failed ({'; '.join(failures)}). "
        f"Put the file there, or set data.root to the folder that has it; {WITHOUT_NETWORK}"
    )


class _Unavailable(Exception):
    """Why a URL did not give the file."""


def _receive(url: str, file: BinaryIO, md5: str, what: str) -> None:
    """Write what the URL gives, with a progress bar, and compare its checksum."""
    digest = hashlib.md5(usedforsecurity=False)
    with _open(url) as response:
        length = response.headers.get("Content-Length")
        with progress(f"{what}: {url.rsplit('/', 1)[-1]}", int(length) if length else None, "B") as bar:
            while piece := _piece(response):
                digest.update(piece)
                file.write(piece)
                bar.advance(len(piece))
    if digest.hexdigest() != md5:
        raise _Unavailable(f"what came is not the published file (MD5 {digest.hexdigest()} instead of {md5})")


def _open(url: str) -> http.client.HTTPResponse:
    request = urllib.request.Request(url, headers={"User-Agent": "deepexp"})
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        raise _Unavailable(f"the server answers {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise _Unavailable(str(error.reason)) from error
    except (OSError, http.client.HTTPException) as error:
        raise _Unavailable(str(error) or type(error).__name__) from error
    return response


def _piece(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(_PIECE_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _Unavailable(f"broken off ({str(error) or type(error).__name__})") from error
