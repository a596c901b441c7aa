"""Neuro-surgery: layers of a trained network, put into another one before its training begins."""

import itertools
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepexp.errors import InputError, raise_any
from deepexp.models.pretrained import file_at, read_weights, some
from deepexp.models.transfer import check_finite, dense, unwrapped
from deepexp.text.suggest import branches, did_you_mean
from deepexp.text.units import first_few

log = logging.getLogger(__name__)

_WILDCARD = re.compile(r"(\*|\?|\[[^\]]+\])")


@dataclass(frozen=True)
class Graft:
    """Tensors of a run directory, a checkpoint or a state dict, and where they go.

    `layers`: a glob on their names there. `to`: their names in the model, in which each `*` stands for what a wildcard
    of `layers` matched, in the same order: `blocks.*` to `stages.0.*`; None: the same names.
    """

    place: Path
    layers: str
    to: str | None = None


def operate(model: nn.Module, grafts: Sequence[Graft]) -> None:
    """Copy layers into a model; see `fitting`. A warning names layers of which a part keeps its initial values."""
    taken = fitting(model, grafts)
    own = model.state_dict()
    with torch.no_grad():
        for name, tensor in taken.items():
            own[name].copy_(tensor)
    layers = set(map(_layer, taken))
    left = [name for name in own if name not in taken and _layer(name) in layers]
    if left:
        log.warning("surgery: of layers that are taken in part, these keep their initial values: %s", first_few(left))


def fitting(model: nn.Module, grafts: Sequence[Graft]) -> dict[str, Tensor]:
    """What a model takes from elsewhere, by the names of its own tensors. It may be on the meta device.

    Raises `InputError` with a line for each graft whose weights are not available, that takes nothing, or whose tensors
    have no place in the model, other shapes, or values that are not finite.
    """
    own = model.state_dict(keep_vars=True)
    taken: dict[str, Tensor] = {}
    problems: list[str] = []
    read: dict[Path, dict[str, Any]] = {}  # each file once, though several grafts may be of it
    for index, graft in enumerate(grafts):
        try:
            found = _transplants(graft, own, f"surgery[{index}]", read)
        except InputError as error:
            problems.append(str(error))
            continue
        problems += [f"surgery[{index}].to: {name} is taken from elsewhere already" for name in found if name in taken]
        taken.update(found)
    raise_any(problems)
    return taken


def _transplants(graft: Graft, own: Mapping[str, Any], key: str, read: dict[Path, dict[str, Any]]) -> dict[str, Tensor]:
    """What one graft puts where; `read`: the weights in files, to which those of its own are added."""
    path = file_at(graft.place, f"{key}.from")
    if path not in read:
        read[path] = unwrapped(read_weights(path, f"{key}.from"), own)
    tensors = {name: value for name, value in read[path].items() if isinstance(name, str) and isinstance(value, Tensor)}
    names = _renamed(graft, list(tensors), key, path)
    lacking = [new for new in names.values() if not isinstance(own.get(new), Tensor)]
    if lacking:
        raise InputError(
            f"{key}: this model has no {first_few(lacking)}{did_you_mean(lacking[0], list(own))}; it has {some(own)}"
        )
    taken = {new: dense(tensors[name], name, path, key) for name, new in names.items()}
    for name, new in names.items():
        if taken[new].shape != own[new].shape:
            raise InputError(
                f"{key}: does not fit: {name} is {tuple(taken[new].shape)} in {path}, "
                f"and {new} {tuple(own[new].shape)} in this model"
            )
        check_finite(taken[new], own[new], name, path, key)
    return taken


def _renamed(graft: Graft, names: Sequence[str], key: str, path: Path) -> dict[str, str]:
    """Name there → name in the model, for each that the glob of a graft matches."""
    pieces = _WILDCARD.split(graft.layers)  # text and wildcards by turns
    gaps = None if graft.to is None else graft.to.split("*")
    if gaps is not None and len(gaps) != len(pieces) // 2 + 1:
        wildcards = " ".join(pieces[1::2]) or "none"
        raise InputError(
            f"{key}.to: {graft.to!r} is not allowed; it needs a * for each wildcard of layers ({wildcards}), "
            "which stands for what that matched"
        )
    glob = _compiled(pieces, f"{key}.layers")
    matches = {name: match for name in names if (match := glob.fullmatch(name))}
    renamed = {
        name: name if gaps is None else gaps[0] + "".join(map("".join, zip(match.groups(), gaps[1:], strict=True)))
        for name, match in matches.items()
    }
    if not renamed:
        meant = did_you_mean(graft.layers, [*branches(names), *names])
        raise InputError(f"{key}.layers: {graft.layers!r} matches no tensor of {path}{meant}; it holds {some(names)}")
    twice = [new for new, count in Counter(renamed.values()).items() if count > 1]
    if twice:
        raise InputError(f"{key}.to: {graft.to!r} is the name of several tensors then: {first_few(twice)}")
    return renamed


def _compiled(pieces: Sequence[str], key: str) -> re.Pattern[str]:
    """A glob, in pieces of text and wildcards by turns, as a regular expression with a group for each wildcard."""
    regular = {"*": ".*", "?": "."}
    groups = [f"({regular.get(piece, piece.replace('[!', '[^', 1))})" for piece in pieces[1::2]]
    texts = map(re.escape, pieces[::2])
    try:
        return re.compile("".join(map("".join, itertools.zip_longest(texts, groups, fillvalue=""))))
    except re.error as error:
        raise InputError(f"{key}: {''.join(pieces)!r} is no glob ({error})") from error


def _layer(name: str) -> str:
    return name.rpartition(".")[0]
