"""What a checkpoint was trained with, saved in it: the config of its run, and digests of the user's own code.

So a config that was edited since, or the checkpoint of another run, is noticed before the two are used together.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import re
import sys
import zipfile
import zipimport
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from deepexp import paths, schema
from deepexp.disk.yaml_words import as_yaml
from deepexp.errors import raise_any
from deepexp.schema import Component, TrainConfig, as_written
from deepexp.user_code import own_code, targets, trust

HOW = frozenset({"data.mode", "data.workers", "data.cache", "data.download", "log_every", "checkpoint.every_minutes"})
"""Keys that say how a run is carried out, and do not change its result."""

MAY_CHANGE = ("epochs", "max_steps", "max_minutes", "early_stop", "data.root", *sorted(HOW))
"""Keys that may be given anew when a run is resumed."""

FREE = {*MAY_CHANGE, "device", "threads", "name", "output_dir", "resume", "dry_run"}
"""Keys that are no part of what a checkpoint was trained with; `provenance.json` tells its devices and threads."""


@dataclass(frozen=True)
class Identity:
    """What a run, or its part up to a checkpoint, was trained with."""

    config: dict[str, str]
    """Dotted key → its value as YAML has it, without the keys that may change."""
    code: dict[str, str]
    """Module of the user's own → SHA-256 of its file; package that was installed for a `_target_` → its version."""

    @classmethod
    def of(cls, config: TrainConfig) -> "Identity":
        """The identity of a run with this config, whose targets have been imported."""
        return cls(_texts(config, FREE), _code(config))

    @classmethod
    def from_checkpoint(cls, content: dict[str, Any]) -> "Identity | None":
        """The identity in a checkpoint; None in an old one without it. `ValueError` if it is damaged."""
        kept = content.get("identity")
        if kept is None:
            return None
        if not isinstance(kept, dict) or not all(_is_texts(kept.get(part)) for part in ("config", "code")):
            raise ValueError("what it was trained with cannot be read from it")
        return cls(kept["config"], kept["code"])

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"config": self.config, "code": self.code}

    def other_config(self, config: TrainConfig) -> list[str]:
        """`optim.lr is 0.2 and was 0.1` for each key with another value in `config`.

        Keys of deepexp that the checkpoint lacks are left out: they were added in a later version.
        """
        before, now = self.config, _texts(config, FREE)
        new = {key for key, _, _ in schema.describe_keys()} - before.keys()
        if not any(key.startswith("loss.") for key in before):
            new |= {key for key in now if key.startswith("loss.")}
        return _differing(before, now, {*new, *FREE})

    def other_code(self, before: "Identity") -> list[str]:
        """The modules and packages that have changed since `before`.

        Names that only one of the two has are left out: which modules of a package are imported also depends on what
        else the process has done.
        """
        return [name for name in self.code if self.code[name] != before.code.get(name, self.code[name])]


def _is_texts(part: Any) -> bool:
    return isinstance(part, dict) and all(isinstance(text, str) for item in part.items() for text in item)


def differing(before: TrainConfig, now: TrainConfig, but_for: Collection[str]) -> list[str]:
    """`optim.lr is 0.2 and was 0.1` for each key that has another value in `now` than in `before`."""
    return _differing(_texts(before, but_for), _texts(now, but_for), but_for)


def _differing(before: Mapping[str, str], now: Mapping[str, str], but_for: Collection[str]) -> list[str]:
    return [
        f"{key} is {now.get(key, 'not there')} and was {before.get(key, 'not there')}"
        for key in {**before, **now}
        if key not in but_for and now.get(key) != before.get(key)
    ]


def _texts(config: TrainConfig, but_for: Collection[str]) -> dict[str, str]:
    """Dotted key → its value as YAML has it."""
    return {key: as_yaml(value) for key, value in _flat(config, "") if key not in but_for}


