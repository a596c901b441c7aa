"""What is wrong with overrides, in one line each: the key, the value found, what is allowed, what to do.

Hydra's own parser, search path and defaults list are asked. Configs are composed in `compose.py`; broken YAML is
explained in `conf_files.py`.
"""

import os
import re
import shlex
from collections.abc import Iterator

from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from deepexp import paths
from deepexp.config import catalogue
from deepexp.config.conf_files import first_line
from deepexp.config.overrides import quote, split
from deepexp.text.suggest import did_you_mean, nearest, no_such

SYNONYMS = {"learning_rate": "lr", "network": "model", "architecture": "model", "wd": "weight_decay"}
"""Other programs' words for a key of ours, too far from it to be found as typing mistakes."""

_FUNCTIONS = ("choice", "range", "interval", "glob", "tag", "shuffle", "sort", "int", "float", "str", "bool")
"""What Hydra's grammar knows to be called in a value."""

_NOTHING = object()


def parse(override: str, loader: ConfigLoader) -> Override | str:
    """An override as Hydra's grammar reads it, or a line that says why it cannot be read."""
    if not split(override)[1]:
        return f"{override!r} is not of the form KEY=VALUE"
    try:
        return OverridesParser.create(config_loader=loader).parse_overrides([override])[0]
    except HydraException:
        return _unreadable(override)


def _unreadable(override: str) -> str:
    prefix, key, value = split(override)
    if value is None:
        return f"{override!r} is not of the form KEY=VALUE{_as_option(override)}"
    if not key.isascii() or not key.replace(".", "").replace("_", "").replace("/", "").isalnum():
        return f"{override!r}: {key!r} cannot be a key; `deepexp train --help` lists the keys"
    if re.match(r"[\[{]|\w+\(", value) and (bracket := _unbalanced(value)):
        return f"{key}: {value} cannot be read as a value: {bracket} (in a shell, quote a word that has blanks)"
    if re.search(r"(^|[,\[{(])\s*,|,\s*([\]})]|$)", value):
        return f"{key}: {value} cannot be read as a value: nothing stands beside a comma (write a,b without blanks)"
    if re.match(r"choice\(.*(?<=[(,])\s*null\s*[,)]", value):
        return f"{key}: choice() takes no null; give the values with commas alone: {key}=null,…"
    if value.startswith("="):
        return f"{key}: is set by a single =: {prefix}{key}{value}"
    if typographic := re.search("[“”„‘’«»]", value):
        return f"{key}: {value} has the typographic quote {typographic[0]}, which is read as a letter; write ' or \""
    reason = ""
    if (called := re.match(r"(\w+)\(", value)) and called[1] not in _FUNCTIONS:
        reason = f": {no_such('function', called[1], _FUNCTIONS)}"
    inner = quote(value)
    quoted = f'{prefix}{key}="{inner}"' if not set(inner) & set('"$`!\\') else shlex.quote(f"{prefix}{key}={inner}")
    return f"{key}: {value} cannot be read as a value{reason}; if it is meant as a text, quote it twice: {quoted}"


def _unbalanced(value: str) -> str | None:
    """What is wrong with the brackets of a list or mapping; those in quotes do not count."""
    closing = {"[": "]", "{": "}", "(": ")"}
    opened: list[str] = []
    for sign in re.sub(r"'[^']*'|\"[^\"]*\"", "", value):
        if sign in closing:
            opened.append(sign)
        elif sign in closing.values() and (not opened or closing[opened.pop()] != sign):
            return f"its {sign} has no matching {next(left for left, right in closing.items() if right == sign)}"
    return f"its {opened[-1]} is not closed" if opened else None


def _as_option(word: str) -> str:
    """For a word alone that names an option, the override that it was meant as."""
    choices = {f"{group}={name}": name for group in catalogue.groups() for name in catalogue.names(group)}
    meant = nearest(word, choices.values())
    return did_you_mean(word, [next(text for text, name in choices.items() if name == meant)]) if meant else ""


