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


def test_jobs_without_a_result_that_are_not_asked_for_any_longer_are_named(
    sweep: Sweeper, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = sweep("model=troubled", "model.trouble=none,once", "hydra.launcher.jobs=1").directory
    capsys.readouterr()
    sweep(f"resume={directory}", "model.trouble=none")
    out = capsys.readouterr().out
    assert "1 other job, not asked for any longer, left as before: deepexp report" in out
    assert "without a result: model.trouble=once (to go on, give these values again)" in out
    again = sweep(f"resume={directory}", "model.trouble=none,once")
    assert [row.state for row in again.rows] == ["done", "done"]
    assert "without a result:" not in capsys.readouterr().out
