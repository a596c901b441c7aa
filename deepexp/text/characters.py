"""Replacements for characters that a stream cannot encode, as under `LC_ALL=C`. Standard library only."""

import codecs

PLAIN = "deepexp.plain"
"""The name of the error handler, for `str.encode` and `TextIOWrapper.reconfigure`."""

_INSTEAD = {
    "…": "...",
    "×": "x",
    "·": ".",
    "–": "-",
    "−": "-",
    "─": "-",
    "→": "->",
    "±": "+-",
    "≥": ">=",
    "≤": "<=",
    "≈": "~",
    "∞": "inf",
    "²": "^2",
    "µ": "u",
    "“": '"',
    "”": '"',
}


def _plain(error: UnicodeError) -> tuple[str, int]:
    """A replacement that means the same to a reader; for other characters, their number."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_INSTEAD.get(it) or it.encode("ascii", "backslashreplace").decode() for it in lacking), error.end


codecs.register_error(PLAIN, _plain)
