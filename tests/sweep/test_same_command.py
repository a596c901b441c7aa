"""`resume=auto` with `-m`: the sweep that the same command began."""

import pytest

from deepexp.sweep import ledger

from .conftest import SMALL, Sweeper


def test_a_sweep_is_gone_on_with_by_the_command_that_began_it(sweep: Sweeper, capsys: pytest.CaptureFixture[str]):
    words = ["model=troubled", "model.trouble=none,once", "hydra.launcher.jobs=1"]
    again = [*SMALL, *words, "resume=auto"]
    first = sweep(*words)
    assert [row.state for row in first.rows] == ["done", "failed"]
    second = sweep(*again)
    assert second.directory == first.directory and second.failures == []
    third = sweep(*again[::-1])
    assert third.directory == first.directory
    entries = ledger.read(first.directory / "ledger.jsonl").values()
    assert [entry.tries for entry in entries] == [1, 2], "what is done is not run again"
    assert "resume" not in (first.directory / "sweep.json").read_text()
    damaged = first.directory.with_name("2999-01-01_00-00-00_abcdef")
    damaged.mkdir()
    (damaged / "sweep.json").write_text("{")
    assert sweep(*again).directory == first.directory
    assert f"{damaged.name}/sweep.json: cannot be read" in (told := capsys.readouterr().err) and "passed over" in told
    other = sweep(*again, "seed=5")
    assert other.directory != first.directory and other.failures == []
