"""JSON as deepexp writes it: into files that carry their `format`, and onto standard output for other programs."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepexp.disk.storage import write_text

FORMAT = 1
"""The format of all files of a run, sweep or report; one with a higher number was written by a newer deepexp."""


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a file durably by `content` with `format` before it; `RunFailed` when the disk refuses."""
    write_text(path, text_of({"format": FORMAT, **content}) + "\n")


def text_of(content: Any) -> str:
    """Nested values as JSON text, with a line for each key."""
    return json.dumps(plain(content), indent=2, ensure_ascii=False, allow_nan=False)


def plain(value: Any) -> Any:
    """`value` with plain types only; a number that is not finite becomes null, since JSON has no word for it."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
