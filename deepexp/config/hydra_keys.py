"""Hydra's own keys: which of them have an effect here, and what to use instead of the others."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from deepexp import paths
from deepexp.config.overrides import split
from deepexp.errors import raise_any

OF_SWEEPS = ("hydra.sweeper", "hydra.launcher", "hydra.callbacks", "hydra/sweeper", "hydra/launcher")

_INSTEAD = {
    ("hydra.run", "hydra.sweep", "hydra.output_subdir"): "output_dir and name say where runs lie",
    ("hydra.job.chdir",): "a run stays in the folder that it was started in",
    ("hydra.verbose", "hydra.job_logging", "hydra.hydra_logging"): "the whole log of a run is in its run.log",
    ("hydra.searchpath",): "options of your own lie in ./conf",
    ("hydra",): "of Hydra's own keys, those of hydra.sweeper and hydra.launcher have one, with -m",
}


def check_effect(words: Sequence[str]) -> None:
    """Raise `InputError` with a line for each of Hydra's own keys that would change nothing."""
    raise_any([_complaint(key) for _, key, _ in map(split, words) if _has_no_effect(key)])


def without_effect(preset: Path) -> list[str]:
    """A line for each of Hydra's own keys in a preset that would change nothing. The file must be valid YAML."""
    root = yaml.compose(preset.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    keys = [key for name, node in _items(root) if name.value == "hydra" for key, _ in _items(node)]
    found = [(key.start_mark.line + 1, f"hydra.{key.value}") for key in keys]
    return [f"{paths.shown(preset)}:{line}: {_complaint(key)}" for line, key in found if _has_no_effect(key)]


def _has_no_effect(key: str) -> bool:
    return key.startswith(("hydra.", "hydra/")) and not key.startswith(OF_SWEEPS)


def _complaint(key: str) -> str:
    return f"{key}: has no effect; {_instead(key)}"


def _instead(key: str) -> str:
    dotted = f"{key.replace('/', '.')}."
    return next(text for starts, text in _INSTEAD.items() if any(dotted.startswith(f"{start}.") for start in starts))


def _items(node: yaml.Node | None) -> Sequence[tuple[yaml.ScalarNode, yaml.Node]]:
    return node.value if isinstance(node, yaml.MappingNode) else ()
