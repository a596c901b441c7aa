import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from deepexp.data import memory


def test_available_memory_is_plausible() -> None:
    available = memory.available_bytes(torch.device("cpu"))
    if sys.platform.startswith("linux") or sys.platform == "darwin":
        assert available is not None and 1e6 < available < 1e14


def test_linux_counts_in_kibibytes(tmp_path: Path) -> None:
    """/proc/meminfo calls them kB."""
    (tmp_path / "meminfo").write_text("MemTotal:       9000 kB\nMemFree:  10 kB\nMemAvailable:    3000 kB\n")
    assert memory._of_system(tmp_path / "meminfo") == 3000 * 1024


def test_capacity_is_the_whole_memory_of_the_smallest_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda gpu: SimpleNamespace(total_memory=100 - gpu))
    assert memory.capacity_bytes(torch.device("cuda")) == 98
    assert memory.capacity_bytes(torch.device("cuda", 1)) == 99


def group(folder: Path, limit: str, used: int, cached: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\n")


def test_limits_of_control_groups_are_respected(tmp_path: Path) -> None:
    root = tmp_path / "sys"
    (tmp_path / "own").write_text("0::/job/step\n")
    group(root / "job" / "step", "max", 700, 0)
    assert memory._of_control_group(tmp_path / "own", root) is None
    group(root / "job", "1000", 700, 200)
    assert memory._of_control_group(tmp_path / "own", root) == 500
    group(root / "job" / "step", "100", 700, 200)  # over its limit
    assert memory._of_control_group(tmp_path / "own", root) == 0


def test_systems_without_control_groups_have_no_limit(tmp_path: Path) -> None:
    assert memory._of_control_group(tmp_path / "absent", tmp_path) is None
    (tmp_path / "own").write_text("12:memory:/x\n0::/gone\n")
    assert memory._of_control_group(tmp_path / "own", tmp_path) is None


@pytest.mark.gpu
def test_cuda_memory_is_reported() -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    free = memory.available_bytes(torch.device("cuda"))
    assert free is not None and 0 < free <= torch.cuda.get_device_properties(0).total_memory
