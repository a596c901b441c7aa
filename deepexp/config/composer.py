"""How overrides become a config and what is wrong with them; findings are kept while no file has changed.

Only names are judged here: keys, groups, options, and YAML that cannot be read. Values and their types are judged by
`schema.py`, and nothing is instantiated. Hydra's own state belongs to `compose.py`.
"""

import copy
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override, OverrideType, QuotedString, Transformer
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from deepexp import paths
from deepexp.config import conf_files, diagnosis, hydra_keys, presets
from deepexp.config.overrides import PATH_KEYS, quote, split
from deepexp.errors import InputError, raise_any

_Kind = Literal["option", "value", "other"]
"""What an override does: it chooses options of a group, only sets a value, or anything else."""


@dataclass(frozen=True)
class Composed:
    """A config as Hydra composed it; interpolations are kept, so that it can be saved as it was written."""

    config: DictConfig
    """What the command reads: everything but Hydra's own node. Closed to new keys (struct)."""
    hydra: DictConfig
    """Hydra's own node, for its sweeper and launcher; its own record of the overrides may be incomplete."""
    choices: dict[str, str | None]
    """The option taken in each group of ours."""
    overrides: list[str]
    """The overrides, with the values of path keys quoted; composing them again gives the same config."""

    @property
    def run_name(self) -> str:
        """The key `name`, or the model's option without the folders of `conf/model/` that its file lies in."""
        return str(self.config.name or str(self.choices["model"]).rpartition("/")[2])

    def resolved(self) -> dict[str, Any]:
        """The config as plain values, its interpolations evaluated."""
        values: Any = OmegaConf.to_container(self.config, resolve=True)
        assert isinstance(values, dict)
        return values


@dataclass(frozen=True)
class _Findings:
    """What was found out about words and about sets of options; valid while no file of the config changes."""

    read: dict[str, Override | str] = field(default_factory=dict)
    """Word → how Hydra's grammar reads it, or a line that says why it cannot."""
    groups: dict[str, bool] = field(default_factory=dict)
    """Key → whether it is a group, with options to choose from."""
    kinds: dict[str, _Kind] = field(default_factory=dict)
    """Word → what it does."""
    bases: dict[tuple[str, ...], DictConfig | str] = field(default_factory=dict)
    """Options → the config of them before values are set in it, or a line that says why there is none."""
    beginnings: dict[tuple[str, ...], Composed | None] = field(default_factory=dict)
    """Options → the same with Hydra's node apart, of which `compose` takes copies; None if there is none."""
    complaints: dict[tuple[tuple[str, ...], str], str | None] = field(default_factory=dict)
    """(options, a key and the type of a value) → what is wrong with setting it in the config of them, if anything."""


_found: list[tuple[conf_files.State, _Findings]] = []
"""The latest findings, with the state of the files then; empty before there are any."""

_MOST_WORDS = 10_000
"""Findings about more than these are thrown away, so that a process that composes for days does not grow."""


def _findings(loader: ConfigLoader) -> _Findings:
    state = conf_files.state(loader)
    if state is None:
        return _Findings()
    if not _found or _found[0][0] != state or len(_found[0][1].read) > _MOST_WORDS:
        _found[:] = [(state, _Findings())]
    return _found[0][1]


