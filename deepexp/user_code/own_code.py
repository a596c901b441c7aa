"""Which code is the user's own, and what messages say of an error in it, or of what it gives."""

import sysconfig
import traceback
from pathlib import Path

from deepexp import paths
from deepexp.errors import in_short


def is_the_users(file: Path) -> bool:
    """Whether a file is Python of the user's own: not deepexp's, not Python's, and not of an installed package."""
    if file.suffix != ".py" or {"site-packages", "dist-packages"} & set(file.parts):
        return False
    return not any(file.is_relative_to(place) for place in (paths.PACKAGE_DIR, sysconfig.get_path("stdlib")))


def is_of_deepexp_or_torch(name: str) -> bool:
    """Whether a dotted name lies in a package of which a run need record nothing but the version, as it always does."""
    return name.partition(".")[0] in ("deepexp", "torch", "torchvision")


def told(error: BaseException) -> str:
    """`stripes.py:7: ValueError: …`: what an error in the user's own code says, and the last place there, if any."""
    return place(error) + in_short(error)


def place(error: BaseException) -> str:
    """`stripes.py:7: `: the last place in the user's own code that an error came through; empty if there is none."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_the_users(Path(frame.filename))]
    return f"{paths.shown(Path(frames[-1].filename))}:{frames[-1].lineno}: " if frames else ""


def kind(found: object) -> str:
    """The type of something, with its article: `a tuple`, `an int`, `None`."""
    name = type(found).__name__
    return "None" if found is None else f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
