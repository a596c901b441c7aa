"""Names of jobs: what varies, as the name of a folder, whatever the values are."""

import hashlib
import re
from collections.abc import Mapping, Sequence

LONGEST = 120  # characters; with a date and a checkpoint's name behind it, paths stay below what systems allow


def job_names(points: Sequence[Mapping[str, str]], nameless: str = "job") -> list[str]:
    """A name for each point, given its varying keys and their values; different points have different names.

    Letters of every script, digits and `.=+,-_` stay as they are. Where that leaves something out (the brackets of a
    list, say), is too long, or differs from another name only in upper and lower case, a hash of the whole stands at
    the end. A point in which nothing varies is called `nameless`.
    """
    wholes = [",".join(f"{key}={value}" for key, value in point.items()) or nameless for point in points]
    folded: dict[str, set[str]] = {}
    for whole in wholes:
        folded.setdefault(whole.casefold(), set()).add(whole)
    return [_name(whole, always_hash=len(folded[whole.casefold()]) > 1) for whole in wholes]


def _name(whole: str, *, always_hash: bool) -> str:
    safe = re.sub(r"[^\w.=+,-]+", "_", re.sub(r"\[\]|\{\}", "empty", whole))
    if safe == whole and not always_hash and len(whole.encode()) <= LONGEST and whole[-1] != ".":
        return whole
    digest = hashlib.sha256(whole.encode(errors="surrogateescape")).hexdigest()[:8]
    tidy = re.sub(r"_*([=,])_*", r"\1", safe).strip("_") or "job"
    short = tidy.encode()[: LONGEST - 9].decode(errors="ignore")
    return f"{short.rstrip('.')}-{digest}"
