"""The words of a command line: flags, and what is done to `KEY=VALUE` before Hydra's grammar reads it.

Only light modules are imported here.
"""

import re
from collections.abc import Mapping, Sequence

from deepexp.errors import InputError
from deepexp.text.suggest import no_such

PATH_KEYS = {
    *("data.cache", "data.files", "data.root", "data.table", "init_from", "input", "model.pretrained", "name"),
    *("output_dir", "resume", "run"),
}
"""Keys whose value is a path (or, for `name`, a part of one) and is taken as it stands, whatever is in it."""

WORDS = {"model.pretrained": {"auto", "true", "false"}}
"""Values of path keys that are words and no paths, as `null` is for all. Beside one, commas separate swept values."""


def split_flags(argv: Sequence[str], flags: Mapping[str, Sequence[str]]) -> tuple[list[str], dict[str, str]]:
    """Overrides, and the flags among them with their values.

    `flags` holds the values that each flag takes; none for one that stands alone (`{"-m": (), "--cfg": ("job",)}`).
    A value follows as the next word or after `=`. Raises `InputError` for an unknown flag or value.
    """
    overrides: list[str] = []
    found: dict[str, str] = {}
    words = iter(argv)
    for word in words:
        if not word.startswith("-"):
            overrides.append(word)
            continue
        flag, equals, value = word.partition("=")
        if flag not in flags:
            raise InputError(f"{no_such('flag', flag, [*flags, '--help'])}; a key is set as KEY=VALUE, without dashes")
        if flags[flag] and not equals:
            value = next(words, "")
        if value not in (flags[flag] or [""]):
            wanted = f"takes one of {', '.join(flags[flag])}" if flags[flag] else "takes no value"
            raise InputError(f"{flag}: {wanted}, not {value!r}")
        found[flag] = value
    return overrides, found


def quote_paths(overrides: Sequence[str]) -> list[str]:
    """The same overrides with the values of path keys in Hydra's quotes, so that `(1)`, `x=1,y` or `ü` are paths.

    Left as they are: `null`, values in quotes, the words that a key takes besides paths (several of them with commas: a
    sweep), and `choice(…)`, which is how paths are swept. `${…}` is an interpolation inside quotes too.
    """
    return [_quoted(override) for override in overrides]


def quote(text: str) -> str:
    """A text in single quotes, as Hydra's grammar reads it back: quotes escaped, backslashes before them doubled."""
    doubled = re.sub(r"\\+(?='|\Z)", lambda found: found[0] * 2, text)
    return "'" + doubled.replace("'", "\\'") + "'"


def unquote(value: str) -> str:
    """The text of a value in quotes, as Hydra's grammar reads it; any other value as it is."""
    if len(value) < 2 or value[0] != value[-1] or value[0] not in "'\"":
        return value
    return re.sub(rf"\\+(?={value[0]}|\Z)", lambda found: found[0][: len(found[0]) // 2], value[1:-1])


def as_typed(override: str) -> str:
    """An override as it is written on the command line, where values of path keys need no quotes of Hydra's."""
    prefix, key, value = split(override)
    return f"{prefix}{key}={unquote(value)}" if key in PATH_KEYS and value else override


def split(override: str) -> tuple[str, str, str | None]:
    """An override's prefix (`+`, `++`, `~` or none), key and value (None without `=`)."""
    bare = override.lstrip("+~")
    key, equals, value = bare.partition("=")
    return override[: len(override) - len(bare)], key, value if equals else None


def repeated(overrides: Sequence[str]) -> list[str]:
    """A line for each key that is given several times, of which Hydra takes the last."""
    values: dict[str, list[str]] = {}
    for prefix, key, value in map(split, overrides):
        if prefix != "~":
            values.setdefault(key, []).append(value or "")
    return [
        f"{key}: is given {len(found)} times; only the last counts, {key}={found[-1]}"
        for key, found in values.items()
        if len(found) > 1
    ]


def _quoted(override: str) -> str:
    prefix, key, value = split(override)
    if key not in PATH_KEYS or not value or prefix.startswith("~"):
        return override
    if _is_quoted(value) or re.fullmatch(r"choice\(.*\)", value):
        return override
    words = WORDS.get(key, set()) | {"null"}
    parts = _PART.findall(value)
    if ",".join(parts) != value or words.isdisjoint(part.strip().lower() for part in parts):
        parts = [value]  # a path may have commas in it
    return f"{prefix}{key}=" + ",".join(
        part if part.strip().lower() in words or _is_quoted(part) else quote(part) for part in parts
    )


_PART = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^,]+""", re.DOTALL)
"""One of several values between commas."""


def _is_quoted(value: str) -> bool:
    return re.fullmatch(r"""'(\\.|[^'\\])*'|"(\\.|[^"\\])*\"""", value, flags=re.DOTALL) is not None
