"""A short run, and going on with one."""

from pathlib import Path

import deepexp
from deepexp.result import Result

SMALL = ["epochs=2", "data.subset=60", "data.resize=22", "batch_size=20"]


def resume(run: Result | Path, *overrides: str) -> Result:
    """The result of the same run, or of that in a directory, after `deepexp train resume=… OVERRIDES`."""
    directory = run if isinstance(run, Path) else run.directory
    gone_on = deepexp.train([f"resume={directory}", *overrides], quiet=True)
    assert gone_on is not None
    return gone_on