class Composer:
    """Composes and judges a config; made anew for each call of a function of `compose.py`.

    Findings about an override or a set of options are kept, for jobs and runs that differ in little.
    """

    def __init__(self, loader: ConfigLoader) -> None:
        self.loader = loader
        self.found = _findings(loader)

    def compose_whole(self, overrides: list[str]) -> Composed:
        """The config, or one `InputError` for all problems; Hydra itself would stop at the first."""
        try:
            full = self._load(overrides)
        except InputError:
            raise_any(self.problems(overrides))
            raise
        composed = _split(full, overrides)
        raise_any(self._unresolved(composed))
        return composed

    def compose(self, overrides: list[str]) -> Composed:
        """As `compose_whole`, but faster: values are set in a copy of the config of these options, which is kept."""
        kinds = [self._kind(text) for text in overrides]
        if "other" in kinds:
            return self.compose_whole(overrides)
        base = self._of_options(tuple(text for text, kind in zip(overrides, kinds, strict=True) if kind == "option"))
        if base is None:
            return self.compose_whole(overrides)
        composed = Composed(copy.deepcopy(base.config), base.hydra, dict(base.choices), overrides)
        try:
            for text in itertools.compress(overrides, (kind == "value" for kind in kinds)):
                override = self.found.read[text]
                assert isinstance(override, Override)
                OmegaConf.update(composed.config, override.key_or_group, override.value())
        except (OmegaConfBaseException, TypeError, ValueError):
            return self.compose_whole(overrides)  # its errors say what is wrong
        raise_any(self._unresolved(composed))
        return composed

    def problems(self, overrides: list[str]) -> list[str]:
        """A line for each override of one job that cannot be used, and for a file that cannot be read."""
        found, unread = self.judged(overrides)
        return [*(line for text in overrides for line in found[text]), *unread]

    def judged(self, overrides: list[str]) -> tuple[dict[str, list[str]], list[str]]:
        """(override → what is wrong with it, what is wrong with files)."""
        found: dict[str, list[str]] = {}
        values: list[Override] = []
        options: list[str] = []
        for text in overrides:
            override = self._read(text)
            if isinstance(override, str):
                found[text] = [override]
                continue
            if override.key_or_group == presets.SCALE and (complaint := presets.complaint(overrides)):
                found[text] = [complaint]
                continue
            found[text] = diagnosis.several_values(override)
            if not self._chooses(override):
                values.append(override)
            elif unknown := diagnosis.unknown_options(override, self.loader):
                found[text] += unknown
            elif not override.is_sweep_override():
                options.append(text)
        base = self._base(tuple(options))
        if not isinstance(base, str):
            for override in values:
                found[str(override.input_line)] += self._unknown_key(override, base, tuple(options))
        return found, [base] if isinstance(base, str) else []

    def expand(self, overrides: list[str]) -> list[list[str]]:
        """Every combination of the values of swept overrides."""
        alternatives, lines = [], []
        for text in overrides:
            override = self._read(text)
            if isinstance(override, str):
                lines.append(override)
            elif not override.is_sweep_override():
                alternatives.append([text])
            elif override.is_discrete_sweep():
                alternatives.append(_swept(override))
            else:
                lines.append(f"{text}: has no grid; use choice(…) or range(…)")
        raise_any(lines)
        return [list(job) for job in itertools.product(*alternatives)]

    def _read(self, text: str) -> Override | str:
        if text not in self.found.read:
            self.found.read[text] = diagnosis.parse(text, self.loader)
        return self.found.read[text]

    def _kind(self, text: str) -> _Kind:
        if text not in self.found.kinds:
            override = self._read(text)
            if isinstance(override, str):
                self.found.kinds[text] = "other"
            elif self._chooses(override):
                self.found.kinds[text] = "other" if "${" in text else "option"  # its value may change
            else:
                self.found.kinds[text] = "value" if _only_sets(override) else "other"
        return self.found.kinds[text]

    def _chooses(self, override: Override) -> bool:
        """Whether an override chooses options of a group; a mapping sets values in one (`optim={lr: 0.1}`)."""
        key = override.key_or_group
        if key not in self.found.groups:
            self.found.groups[key] = diagnosis.is_group(key, self.loader)
        return self.found.groups[key] and not isinstance(override.value(), dict)

    def _of_options(self, options: tuple[str, ...]) -> Composed | None:
        """The config of these options, in which values may still be missing; None if it cannot be composed."""
        if options not in self.found.beginnings:
            full = self._base(options)
            base = None if isinstance(full, str) else _split(full.copy(), list(options))
            if base is not None:
                OmegaConf.set_readonly(base.hydra, True)  # all configs with these options share it
            self.found.beginnings[options] = base
        return self.found.beginnings[options]

    def _unknown_key(self, override: Override, base: DictConfig, options: tuple[str, ...]) -> list[str]:
        question = (options, f"{override.get_key_element()} {type(override.value())}")
        if question not in self.found.complaints:
            self.found.complaints[question] = diagnosis.unknown_key(override, base)
        line = self.found.complaints[question]
        return [line] if line else []

    def _base(self, options: tuple[str, ...]) -> DictConfig | str:
        """The config of these options before values are set in it, or a line that says why there is none."""
        if options not in self.found.bases:
            try:
                self.found.bases[options] = self._load(options)
            except InputError as error:
                self.found.bases[options] = str(error)
        return self.found.bases[options]

    def _load(self, overrides: Sequence[str]) -> DictConfig:
        try:
            config = self.loader.load_configuration(conf_files.CONFIG, list(overrides), RunMode.RUN)
        except Exception as error:  # wrong YAML makes Hydra raise errors of every kind
            names = (override.replace("=", "/", 1) for override in overrides)
            files = [path for name in names if (path := conf_files.path_of(name, self.loader))]
            raise InputError(conf_files.explain(error, files, self.loader)) from error
        raise_any(self._overlooked(config, overrides))
        return config

    def _overlooked(self, config: DictConfig, overrides: Sequence[str]) -> list[str]:
        """Lines for what Hydra accepts: a missing optional option, a list of options, a preset without its header."""
        choices = _choices(config)
        groups = self.loader.list_groups("")
        chosen = [(key, value) for _, key, value in map(split, overrides) if not (value or "").startswith("{")]
        asked = {key: value for key, value in chosen if key in groups}
        lines = [
            diagnosis.unknown_option(group, option, self.loader)
            for group, option in {**asked, **choices}.items()
            if option is not None
        ]
        preset = conf_files.path_of(f"{presets.GROUP}/{choices.get(presets.GROUP)}", self.loader)
        if presets.GROUP in config:
            lines.append(conf_files.no_header(preset))
        elif preset and not preset.is_relative_to(paths.CONF_DIR):
            files = conf_files.files_of(overrides, self.loader)  # with those that the preset builds on
            theirs = [file.path for file in files if not (file.package or file.path.is_relative_to(paths.CONF_DIR))]
            lines += [line for path in theirs for line in hydra_keys.without_effect(path)]
        return [line for line in lines if line]

    def _unresolved(self, composed: Composed) -> list[str]:
        """A line for each key without a value, with its place in a file unless an override set it."""
        found = conf_files.unresolved(composed.config)
        if not found:
            return []
        places = self.places(composed, found)
        return [f"{places[key]}{key}: {problem}" for key, problem in found.items()]

    def places(self, composed: Composed, keys: Iterable[str], *, of_user: bool = False) -> dict[str, str]:
        """Key → `conf/model/mine.yaml:3: `, where a file gave it its value; empty if an override or nothing did.

        Also empty for a whole mapping, of which an error does not say which of its keys is meant. `of_user`: only files
        of the user count.
        """
        files = conf_files.files_of(composed.overrides, self.loader)
        files = [file for file in files if not (of_user and file.path.is_relative_to(paths.CONF_DIR))]
        set_here = tuple(f"{key}." for _, key, _ in map(split, composed.overrides) if key not in composed.choices)
        return {key: "" if f"{key}.".startswith(set_here) else conf_files.place_of(key, files) for key in keys}