def several_values(override: Override) -> list[str]:
    """A line if an override names several values where there is to be one."""
    if not override.is_sweep_override():
        return []
    value = override.get_value_string()
    return [
        f"{override.key_or_group}: {value} is several values; deepexp train -m runs them all, or write [a,b] for a list"
    ]


def is_group(key: str, loader: ConfigLoader) -> bool:
    """Whether options can be chosen for this key, in the package's conf, the user's or Hydra's."""
    parent = key.rpartition("/")[0]
    return key in (f"{parent}/{name}".lstrip("/") for name in loader.list_groups(parent))


def unknown_options(override: Override, loader: ConfigLoader) -> list[str]:
    """A line for each option that an override of a group names and that is not there."""
    value = override.value()
    if override.is_delete() or (override.is_hydra_override() and isinstance(value, list)):
        return []
    names = list(override.sweep_iterator()) if override.is_discrete_sweep() else [value]
    return [line for name in names if (line := unknown_option(override.key_or_group, name, loader))]


def unknown_option(group: str, name: object, loader: ConfigLoader) -> str | None:
    """A line if a group has no option of this name."""
    if isinstance(name, str) and any(source.is_config(f"{group}/{name}") for source in loader.get_sources()):
        return None
    options = loader.get_group_options(group, ObjectType.CONFIG)
    if not isinstance(name, str) and (word := str(name).lower()) in options:
        return f"{group}: {word} is read as a value, and not as a name; quote it twice: {group}=\"'{word}'\""
    for folder in paths.conf_directories():
        if os.path.isfile(other := folder / group / f"{name}.yml"):  # Path.is_file fails for a name that is too long
            return f"{group}: {paths.shown(other)} is not read, as files of options end in .yaml; rename it"
    found = "null" if name is None else repr(name)
    line = f"{group}: {found} is not allowed{did_you_mean(str(name), options)}; one of {', '.join(options)}"
    if isinstance(name, (bool, int, float)):
        line += f" (what is inside is set as {group}.KEY={name})"
    return line


def unknown_key(override: Override, config: DictConfig) -> str | None:
    """A line if what an override changes, adds or deletes cannot be changed, added or deleted in this config."""
    key = override.key_or_group
    if override.package is not None:
        return f"{override.get_key_element()}: there is no group {key!r} to choose from"
    if override.is_delete():
        return _undeletable(key, config)
    if override.is_add() and _at(key, config) is not None:
        return f"{key}: is there already; leave out the +"
    return _unsettable(override, config)


def _at(key: str, config: DictConfig, default: object = None) -> object:
    """The value of a dotted key as it is; `default` where there is none, or one that cannot be resolved."""
    return OmegaConf.select(config, key, throw_on_resolution_failure=False, default=default)


def _undeletable(key: str, config: DictConfig) -> str | None:
    found = _at(key, config, default=_NOTHING)
    if found is None:
        return f"{key}: is null as it is, and nothing to delete; leave it out"
    return f"{key}: there is nothing to delete{_nearest_key(key, config)}" if found is _NOTHING else None


def _unsettable(override: Override, config: DictConfig) -> str | None:
    key = override.key_or_group
    copy, value = config.copy(), None if override.is_sweep_override() else override.value()
    adds = override.is_add() or override.is_force_add()
    try:
        OmegaConf.update(copy, key, value, merge=True, force_add=adds)
    except (ConfigAttributeError, ConfigKeyError):
        key = _missing_in(key, override.value(), config)
        group = override.key_or_group
        hint = f"; an option is chosen as {group}=NAME" if key != group and group in catalogue.groups() else ""
        return f"{key}: there is no such key{_nearest_key(key, config) or _allowed(key, config)}{hint}"
    except (OmegaConfBaseException, TypeError, ValueError) as error:
        if whole := _list_above(key, config):
            return f"{key}: {whole} is a list without such an element; set all of it with {whole}=[…]"
        if OmegaConf.is_config(there := _at(key, config)):
            kind = "a list" if isinstance(there, ListConfig) else "a mapping is needed"
            return f"{key}: {override.get_value_string()} is not allowed; {kind}"
        return f"{key}: {override.get_value_string()} does not fit ({first_line(error)})"
    return None


