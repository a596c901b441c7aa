"""The YAML files behind a config: whether one has changed, and the file and line of something wrong."""

import contextlib
import functools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from deepexp import paths
from deepexp.config import catalogue, presets
from deepexp.text.suggest import did_you_mean

CONFIG = "train"
"""What Hydra calls conf/train.yaml, from which with its groups every config is composed."""

_CHOICE = "a preset chooses an option with"


@dataclass(frozen=True)
class ConfFile:
    """A YAML file and the place in the config that its keys went to (`model`; empty for the top)."""

    path: Path
    package: str

    def line_of(self, key: str) -> int | None:
        """The line, from 1, on which a dotted key of the config is written in this file; None for a whole mapping."""
        if self.package and not key.startswith(f"{self.package}."):
            return None
        inner = key.removeprefix(f"{self.package}.") if self.package else key
        node = yaml.compose(self.path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        line = None
        for part in re.split(r"[.\[]", inner.replace("]", "")):
            line, node = _child(node, part)
            if line is None:
                return None
        return None if isinstance(node, yaml.MappingNode) else line


def files_of(overrides: Sequence[str], loader: ConfigLoader) -> list[ConfFile]:
    """The files of a config that can be composed, Hydra's own left out; later ones override earlier ones."""
    listed = loader.compute_defaults_list(CONFIG, list(overrides), RunMode.RUN).defaults
    found = [(path_of(str(default.config_path), loader), default.package or "") for default in listed]
    return [ConfFile(path, package) for path, package in found if path is not None]


State = tuple[Any, ...]
"""Equal at two times if nothing that a config is composed of has changed in between."""


_File = tuple[str, int, int, int, int]
"""Path, time of the last write in ns, bytes, time of the last change in ns, inode."""


def state(loader: ConfigLoader) -> State | None:
    """Which files there are, and when they were last written; None if a config depends on more than its files.

    It does if a defaults list of the user's calls a resolver, as in `- model: ${oc.env:MODEL}`. Also None if there
    are so many files that composing anew is faster, as below a link to a folder of data.
    """
    found = [_stats(source.path) for source in loader.get_sources() if source.scheme() == "file"]
    if None in found:
        return None
    files = [file for some in found if some for file in some]
    ours = f"{paths.CONF_DIR}{os.sep}"
    if any(_may_ask_a_resolver(file) for file in files if not file[0].startswith(ours)):
        return None
    return tuple(files), _registered(ConfigStore.instance().repo)


_MOST_ENTRIES = 10_000
"""How many files and folders are listed at most, which takes a tenth of a second."""


def _stats(folder: str) -> list[_File] | None:
    """What is known of each YAML file below a folder, in order; None if there are too many files and folders."""
    found = []
    entries = 0
    seen: set[str] = set()  # a link may lead back up
    for above, folders, names in os.walk(folder, followlinks=True):
        if (here := os.path.realpath(above)) in seen:
            folders.clear()
            continue
        seen.add(here)
        entries += len(folders) + len(names)
        if entries > _MOST_ENTRIES:
            return None
        folders.sort()
        for name in sorted(names):
            if name.endswith((".yaml", ".yml")):
                path = os.path.join(above, name)
                with contextlib.suppress(OSError):  # a link that leads nowhere: it cannot be read either
                    stat = os.stat(path)
                    found.append((path, stat.st_mtime_ns, stat.st_size, stat.st_ctime_ns, stat.st_ino))
    return found


def _may_ask_a_resolver(file: _File) -> bool:
    """Whether a file could call a resolver in its defaults list; true where it cannot be read."""
    try:
        return _has_defaults_and_a_resolver(file)
    except OSError:
        return True


@functools.lru_cache(maxsize=1000)
def _has_defaults_and_a_resolver(file: _File) -> bool:
    text = Path(file[0]).read_bytes()
    return b"defaults" in text and re.search(rb"\$\{[^}]*:", text) is not None


def _registered(repo: Mapping[str, Any]) -> State:
    """The configs that programs have put into Hydra's store."""
    return tuple((name, _registered(it) if isinstance(it, dict) else it) for name, it in sorted(repo.items()))


def path_of(name: str, loader: ConfigLoader) -> Path | None:
    """The file of a config that Hydra calls by a name such as `model/resnet`; None if it is not one of deepexp's."""
    for source in loader.get_sources():
        if source.scheme() == "file" and source.is_config(name):
            return Path(os.path.normpath(f"{source.path}/{name.removesuffix('.yaml')}.yaml"))
    return None


def unresolved(config: DictConfig) -> dict[str, str]:
    """What is wrong with each value, by its key, that is missing (`???`) or whose interpolation leads nowhere."""
    found = {}
    for key, value in _leaves(OmegaConf.to_container(config, resolve=False)):
        if value == "???":
            found[key] = "has no value yet (???)"
        elif isinstance(value, str) and "${" in value:
            try:
                OmegaConf.select(config, key)
            except OmegaConfBaseException as error:
                found[key] = f"{value} cannot be resolved: {first_line(error)}"
    return found


def place_of(key: str, files: Sequence[ConfFile]) -> str:
    """`conf/model/mine.yaml:3: `, the place at which a key got its value; empty if that is in none of the files."""
    for file in reversed(files):
        line = file.line_of(key)
        if line is not None:
            return f"{paths.shown(file.path)}:{line}: "
    return ""


def explain(error: BaseException, chosen: Sequence[Path], loader: ConfigLoader) -> str:
    """One line for what Hydra raised while it read and merged YAML, with file and line where they can be found.

    `chosen`: the files of the options that were chosen, which are searched if the error names no place.
    """
    if isinstance(error, yaml.MarkedYAMLError):
        return _marked(error, None)
    if isinstance(error, MissingConfigException):
        return _missing(error, chosen, loader)
    theirs = _user_files()
    mine = [path for path in chosen if path in theirs]
    if isinstance(error, RecursionError) and mine:
        return f"{paths.shown(mine[-1])}: its defaults list leads back to it; an option builds on another with '- NAME'"
    suspects = chosen if isinstance(error, HydraException) else [*chosen, *theirs]
    for path in suspects:
        if line := _unreadable(path):
            return line
    if isinstance(error, HydraException) and (headless := _headless_preset(chosen)):
        return no_header(headless)
    message = " ".join(_lines(error)[:2] or _lines(error.__cause__ or error)[:1])
    message = _plainly(message, str(error))
    named = re.match(r"In '?([\w/]+)'?: (.*)", message)
    if named and (culprit := path_of(named[1], loader)):
        return f"{paths.shown(culprit)}: {named[2]}"
    return f"{paths.shown(mine[-1])}: {message}" if mine else message


def _plainly(message: str, whole: str) -> str:
    """The message without Hydra's class names, and without its advice, which leads to further errors here."""
    if unknown := re.search(r"Key '.*' not in .*\n\s*full_key: (\S+)", whole):
        message = re.sub(r"ConfigKeyError raised while .*", f"{unknown[1]}: there is no such key", message)
    choosing = rf"(Could not override '{presets.GROUP}/|Multiple values for )([\w/]+)[@.].*"
    message = re.sub(choosing, rf"{_CHOICE} '- override /\2: NAME'", message)
    unchosen = r"Could not override ('.*?')\. No match.*"
    groups = ", ".join(catalogue.defaults())
    return re.sub(unchosen, rf"no defaults list has the group \1; one of {groups}", message)


def _headless_preset(chosen: Sequence[Path]) -> Path | None:
    """A preset without its header: what it overrides is then sought below `experiment`, and not found."""
    for path in chosen:
        text = path.read_text(encoding="utf-8", errors="replace").lstrip()
        if path.parent.name == presets.GROUP and not re.match(r"#\s*@package\s+_global_\s*$", text, re.MULTILINE):
            return path
    return None


def no_header(preset: Path | None) -> str:
    """The message about a preset without its header, whose keys would land below `experiment`."""
    where = f"{paths.shown(preset)}:1: " if preset else ""
    return f"{where}a preset begins with the line '# @package _global_', then its comment"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, without what OmegaConf puts before a resolver's own words."""
    line = (_lines(error) or [type(error).__name__])[0]
    return re.sub(r"^\w+ raised while resolving interpolation: ", "", line)


def _lines(error: BaseException) -> list[str]:
    found = [line.strip() for line in str(error).splitlines()]
    return [line for line in found if line and not line.startswith(("full_key:", "object_type="))]


def _user_files() -> list[Path]:
    conf = paths.user_conf_dir()
    return sorted(path for path in conf.rglob("*.yaml") if path.is_file()) if conf else []


def _missing(error: MissingConfigException, suspects: Sequence[Path], loader: ConfigLoader) -> str:
    """A line about a defaults list that names a missing file: where, and which file may have been meant."""
    missing = str(error.missing_cfg_file)
    group, _, name = missing.rpartition("/")
    options = loader.get_group_options(group, ObjectType.CONFIG) if group else []
    meant = group.removeprefix(f"{presets.GROUP}/")
    hint = did_you_mean(name, options)
    if meant != group and meant in loader.list_groups(""):
        hint = f"; {_CHOICE} '- override /{meant}: {name}'"
    parent = re.match(r"In '([\w/]+)'", first_line(error))
    named_in = path_of(parent[1], loader) if parent else None
    for path in [*suspects, *([named_in] if named_in else [])]:
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if re.search(rf"\b{re.escape(name)}\b", line):
                return f"{paths.shown(path)}:{number}: there is no {missing}{hint}"
    return f"there is no {missing}{hint}"


def _unreadable(path: Path) -> str | None:
    """A line if a file is not YAML that can be a config."""
    try:
        loaded = OmegaConf.load(path)
    except yaml.MarkedYAMLError as error:
        return _marked(error, path)
    except (yaml.YAMLError, ValueError, OSError, OmegaConfBaseException) as error:
        return f"{paths.shown(path)}: {first_line(error)}"
    if not isinstance(loaded, DictConfig):
        return f"{paths.shown(path)}: is a list; what is needed are lines of KEY: VALUE"
    return None


def _marked(error: yaml.MarkedYAMLError, path: Path | None) -> str:
    mark = error.problem_mark or error.context_mark
    assert mark is not None  # a marked error has one of the two
    problem = str(error.problem)
    if r"'\t'" in problem:
        problem = "a tab stands where only blanks may"
    elif problem == "mapping values are not allowed here":
        problem = (
            "KEY: VALUE stands where it cannot (its indentation, the line above, or a text with ': ' without quotes)"
        )
    elif problem == "could not find expected ':'" and error.context_mark:
        mark, problem = error.context_mark, "is no KEY: VALUE, with a colon and a blank"
    return f"{paths.shown(path or Path(mark.name))}:{mark.line + 1}: {problem}"


def _child(node: Any, part: str) -> tuple[int | None, Any]:
    """The line and value of a key of a YAML mapping, or of an index of a list; (None, None) if it is not there."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == part:
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
        value = node.value[int(part)]
        return value.start_mark.line + 1, value
    return None, None


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(full key, value) of everything in a config that is no mapping and no list: `optim.groups[0].pattern`."""
    if isinstance(node, dict):
        for name, child in node.items():
            yield from _leaves(child, f"{prefix}.{name}".lstrip("."))
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from _leaves(child, f"{prefix}[{index}]")
    else:
        yield prefix, node
