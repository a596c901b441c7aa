"""Values as YAML and the command line write them: `null`, `true`, `[1, 2]`. Standard library only."""

from typing import Any


def yaml_word(value: Any) -> str:
    """A single value as it is typed in a config."""
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


def as_yaml(value: Any) -> str:
    """A value, which may be nested, for a message; texts are in quotes."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_yaml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {as_yaml(inner)}' for key, inner in value.items())}}}"
    return yaml_word(value) if value is None or isinstance(value, bool) else repr(value)
