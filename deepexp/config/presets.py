"""Presets and their scales: `experiment=NAME scale=quick` is the option `NAME/quick` of Hydra's group `experiment`.

`conf/experiment/NAME.yaml` is the preset at its standard scale; `conf/experiment/NAME/quick.yaml` builds on it. Only
words and file names are looked at here; composing is `compose.py`'s.
"""

import shlex
from collections.abc import Collection, Sequence

from deepexp.config import catalogue
from deepexp.config.catalogue import Option
from deepexp.config.overrides import split
from deepexp.text.suggest import did_you_mean

GROUP = "experiment"
SCALE = "scale"
STANDARD = "standard"
USUAL = ("quick", STANDARD, "full")
"""The scales of deepexp's own presets, the smallest first."""


def scales(preset: str) -> list[str]:
    """The scales of a preset, the usual ones first; none if it has one size only."""
    others = catalogue.names(f"{GROUP}/{preset}")
    found = {*others, STANDARD} if others else set()
    return sorted(found, key=lambda name: (USUAL.index(name) if name in USUAL else len(USUAL), name))


def options(preset: str) -> list[Option]:
    """The files of a preset's scales, in the order of `scales`, without standard: that is the preset's own file."""
    files = {option.name: option for option in catalogue.options(f"{GROUP}/{preset}") if not option.hidden}
    return [files[scale] for scale in scales(preset) if scale in files]


def with_scale(words: Sequence[str]) -> list[str]:
    """The words with the scale moved into the preset's name; unchanged where that cannot be (`complaint` says why).

    Several presets with commas between them are all taken at that scale.
    """
    found = [word for word in words if split(word)[1] == SCALE]
    if not found or complaint(words) is not None:
        return list(words)
    scale = split(found[-1])[2]
    suffix = "" if scale == STANDARD else f"/{scale}"
    kept = [word for word in words if word not in found]
    return [_suffixed(word, suffix) if split(word)[1] == GROUP else word for word in kept]


def complaint(words: Sequence[str]) -> str | None:
    """A line if `scale=…` is among the words, but no preset, or one without that scale."""
    asked = [split(word)[2] for word in words if split(word)[1] == SCALE]
    if not asked:
        return None
    presets = _presets(words)
    if not presets:
        return f"{SCALE}: is the size of a preset, and none is chosen; add {GROUP}=NAME (`deepexp list {GROUP}`)"
    for preset in presets:
        allowed = scales(preset)
        if preset not in catalogue.names(GROUP):
            return f"{SCALE}: there is no preset {preset!r} that could have one"
        if not allowed:
            return f"{SCALE}: {GROUP}={preset} has one size only; leave out {SCALE}"
        for scale in asked:
            if scale not in allowed:
                meant = did_you_mean(str(scale), allowed)
                return f"{SCALE}: {scale!r} is not allowed{meant}; {GROUP}={preset} has {', '.join(allowed)}"
    return None


def missing_sweep(words: Sequence[str], choice: str | None, swept: Collection[str]) -> str | None:
    """A line if a preset is a sweep and some swept keys got no value: a single run would be none of its points.

    `words`: as the user gave them; `choice`: the preset; `swept`: the keys of its `hydra.sweeper.params`.
    """
    given = {split(word)[1] for word in words}
    open_keys = [key for key in swept if key not in given]
    if not open_keys:
        return None
    # A sweep cannot be shown without being run.
    command = shlex.join(["deepexp", "train", "-m", *(word for word in words if split(word)[1] != "dry_run")])
    one = "one value" if len(open_keys) == 1 else "one value each"
    return (
        f"{GROUP}={choice}: is a sweep over {', '.join(open_keys)}; all of it: {command}; "
        f"a single run needs {one} for {' and '.join(open_keys)}"
    )


def _presets(words: Sequence[str]) -> list[str]:
    """The presets that the last word for them names."""
    values = [split(word)[2] for word in words if split(word)[1] == GROUP]
    last = values[-1] if values else None
    return [] if last in (None, "", "null") else [name.strip() for name in last.split(",")]


def _suffixed(word: str, suffix: str) -> str:
    start, _, names = word.partition("=")
    return f"{start}={','.join(f'{name.strip()}{suffix}' for name in names.split(','))}"