def wrong_keys(found: dict[str, list[str]]) -> list[str]:
    """The keys of overrides with which something is wrong."""
    return [split(text)[1] for text, lines in found.items() if lines]


def _split(full: DictConfig, overrides: list[str]) -> Composed:
    """A config as Hydra composed it, and Hydra's own node apart from it."""
    config = full.copy()
    with open_dict(config):
        del config["hydra"]
    return Composed(config, full.hydra, _choices(full), overrides)


def _only_sets(override: Override) -> bool:
    """Whether an override gives a new value to a key of ours that is there, and does nothing else.

    An interpolation with a backslash is left to Hydra, which refuses it: Hydra's record of the overrides contains the
    word, and cannot be parsed as an interpolation.
    """
    word = str(override.input_line)
    changes = override.type is OverrideType.CHANGE and override.package is None
    return changes and not (
        override.is_sweep_override() or override.is_hydra_override() or ("${" in word and "\\" in word)
    )


def _swept(override: Override) -> list[str]:
    """An override for each value of a swept one; paths are quoted, to be read as they are."""
    key = override.get_key_element()
    if override.key_or_group not in PATH_KEYS:
        return [f"{key}={_yaml_word(value)}" for value in override.sweep_iterator()]
    values = [value.text if isinstance(value, QuotedString) else value for value in override.sweep_iterator()]
    return [f"{key}={quote(value) if isinstance(value, str) else Transformer.str(value)}" for value in values]


def _yaml_word(value: Any) -> str:
    """A swept value as it was typed; Hydra would make `False` of false, in names of runs too."""
    return str(value).lower() if isinstance(value, bool) else Transformer.str(value)


def _choices(config: DictConfig) -> dict[str, str | None]:
    """The option taken in each group of ours."""
    chosen = {str(group): option for group, option in config.hydra.runtime.choices.items()}
    return {group: option for group, option in chosen.items() if not group.startswith("hydra/")}
