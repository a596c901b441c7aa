import os
from pathlib import Path

import pytest

from deepexp import runtime
from deepexp.process import control_group
from deepexp.process.control_group import cpu_quota


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The file of a process that names its control groups, in versions 1 and 2."""
    path = tmp_path / "own"
    path.write_text("7:memory:/other\n4:cpu,cpuacct:/job/step\n0::/unified/step\n")
    return path


def write(group: Path, **files: str) -> None:
    group.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (group / name.replace("cpu_", "cpu.", 1)).write_text(f"{content}\n")


@pytest.mark.parametrize(("outer", "inner", "quota"), [
    ("max 100000", "max 100000", None), ("150000 100000", "max 100000", 1.5), ("400000 100000", "10000 20000", 0.5),
])  # fmt: skip
def test_the_least_quota_of_version_2_counts(
    tmp_path: Path, own: Path, outer: str, inner: str, quota: float | None
) -> None:
    write(tmp_path / "sys" / "unified", cpu_max=outer)
    write(tmp_path / "sys" / "unified" / "step", cpu_max=inner)
    assert cpu_quota(own, tmp_path / "sys") == quota


@pytest.mark.parametrize("group", ["job/step", "job", "."])  # the last: a container that sees only its own
def test_the_quota_of_version_1_counts(tmp_path: Path, own: Path, group: str) -> None:
    write(tmp_path / "sys" / "cpu", cpu_cfs_quota_us="-1", cpu_cfs_period_us="100000")
    write(tmp_path / "sys" / "memory" / "other", cpu_cfs_quota_us="100000", cpu_cfs_period_us="100000")
    assert cpu_quota(own, tmp_path / "sys") is None
    cpu_quota.cache_clear()
    write(tmp_path / "sys" / "cpu" / group, cpu_cfs_quota_us="200000", cpu_cfs_period_us="100000")
    assert cpu_quota(own, tmp_path / "sys") == 2


@pytest.mark.parametrize("content", ["", "max", "many 100000"])
def test_an_unreadable_quota_is_no_limit(tmp_path: Path, own: Path, content: str) -> None:
    assert cpu_quota(tmp_path / "absent", tmp_path) is None
    write(tmp_path / "sys" / "unified", cpu_max=content)
    assert cpu_quota(own, tmp_path / "sys") is None


@pytest.mark.parametrize(("quota", "cores"), [(None, 8), (2.0, 2), (1.5, 2), (0.1, 1), (64.0, 8)])
def test_available_cores_are_within_the_quota(monkeypatch: pytest.MonkeyPatch, quota: float | None, cores: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(control_group, "cpu_quota", lambda: quota)
    assert runtime.available_cores() == cores
