"""A sweep that is gone on with: where it is written, and what becomes of its earlier jobs."""

import pytest

from deepexp.errors import InputError

from .conftest import Sweeper

QUICK = ("model=troubled",)


def test_it_stays_where_it_is(sweep: Sweeper) -> None:
    directory = sweep(*QUICK, "seed=0,1", quiet=True).directory
    with pytest.raises(InputError, match=f"output_dir: elsewhere is not where {directory} is"):
        sweep(f"resume={directory}", "output_dir=elsewhere")
    assert not sweep(f"resume={directory}", "output_dir=outputs", quiet=True).failures
