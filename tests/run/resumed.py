"""Going on with a run, as the tests of this room do."""

import deepexp
from deepexp.result import Result

SMALL = ["epochs=2", "data.subset=60", "data.resize=22", "batch_size=20"]


def resume(result: Result, *overrides: str) -> Result:
    """The result of the same run after `deepexp train resume=… OVERRIDES`."""
    gone_on = deepexp.train([f"resume={result.directory}", *overrides], quiet=True)
    assert gone_on is not None
    return gone_on
