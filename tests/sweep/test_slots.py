import pytest
import torch

from deepexp import runtime
from deepexp.errors import InputError
from deepexp.sweep.settings import LauncherConfig, launcher_config
from deepexp.sweep.slots import Slot, make_slots, threads_of_a_job

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with eight cores, where the second and the fourth GPU are visible."""
    monkeypatch.setattr(runtime, "available_cores", lambda: 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,3")


@pytest.mark.parametrize(("jobs", "points", "slots", "threads"), [
    ("auto", 20, 8, 1), ("auto", 3, 3, 2), ("auto", 1, 1, 8), (2, 20, 2, 4), (16, 20, 16, 1), (16, 5, 5, 1),
])  # fmt: skip
def test_slots_and_threads_on_a_cpu(jobs: int | str, points: int, slots: int, threads: int) -> None:
    made = make_slots(LauncherConfig(jobs=jobs), [CPU] * points, any_gpu=True)  # type: ignore[arg-type]
    assert made == [Slot({})] * slots
    assert threads_of_a_job(len(made)) == threads


def test_each_job_has_its_own_gpu() -> None:
    made = make_slots(LauncherConfig(), [GPU] * 5, any_gpu=True)
    assert [slot.environment for slot in made] == [{"CUDA_VISIBLE_DEVICES": "1"}, {"CUDA_VISIBLE_DEVICES": "3"}]


def test_several_jobs_share_a_gpu() -> None:
    made = make_slots(LauncherConfig(jobs_per_gpu=2), [GPU] * 9, any_gpu=True)
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in made] == ["1", "3", "1", "3"]
    assert len(make_slots(LauncherConfig(jobs=3, jobs_per_gpu=2), [GPU] * 9, any_gpu=True)) == 3


def test_jobs_that_name_their_gpu_see_them_all() -> None:
    assert make_slots(LauncherConfig(jobs=2), [GPU] * 9, any_gpu=False) == [Slot({})] * 2


@pytest.mark.parametrize(("config", "slots"), [
    (LauncherConfig(), 1), (LauncherConfig(jobs_per_gpu=3), 3), (LauncherConfig(jobs=2, jobs_per_gpu=3), 2),
])  # fmt: skip
def test_jobs_share_the_one_gpu_of_a_mac(config: LauncherConfig, slots: int) -> None:
    assert make_slots(config, [CPU, *[torch.device("mps")] * 8], any_gpu=True) == [Slot({})] * slots


def test_settings_are_checked_together() -> None:
    with pytest.raises(InputError) as caught:
        launcher_config({"jobs": 0, "retries": -1, "on_failure": "panic", "objective": "loss", "job": 1})
    assert len(str(caught.value).splitlines()) == 5
    assert launcher_config({"time_limit_minutes": 2}).time_limit_minutes == 2.0
