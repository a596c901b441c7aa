import errno
import json
import os
from dataclasses import asdict, replace
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

import pytest

from deepexp.errors import InputError, RunFailed
from deepexp.sweep import ledger
from deepexp.sweep.ledger import Entry, Ledger, path_within

FIRST = Entry("seed=0", "a" * 16, ["seed=0"], "queued")
SECOND = Entry("seed=ü", "b" * 16, ["seed='ü'"], "queued")


def test_the_latest_entry_of_each_job_counts(tmp_path: Path) -> None:
    written = Ledger(tmp_path / "ledger.jsonl")
    written.record(FIRST, SECOND)
    written.record(replace(FIRST, state="running", tries=1, directory="seed=0"))
    written.record(replace(FIRST, state="done", tries=1, directory="seed=0", seconds=1.5))
    written.close()
    read = ledger.read(tmp_path / "ledger.jsonl")
    assert read == written.entries
    assert [entry.state for entry in read.values()] == ["done", "queued"]
    assert read["b" * 16].overrides == ["seed='ü'"]


def test_the_ledger_is_only_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    for entry in (FIRST, SECOND):
        before = path.read_bytes() if path.exists() else b""
        again = Ledger(path)
        again.record(entry)
        again.close()
        assert path.read_bytes().startswith(before)
    assert len(path.read_text().splitlines()) == 2


def test_an_entry_that_the_disk_refuses_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = Ledger(tmp_path / "ledger.jsonl")
    written.record(FIRST)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFailed):
        written.record(replace(FIRST, state="done"), SECOND)
    assert written.entries == {FIRST.config_hash: FIRST}


def full(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("kept", range(0, 60, 7))
def test_a_torn_last_line_is_left_out_and_cut_off(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "ledger.jsonl"
    whole = Ledger(path)
    whole.record(FIRST)
    length = path.stat().st_size
    whole.record(SECOND)
    whole.close()
    path.write_bytes(path.read_bytes()[: length + kept])
    assert list(ledger.read(path).values()) == [FIRST]
    again = Ledger(path)
    again.record(replace(SECOND, state="done"))
    again.close()
    assert list(ledger.read(path).values()) == [FIRST, replace(SECOND, state="done")]


@pytest.mark.parametrize("line", ['{"format": 1}', "[]", "word", '{"format": 1, "job": "x"}'])
def test_damage_elsewhere_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(InputError, match=r"ledger\.jsonl:1: is damaged"):
        Ledger(path)


@pytest.mark.parametrize("change", [{"job": 5}, {"config_hash": [1]}, {"directory": {}}, {"state": "bogus"}])
def test_an_entry_of_other_types_is_damage(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text(json.dumps({"format": 1, **asdict(FIRST), **change}) + "\n")
    with pytest.raises(InputError, match=r"ledger\.jsonl:1: is damaged; remove that line"):
        ledger.read(path)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text('{"format": 2}\n')
    with pytest.raises(InputError, match="a newer deepexp wrote it"):
        ledger.read(path)


@pytest.mark.parametrize(("path", "directory", "written"), [
    (PurePosixPath("/out/s/seed=0/run.log"), PurePosixPath("/out/s"), "seed=0/run.log"),
    (PureWindowsPath(r"C:\out\s\logs\seed=0.log"), PureWindowsPath(r"c:\out\s"), "logs/seed=0.log"),
    (PurePosixPath("/out/sweep/run.log"), PurePosixPath("/out/s"), "/out/sweep/run.log"),
    (PureWindowsPath(r"D:\s\run.log"), PureWindowsPath(r"C:\s"), r"D:\s\run.log"),
])  # fmt: skip
def test_a_path_in_the_ledger_is_the_same_on_every_system(path: PurePath, directory: PurePath, written: str) -> None:
    assert path_within(path, directory) == written


def test_recorded_entries_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.jsonl"
    durable: list[bytes] = []
    monkeypatch.setattr(os, "fsync", lambda _: durable.append(path.read_bytes()))
    written = Ledger(path)
    written.record(FIRST)
    assert durable[-1] == path.read_bytes() != b""
    written.close()