def _missing_in(key: str, value: object, config: DictConfig) -> str:
    """The key that does not exist; if a mapping is set for a section, the first such key in it."""
    if isinstance(value, dict) and isinstance(OmegaConf.select(config, key), DictConfig):
        for name, inner in value.items():
            below = f"{key}.{name}"
            if name not in OmegaConf.select(config, key):
                return below
            if (found := _missing_in(below, inner, config)) != below:
                return found
    return key


def _list_above(key: str, config: DictConfig) -> str | None:
    """The list that a dotted key leads into (`optim.groups` for `optim.groups.0.lr_mult`), if it does."""
    parts = key.split(".")
    above = (".".join(parts[:depth]) for depth in range(1, len(parts)))
    return next((name for name in above if isinstance(OmegaConf.select(config, name), ListConfig)), None)


def _nearest_key(key: str, config: DictConfig) -> str:
    """The end of a message: the key that was probably meant.

    In this order: a typing mistake in the name of a section, the same last word elsewhere (`lr` is `optim.lr`), a
    typing mistake in the last word, one in a word elsewhere.
    """
    keys = _dotted(config)
    by_word = {found.rpartition(".")[2]: found for found in reversed(keys)}
    word = key.rpartition(".")[2]
    word = SYNONYMS.get(word, word)
    section, wrong, rest = _split_at_wrong(key, config)
    siblings = {found.removeprefix(section).split(".")[0] for found in keys if found.startswith(section)}
    sibling = nearest(wrong, sorted(siblings))
    corrected = f"{section}{sibling}{rest}" if sibling else ""
    if rest and corrected in keys:
        meant = corrected
    elif word in by_word:
        meant = by_word[word]
    elif corrected:
        meant = corrected
    else:
        similar = nearest(word, by_word) if len(word) > 3 else None
        meant = by_word[similar] if similar else ""
    return f" (did you mean '{meant}'?)" if meant else ""


def _allowed(key: str, config: DictConfig) -> str:
    """The end of a message where nothing is near: which options have the key, or which keys the section has."""
    section, wrong, _ = _split_at_wrong(key, config)
    group = section.rstrip(".")
    owners = [option.name for option in catalogue.groups().get(group, []) if wrong in option.keys]
    if owners:
        return f" in this {group}; {' and '.join(f'{group}={owner}' for owner in owners)} would have it"
    node = OmegaConf.select(config, group) if group else config
    if not isinstance(node, DictConfig):
        return f"; {group} is {'null' if node is None else 'one value'} and has no keys to set"
    if group:
        return f"; {group} has {', '.join(str(name) for name in node if str(name)[0] != '_') or 'none'}"
    return "; `deepexp train --help` lists the keys"


def _split_at_wrong(key: str, config: DictConfig) -> tuple[str, str, str]:
    """A dotted key cut at its first word that the config lacks: (`optim.`, `betaz`, ``) for `optim.betaz`."""
    parts = key.split(".")
    for depth in range(len(parts)):
        section = ".".join(parts[:depth])
        node = OmegaConf.select(config, section) if section else config
        if not isinstance(node, DictConfig) or parts[depth] not in node:
            break
    rest = "".join(f".{part}" for part in parts[depth + 1 :])
    return f"{section}." if section else "", parts[depth], rest


def _dotted(config: DictConfig) -> list[str]:
    """Every dotted key of a config but Hydra's own, sections included."""

    def below(node: object, prefix: str) -> Iterator[str]:
        if isinstance(node, dict):
            for name, child in node.items():
                yield f"{prefix}{name}"
                yield from below(child, f"{prefix}{name}.")

    return [key for key in below(OmegaConf.to_container(config, resolve=False), "") if key.split(".")[0] != "hydra"]
