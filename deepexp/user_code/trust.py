"""Which code a saved run may run: only what stands in a YAML file here."""

from collections.abc import Iterator
from typing import Any

import yaml

from deepexp import paths
from deepexp.disk import yaml_file
from deepexp.errors import InputError


def check_targets(node: Any) -> None:
    """Refuse a saved config with a `_target_` that no YAML of the package or of the user's own `conf` holds.

    A run directory from elsewhere must not be able to run code. A list of allowed prefixes would not prevent that:
    torch and torchvision contain functions that load or unpack what they are given.
    """
    for text in _interpolations(node):
        raise InputError(
            f"{text!r} stands in the saved config, which deepexp saves with every value filled in; it is not evaluated"
        )
    trusted = trusted_targets()
    for name in targets_in(node):
        if name not in trusted:
            raise InputError(
                f"_target_: {name!r} stands in the saved config, but in no YAML of deepexp or of ./conf here; "
                f"it is not run. If it is yours, call deepexp from the folder that holds its conf/"
            )


def trusted_targets() -> set[str]:
    """Every string that stands as `_target_` in a YAML of the package or of the user's own `conf`."""
    found: set[str] = set()
    for directory in paths.conf_directories():
        for file in sorted(directory.rglob("*.yaml")):
            try:
                found.update(targets_in(yaml.load(file.read_text(encoding="utf-8"), yaml_file.SAFE_LOADER)))
            except Exception:  # PyYAML's conversions may raise anything, as for a date that does not exist
                continue  # a broken file of the user's own grants nothing; composing it reports it
    return found


def _interpolations(node: Any) -> Iterator[str]:
    """Texts that OmegaConf would evaluate; `${oc.create:…}` makes whole nodes, `_target_` and all, out of a text."""
    if isinstance(node, dict):
        node = [*node, *node.values()]
    if isinstance(node, list):
        for value in node:
            yield from _interpolations(value)
    elif isinstance(node, str) and "${" in node:
        yield node


def targets_in(node: Any) -> Iterator[str]:
    """The values of `_target_` in a value and in those nested in it."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == "_target_":
                yield str(value)
            else:
                yield from targets_in(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets_in(value)
