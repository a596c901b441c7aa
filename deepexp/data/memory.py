"""How much memory is left, so that data are only kept where they fit."""

import os
from pathlib import Path

import torch

from deepexp.process import control_group


def available_bytes(device: torch.device) -> int | None:
    """Memory that can still be used on a device, within the limits of this process's control group; None: not known."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free
    found = [value for value in (_of_system(), _of_control_group()) if value is not None]
    return min(found, default=None)


def capacity_bytes(device: torch.device) -> int | None:
    """As `available_bytes`, but on CUDA the total memory of the smallest GPU, used or not.

    Asking a GPU how much is free would take hundreds of megabytes of it for as long as this process lives.
    """
    if device.type == "cuda":
        gpus = range(torch.cuda.device_count()) if device.index is None else [device.index]
        return min(int(torch.cuda.get_device_properties(gpu).total_memory) for gpu in gpus)
    return available_bytes(device)


def _of_system(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    if meminfo.exists():
        for line in meminfo.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):  # macOS does not tell how much is free
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _of_control_group(own: Path = control_group.OWN, root: Path = control_group.ROOT) -> int | None:
    """What a container or batch system (cgroup v2) leaves to this process."""
    found = [_left_in(group) for group in control_group.groups("memory", own, root)]
    return min((left for left in found if left is not None), default=None)


def _left_in(group: Path) -> int | None:
    """The limit less what is used; cached file pages can be dropped, so they do not count."""
    try:
        limit = (group / "memory.max").read_text(encoding="ascii").strip()
        used = int((group / "memory.current").read_text(encoding="ascii"))
        statistics = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
    except OSError:  # the root group has no limit, and other systems no groups
        return None
    if limit == "max":
        return None
    return max(0, int(limit) - used + int(statistics.get("inactive_file", 0)))
