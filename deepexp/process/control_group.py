"""Limits that a container or batch system sets for this process: its control group (Linux) and those above it.

The groups are found here, and their limit on CPU time is read; their limits on memory are read in `data/memory.py`.
"""

import functools
from pathlib import Path

OWN = Path("/proc/self/cgroup")
ROOT = Path("/sys/fs/cgroup")


def groups(controller: str, own: Path = OWN, root: Path = ROOT) -> list[Path]:
    """The folders of this process's group and of all above it, each of which may set a limit; some may not be there.

    There is one tree of them (version 2), or one for each `controller` (version 1), or both.
    """
    try:
        lines = [line.split(":", 2) for line in own.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return []
    found = []
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if controllers and controller not in controllers.split(","):
            continue
        top = root / controller if controllers else root
        folder = top / path.lstrip("/")
        found += [group for group in (folder, *folder.parents) if group.is_relative_to(top)]
    return found


@functools.cache
def cpu_quota(own: Path = OWN, root: Path = ROOT) -> float | None:
    """How many cores' time this process may use; None: no limit. Asked once, as it hardly ever changes."""
    return min((quota for group in groups("cpu", own, root) if (quota := _quota_of(group)) is not None), default=None)


def _quota_of(group: Path) -> float | None:
    try:
        quota, period = _quota_and_period(group)
        return int(quota) / int(period) if quota != "max" and int(quota) > 0 else None
    except (OSError, ValueError):  # the root group has no limit, and other systems no groups
        return None


def _quota_and_period(group: Path) -> list[str]:
    """Both in microseconds; `max` or -1 is no quota."""
    if (group / "cpu.max").exists():
        return (group / "cpu.max").read_text(encoding="ascii").split()
    return [(group / f"cpu.cfs_{name}_us").read_text(encoding="ascii").strip() for name in ("quota", "period")]
