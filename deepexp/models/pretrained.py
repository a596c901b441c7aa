"""Weights that were trained elsewhere: where they are, how they are downloaded, and whether they fit.

Published weights are torchvision's, kept in torch.hub's cache under their own names, which end in the first digits of
their SHA-256. Files are only ever read as tensors and plain values, so none of them can run code.
"""

import contextlib
import functools
import hashlib
import http.client
import logging
import os
import re
import socket
import sys
import urllib.error
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from deepexp.errors import InputError

log = logging.getLogger(__name__)

Choice = bool | str
"""`auto`, True (ImageNet), False (random), or the path of a file or of a run directory."""

ALEXNET_URL = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
"""torchvision's AlexNet_Weights.IMAGENET1K_V1, written out here since importing torchvision takes seconds."""

_INNER = ("model", "state_dict", "model_state_dict")
"""Under these names checkpoints hold their weights: those of deepexp, of Lightning and timm, of PyTorch's tutorials."""

_TIMEOUT_SECONDS = 8  # for an answer, and between pieces of it
_FIRST_LAYER = {"weight": (64, 3, 11, 11), "bias": (64,)}  # of AlexNet as torchvision has it


def resolve(choice: Choice) -> Choice:
    """Where AlexNet's first layer is taken from, decided before anything is built: True, False or an absolute path.

    `auto` is True if the ImageNet weights are in the cache or can be downloaded; if not, it is False, after a warning.
    Raises `InputError` if True or a path was asked for, and the weights are not available or do not fit.
    """
    if choice == "auto":
        try:
            weights_file(ALEXNET_URL)
        except InputError as error:
            log.warning(
                "NO IMAGENET WEIGHTS: the first layer is random and by default not frozen, and the results are marked "
                "pretrained: random. With model.pretrained=true this would be an error; with false, no warning. "
                "The reason: %s",
                error,
            )
            return False
        return True
    if choice is True:
        weights_file(ALEXNET_URL)  # its checksum says that it fits
    elif choice is not False:
        alexnet_first_layer(choice)
    return str(Path(os.path.expanduser(choice)).absolute()) if isinstance(choice, str) else choice


def origin(choice: Choice) -> str:
    """The word that a run records for a resolved choice: `imagenet`, `random`, or the path."""
    if isinstance(choice, str):
        return choice
    return "imagenet" if choice else "random"


def digest(origin: str | None) -> str | None:
    """SHA-256 of the file that weights came from; None if they came from no file, or it is no longer there."""
    if origin is None or not os.path.isabs(origin):
        return None
    try:
        return _sha256(file_at(Path(origin)))
    except InputError:
        return None


def alexnet_first_layer(choice: Choice) -> dict[str, Tensor]:
    """Weight (64, 3, 11, 11) and bias (64,) of the first convolution of AlexNet.

    True takes torchvision's ImageNet weights; a path, the state dict of torchvision's AlexNet in a file, or a
    checkpoint or run directory of a model that has this layer. Raises `InputError` if they are missing or do not fit.
    """
    path = weights_file(ALEXNET_URL) if choice is True else file_at(Path(os.path.expanduser(str(choice))))
    weights = read_weights(path)
    prefix = "features.0" if "features.0.weight" in weights else "network.features.0"
    layer: dict[str, Tensor] = {}
    for name, shape in _FIRST_LAYER.items():
        key = f"{prefix}.{name}"
        tensor = weights.get(key)
        if not isinstance(tensor, Tensor):
            raise InputError(
                f"pretrained: {path} has no tensor features.0.{name}, the first layer of AlexNet; "
                f"it holds {some(weights)}"
            )
        if tuple(tensor.shape) != shape:
            raise InputError(f"pretrained: {key} in {path} has shape {tuple(tensor.shape)}; AlexNet's is {shape}")
        if not tensor.isfinite().all():
            raise InputError(f"pretrained: {key} in {path} holds values that are not finite")
        layer[name] = tensor
    return layer


