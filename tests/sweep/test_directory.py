from pathlib import Path

import pytest

from deepexp.run.rundir import HydraFiles, RunDirectory
from deepexp.sweep.directory import Choices, SweepDirectory


@pytest.fixture
def sweep(tmp_path: Path) -> SweepDirectory:
    made = SweepDirectory.create(str(tmp_path), "net", ["seed=0,1"])
    made.choices = Choices(pretrained="/a/path", threads=3, data_mode="streamed")
    made.save()
    return made


def test_words_and_choices_are_read_back(sweep: SweepDirectory) -> None:
    sweep.close()
    again = SweepDirectory.open(sweep.path)
    again.close()
    assert (again.words, again.choices) == (sweep.words, sweep.choices)


def test_a_sweep_without_started_jobs_is_removed_with_the_folders_made_for_it(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    SweepDirectory.create(str(tmp_path / "there" / "new"), "net", []).close()
    assert not list((tmp_path / "there").iterdir())
    first, second = (SweepDirectory.create(str(tmp_path / "there"), "net", []) for _ in range(2))
    first.close()
    assert second.path.is_dir() and not first.path.exists()
    second.close()
    assert (tmp_path / "there" / "net").is_dir()  # it was there before the second sweep


def test_runs_are_kept_without_sweep_json(sweep: SweepDirectory) -> None:
    RunDirectory.create_at(sweep.path / "seed=0", HydraFiles("", "", "")).unlock()
    (sweep.path / "sweep.json").unlink()
    sweep.close()
    assert (sweep.path / "seed=0" / "status.json").is_file()


def test_a_new_run_never_gets_an_existing_directory(sweep: SweepDirectory) -> None:
    RunDirectory.create_at(sweep.free_directory("seed=0"), HydraFiles("", "", "")).unlock()
    assert sweep.free_directory("seed=0") == sweep.path / "seed=0~2"
    (sweep.path / "seed=0~2").mkdir()
    assert sweep.free_directory("seed=0") == sweep.path / "seed=0~3"
    sweep.close()


@pytest.mark.parametrize(("left", "is_removed"), [
    ([".lock"], True),
    ([".lock", ".hydra/config.yaml"], True),
    ([".lock", "run.log"], False),
    ([".lock", "checkpoints/last.pt"], False),
    ([".lock", "status.json"], False),
    (["notes.txt"], False),
])  # fmt: skip
def test_only_directories_of_runs_that_had_not_begun_are_removed(
    sweep: SweepDirectory, left: list[str], is_removed: bool
) -> None:
    for name in left:
        path = sweep.path / "seed=0" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert sweep.free_directory("seed=0").name == ("seed=0" if is_removed else "seed=0~2")
    assert (sweep.path / "seed=0").exists() != is_removed
    sweep.close()