def _flat(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """(dotted key, plain value) of everything in a typed config."""
    for item in dataclasses.fields(node):
        value = getattr(node, item.name)
        if isinstance(value, Component):
            yield f"{prefix}_target_", value.target
            yield from ((f"{prefix}{name}", argument) for name, argument in value.arguments.items())
        elif dataclasses.is_dataclass(value):
            yield from _flat(value, f"{prefix}{item.name}.")
        elif isinstance(value, list):
            yield prefix + item.name, as_written(value)
        else:
            yield prefix + item.name, value


def refuse_changed(config: TrainConfig) -> None:
    """Raise `InputError` if a module that the targets import from was edited since, as happens in notebooks.

    Otherwise the run would record the code on the disk, but be trained with the code in memory. The modules of the
    targets themselves are checked by `targets.find`.
    """
    targets_own = {name for _, name in _origins(config)}
    digests = {name: digest for own in targets_own for name, digest in _digests(own).items()}
    lines = []
    for name in sorted(digests.keys() - targets_own):
        held = _held(sys.modules[name])
        imported, then = _as_imported.setdefault(name, (held.get("__spec__"), digests[name]))
        if imported is not held.get("__spec__"):  # it was reloaded
            _as_imported[name] = (held.get("__spec__"), digests[name])
        elif then != digests[name]:
            lines.append(
                f"{paths.shown(Path(held['__file__']))} has changed since it was imported; restart Python, or "
                f"importlib.reload(sys.modules[{name!r}]) and then what imports from it"
            )
    raise_any(lines)


_as_imported: dict[str, tuple[Any, str]] = {}
"""Module → the specification that it was imported by, and the digest of its file then."""


def _code(config: TrainConfig) -> dict[str, str]:
    """The `code` of `Identity`: that of the targets of a config, without deepexp's and torch's."""
    found: dict[str, str] = {}
    for package, name in _origins(config):
        found |= _digests(name) or _version(package)
    library = getattr(targets.of("model", config.model.component), "package", None)
    return found | (_version(library) if isinstance(library, str) else {})


def _origins(config: TrainConfig) -> Iterator[tuple[str, str]]:
    """(package, module) of the imported targets of a config that are neither deepexp's nor torch's."""
    for node in (config.model, config.data, config.optim, config.schedule, config.augment, config.loss):
        for target in (node.component.target, *trust.targets_in(node.component.arguments)):
            module = targets.module_of(target)
            if module is not None and not own_code.is_of_deepexp_or_torch(target):
                yield target.partition(".")[0], module.__name__


_IMPORT = re.compile(r"(?:^|[;:])[ \t]*(?:from|import)[ \t]+([\w.]+)", re.MULTILINE)


def _digests(name: str) -> dict[str, str]:
    """Module → digest, of a module of the user's own and of the user's other modules that it imports from.

    Attributes of the objects in a module are not read, since that may run code. Unreadable files are left out.
    """
    found: dict[str, str] = {}
    waiting, seen = [name], {name}
    while waiting:
        name = waiting.pop()
        held = _held(sys.modules.get(name))
        file = held.get("__file__")
        if own_code.is_of_deepexp_or_torch(name) or not isinstance(file, str) or not own_code.is_the_users(Path(file)):
            continue
        try:
            source = _source(file, held.get("__loader__"))
        except (OSError, KeyError, zipfile.BadZipFile):  # it was removed, or is no file: torch.ops says it is _ops.py
            continue
        found[name] = hashlib.sha256(source).hexdigest()
        new = _imported(source, held) - seen
        waiting += new
        seen |= new
    return dict(sorted(found.items()))


def _source(file: str, loader: Any) -> bytes:
    """The present content of a module's file, which may lie in a zip: the importer may have cached an older zip."""
    if not isinstance(loader, zipimport.zipimporter):
        return Path(file).read_bytes()
    with zipfile.ZipFile(loader.archive) as archive:
        return archive.read(Path(file).relative_to(loader.archive).as_posix())


def _imported(source: bytes, held: dict[str, Any]) -> set[str]:
    """The names of the modules that a module holds, and of those that its source imports something from."""
    names = {name for value in list(held.values()) if isinstance(name := _held(value).get("__name__"), str)}
    for name in _IMPORT.findall(source.decode(errors="replace")):
        with contextlib.suppress(ImportError):  # a line in a string may only look like an import
            names.add(importlib.util.resolve_name(name, held.get("__package__")))
    return names


def _held(value: Any) -> dict[str, Any]:
    """The namespace of a module, empty for anything else; read without loading a lazy module."""
    return object.__getattribute__(value, "__dict__") if issubclass(type(value), ModuleType) else {}


def _version(package: str) -> dict[str, str]:
    """The name and version of the distribution that an installed package belongs to; empty if that is not known.

    `packages_distributions` would parse the file lists of all packages: a second in an environment of a hundred.
    """
    places = re.compile(rf"^{re.escape(package)}(?:$|[/.])", re.MULTILINE)
    owners = [
        distribution.name
        for distribution in importlib.metadata.distributions()
        if any(places.search(distribution.read_text(list_of) or "") for list_of in ("top_level.txt", "RECORD"))
    ]
    return {name: str(importlib.metadata.version(name)) for name in owners}