def read_weights(path: Path, key: str = "pretrained") -> dict[str, Any]:
    """The state dict in a file, on the CPU: the file's content itself, or the weights in a checkpoint.

    If a run of deepexp has averaged its weights, the averages are taken, as in its tests. `key`: the config key that
    names the file; an `InputError` begins with it.
    """
    try:
        with path.open("rb") as file:
            content = _load_safetensors(path, key) if path.suffix == ".safetensors" else _load(path, file, key)
    except OSError as error:
        several = "; to sweep over several, write choice('A','B')" if "," in str(path) else ""
        raise InputError(f"{key}: {path} cannot be read ({error.strerror or error}{several})") from error
    is_dict = isinstance(content, dict)
    inner = next((content[name] for name in _INNER if is_dict and isinstance(content.get(name), dict)), None)
    weights = content if inner is None else inner
    if not isinstance(weights, dict):
        raise InputError(f"{key}: {path} holds a {type(content).__name__}; a state dict is needed")
    ema = content.get("ema") if inner is not None else None
    averages = ema.get("averages") if isinstance(ema, dict) else None
    weights.update(averages if isinstance(averages, dict) else {})  # in place, to keep torch's versions of modules
    return weights


def _load_safetensors(path: Path, key: str) -> dict[str, Tensor]:
    try:
        import safetensors.torch
    except ImportError:
        raise InputError(f"{key}: {path} needs safetensors, which is not installed; pip install safetensors") from None
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, ValueError) as error:
        raise InputError(f"{key}: {path} is damaged, or no file of safetensors ({error})") from error


def _load(path: Path, file: BinaryIO, key: str) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes torch.load raise almost anything
        raise InputError(
            f"{key}: {path} is damaged, or no file of weights as torch.save writes them "
            f"({type(error).__name__}); give a state dict or a run directory"
        ) from error


def cached_file(url: str) -> Path:
    """Where torch.hub keeps what it downloads from `url`; the file may be missing."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]


def weights_file(url: str) -> Path:
    """Published weights in torch.hub's cache, downloaded if they are missing; the checksum is checked in either case.

    Raises `InputError` if they are not available; without a network that takes seconds.
    """
    path = cached_file(url)
    prefix = _digest_in(path.name)
    if path.exists():
        if not _sha256(path).startswith(prefix):
            raise InputError(f"pretrained: {path} is damaged (its SHA-256 does not begin with {prefix}); delete it")
        return path
    log.info("downloading %s to %s", url, path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _network_timeout(_TIMEOUT_SECONDS):
            torch.hub.download_url_to_file(url, str(path), hash_prefix=prefix, progress=sys.stderr.isatty())
    except (OSError, http.client.HTTPException, RuntimeError) as error:
        raise InputError(
            f"pretrained: {path} is missing, and downloading it from {url} failed ({_reason(error)}); "
            f"put the file there, or set model.pretrained=false"
        ) from error
    return path


def file_at(path: Path, key: str = "pretrained") -> Path:
    """The file of weights at a path that may be a run directory."""
    if not path.is_dir():
        return path
    checkpoint = path / "checkpoints" / "last.pt"
    if not checkpoint.exists():
        raise InputError(f"{key}: {path} is a folder without {checkpoint.relative_to(path)}; give a run or a file")
    return checkpoint


def _digest_in(name: str) -> str:
    """The beginning of the SHA-256 that torchvision puts in a file's name: `alexnet-owt-7be5be79.pth`."""
    found = re.search(r"-([0-9a-f]{8,64})\.", name)
    assert found is not None, f"{name} has no digest in its name"
    return found[1]


def _sha256(path: Path) -> str:
    try:
        stat = path.stat()
        return _sha256_of(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise InputError(f"pretrained: {path} cannot be read ({error.strerror})") from error


@functools.cache
def _sha256_of(path: Path, _size: int, _modified: int) -> str:
    """The SHA-256 of a file, read again only if it has changed: ImageNet's weights take half a second."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _network_timeout(seconds: float) -> Iterator[None]:
    """Set the default timeout of sockets, which torch.hub uses; without one, it would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _reason(error: Exception) -> str:
    """The cause in a few words; urllib wraps what the system said."""
    if isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError):
        return str(error.reason)
    return str(error) or type(error).__name__


def some(names: Collection[object]) -> str:
    """The first few names, for a message."""
    shown = [str(name) for name in names][:3]
    return ", ".join(shown) + (", …" if len(names) > len(shown) else "") if shown else "nothing"
