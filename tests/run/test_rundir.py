import datetime
import errno
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

from deepexp.errors import InputError, RunFailed
from deepexp.run import rundir
from deepexp.run.rundir import HydraFiles, RunDirectory, make_unique_directory

FILES = HydraFiles(config="model: {_target_: a.B}\n", overrides="- optim.lr=0.1\n", hydra="job: {}\n")


@pytest.fixture
def run(tmp_path):
    made = RunDirectory.create(tmp_path, "mnist_net", FILES)
    yield made
    made.unlock()


def python(code, *arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def test_a_new_run_has_its_files(run, tmp_path):
    assert run.path.parent == tmp_path / "mnist_net"
    stamp = run.path.name.rpartition("_")[0]
    made = datetime.datetime.strptime(stamp, "%Y-%m-%d_%H-%M-%S")
    assert abs(datetime.datetime.now() - made) < datetime.timedelta(minutes=1)
    assert yaml.safe_load((run.path / ".hydra/config.yaml").read_text()) == {"model": {"_target_": "a.B"}}
    assert yaml.safe_load((run.path / ".hydra/overrides.yaml").read_text()) == ["optim.lr=0.1"]
    assert yaml.safe_load((run.path / ".hydra/hydra.yaml").read_text()) == {"job": {}}
    assert run.checkpoints.is_dir()
    status = run.read_json("status.json")
    assert (status["format"], status["status"], status["pid"]) == (1, "running", os.getpid())


def test_simultaneous_processes_get_different_directories(tmp_path):
    code = """
        import sys, time
        from deepexp.run.rundir import make_unique_directory
        time.sleep(max(0, float(sys.argv[2]) - time.time()))
        for _ in range(50):
            print(make_unique_directory(sys.argv[1], "net"))
    """
    start = datetime.datetime.now().timestamp() + 1
    processes = [python(code, tmp_path, start) for _ in range(2)]
    outputs = [process.communicate()[0].split() for process in processes]
    assert len({path for output in outputs for path in output}) == 100
    assert len(list((tmp_path / "net").iterdir())) == 100


def test_an_existing_directory_is_never_used(tmp_path, monkeypatch):
    tokens = iter(["aaaaaa", "aaaaaa", "aaaaaa", "bbbbbb"])
    monkeypatch.setattr(rundir.secrets, "token_hex", lambda count: next(tokens))

    class Frozen(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2025, 3, 1, 12)

    monkeypatch.setattr(rundir.datetime, "datetime", Frozen)
    first, second = (make_unique_directory(tmp_path, "net") for _ in range(2))
    assert (first.name, second.name) == ("2025-03-01_12-00-00_aaaaaa", "2025-03-01_12-00-00_bbbbbb")


def test_a_folder_above_that_is_removed_in_the_same_instant_is_made_again(tmp_path, monkeypatch):
    make, calls = rundir.make_directory, []

    def removed_at_first(path):
        calls.append(path)
        if len(calls) == 1:
            raise FileNotFoundError(errno.ENOENT, "gone", str(path.parent))
        make(path)

    monkeypatch.setattr(rundir, "make_directory", removed_at_first)
    assert make_unique_directory(tmp_path, "net").is_dir() and len(calls) == 2


@pytest.mark.parametrize("name", ["a b", "ü", "x=1,y", "(1)", "#", "[1]*"])
def test_folders_may_have_any_name(tmp_path, name):
    run = RunDirectory.create(tmp_path / name, name, FILES)
    assert RunDirectory.open(run.path).path == run.path
    run.unlock()


def test_a_tilde_is_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert make_unique_directory("~/d", "net").is_relative_to(tmp_path / "d" / "net")


@pytest.mark.parametrize("name", ["", "..", "a/b", "../up", "nul\0"])
def test_a_name_that_is_no_folder_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="one folder"):
        make_unique_directory(tmp_path / "out", name)
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "outputs").write_text("")
    with pytest.raises(InputError, match=r"outputs.*Not a directory.*output_dir=DIR"):
        RunDirectory.create(tmp_path / "outputs", "net", FILES)


def test_a_read_only_output_folder_is_refused(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(InputError, match=r"Read-only file system; choose"):
        RunDirectory.create(tmp_path / "outputs", "net", FILES)


def test_a_disk_that_is_full_at_first_leaves_no_incomplete_run(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(RunFailed, match="No space left"):
        RunDirectory.create(tmp_path, "net", FILES)
    assert list((tmp_path / "net").iterdir()) == []


def test_create_at_refuses_an_existing_place(tmp_path):
    path = tmp_path / "sweep" / "batch_size=100,optim.lr=0.1"
    RunDirectory.create_at(path, FILES).unlock()
    with pytest.raises(InputError, match="File exists"):
        RunDirectory.create_at(path, FILES)
    assert (path / "status.json").exists()


def test_open_says_what_is_missing(tmp_path, run):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "ledger.jsonl").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    expected = {
        tmp_path / "nowhere": "nothing of that name",
        tmp_path / "loop": "nothing of that name",
        tmp_path / "file": "is a file; a run is a folder",
        tmp_path / "folder": r"no \.hydra/config\.yaml and no status\.json",
        tmp_path / "sweep": "is a sweep",
        run.path.parent: f"status.json; the newest in it is {run.path}$",
        run.checkpoints: f"did you mean {run.path}",
        run.path / "status.json": f"did you mean {run.path}",
    }
    for path, message in expected.items():
        with pytest.raises(InputError, match=message):
            RunDirectory.open(path)


def test_the_newest_in_a_folder_is_no_job_of_a_sweep(tmp_path):
    sweep, newer = tmp_path / "net" / "2026-01-30_12-00-00_aaaaaa", tmp_path / "net" / "2026-01-31_12-00-00_bbbbbb"
    for path in (sweep / "optim.lr=0.1,seed=0", newer):
        RunDirectory.create_at(path, FILES).unlock()
    (sweep / "sweep.json").write_text("{}")
    with pytest.raises(InputError, match=f"the newest in it is {newer}$"):
        RunDirectory.open(tmp_path / "net")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged"),
        (b"\xff{}", "damaged"),
        (b"[" * 100_000, "damaged"),
        (b"[]", "no 'format'"),
        (b'{"status": "done"}', "no 'format'"),
        (b'{"format": 2}', "written by a newer one"),
    ],
)
def test_open_refuses_a_damaged_status(run, content, message):
    (run.path / "status.json").write_bytes(content)
    with pytest.raises(InputError, match=message):
        RunDirectory.open(run.path)


def test_open_refuses_a_directory_in_which_nothing_had_begun(tmp_path):
    """A sweep that is killed while it checks its jobs leaves such a directory."""
    (tmp_path / ".lock").touch()
    with pytest.raises(InputError, match="nothing had begun in it when it was cut off"):
        RunDirectory.open(tmp_path)


@pytest.mark.parametrize("left", [[], [".lock"], [".lock", "checkpoints/", ".hydra/config.yaml"]])
def test_open_names_the_sweep_of_a_job_in_which_nothing_had_begun(tmp_path, monkeypatch, left):
    """A job that is killed while its directory is made leaves such a directory."""
    monkeypatch.chdir(tmp_path)
    job = Path("net/my sweep/seed=0")
    job.mkdir(parents=True)
    (job.parent / "sweep.json").touch()
    for name in left:
        (job / name).parent.mkdir(exist_ok=True)
        (job / name).mkdir() if name.endswith("/") else (job / name).touch()
    with pytest.raises(InputError) as error:
        RunDirectory.open(job)
    assert str(error.value) == (
        f"{job} is not a run: nothing had begun in it when it was cut off; "
        "go on with its sweep: deepexp train 'resume=net/my sweep'"
    )


def test_open_does_not_block_on_a_named_pipe(run):
    (run.path / "status.json").unlink()
    os.mkfifo(run.path / "status.json")
    with pytest.raises(InputError, match=r"no status\.json"):
        RunDirectory.open(run.path)


def test_a_run_has_its_config_before_its_status(tmp_path, monkeypatch):
    """What is killed before it has a status counts as not begun, and may be removed."""
    set_status, there = RunDirectory.set_status, []

    def noted(self, *arguments):
        there.append(sorted(path.name for path in (self.path / ".hydra").iterdir()))
        set_status(self, *arguments)

    monkeypatch.setattr(RunDirectory, "set_status", noted)
    RunDirectory.create(tmp_path, "net", HydraFiles("", "", "")).unlock()
    assert there == [["config.yaml", "hydra.yaml", "overrides.yaml"]]


def test_a_running_run_is_locked(run):
    other = RunDirectory.open(run.path)
    assert other.is_alive()
    with pytest.raises(InputError, match=f"still alive \\(process {os.getpid()} on "):
        other.lock()
    run.unlock()
    assert not other.is_alive()
    other.lock()
    other.unlock()


def test_a_run_on_a_read_only_file_system_is_not_running(run, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    run.unlock()
    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    assert not run.is_alive()


@pytest.mark.parametrize("status", ["running", "done"])
def test_the_status_of_another_users_run_decides_whether_it_runs(run, monkeypatch, status):
    """Its lock cannot be opened, and so not be tested."""

    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    run.set_status(status)
    run.unlock()
    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    assert run.is_alive() == (status == "running")


def test_changing_the_working_directory_does_not_move_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = RunDirectory.create("outputs", "net", FILES)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run.set_status("done")
    run.unlock()
    assert run.path.is_relative_to(tmp_path / "outputs") and not list(Path.cwd().iterdir())


def test_the_lock_ends_with_its_process_although_workers_live_on(tmp_path):
    """A worker that outlives a killed run by seconds must not prevent resuming it."""
    code = """
        import os, sys, time
        from deepexp.run.rundir import HydraFiles, RunDirectory
        run = RunDirectory.create(sys.argv[1], "net", HydraFiles("", "", ""))
        print(run.path, flush=True)
        if os.fork() == 0:
            print("worker", flush=True)
        time.sleep(60)
    """
    owner = python(code, tmp_path, start_new_session=True)
    run = RunDirectory.open(owner.stdout.readline().strip())
    assert owner.stdout.readline() == "worker\n"
    try:
        assert run.is_alive()
        owner.kill()
        owner.wait()
        os.killpg(owner.pid, 0)  # the worker is still there
        assert not run.is_alive()
        run.lock()
        assert run.read_json("status.json")["status"] == "running"
    finally:
        os.killpg(owner.pid, signal.SIGKILL)
        run.unlock()
        owner.stdout.close()


def test_status_has_times_reason_and_resumptions(run):
    first = run.read_json("status.json")
    assert first["end_time"] is None
    first["start_time"] = "2025-03-01T12:00:00+01:00"
    run.write_json("status.json", first)
    run.set_status("killed-by-signal", "SIGTERM after step 7")
    killed = run.read_json("status.json")
    assert (killed["status"], killed["reason"]) == ("killed-by-signal", "SIGTERM after step 7")
    run.set_status("running")
    (resumed,) = run.read_json("status.json")["resume_times"]
    run.set_status("failed", "no space left")
    run.set_status("running")
    run.set_status("done")
    done = run.read_json("status.json")
    assert done["start_time"] == first["start_time"]
    assert len(done["resume_times"]) == 2 and done["resume_times"][0] == resumed
    assert datetime.datetime.fromisoformat(done["end_time"]).tzinfo is not None
    assert done["reason"] is None


def test_json_has_a_format_number_and_standard_values(run):
    run.write_json("summary.json", {"loss": math.nan, "rates": (0.5, math.inf), "path": Path("/x")})
    text = (run.path / "summary.json").read_text()
    content = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert content == {"format": 1, "loss": None, "rates": [0.5, None], "path": "/x"}


def test_a_file_name_that_is_not_utf_8_can_be_saved_in_json(run):
    run.write_json("provenance.json", {"command_line": os.fsdecode(b"data.root=\xff")})
    assert run.read_json("provenance.json")["command_line"].startswith("data.root=")


def test_a_name_that_is_too_long_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"^name: is 256 bytes long; the name of a folder has 255 at most$"):
        make_unique_directory(tmp_path, "ü" * 128)
    make_unique_directory(tmp_path, "n" * 255)


def test_no_other_place_is_advised_for_an_existing_run(tmp_path, monkeypatch):
    run = RunDirectory.create(tmp_path, "net", FILES)
    run.unlock()

    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(run._lock, "acquire", refuse)
    told = r"Read-only file system; make it writable, or work in a copy elsewhere$"
    with pytest.raises(InputError, match=told):
        run.lock()


def test_a_dangling_link_as_output_folder_is_named(tmp_path):
    """For example `outputs` while its disk is not mounted; 'exists already' would be a misleading message."""
    link = tmp_path / "outputs"
    link.symlink_to(tmp_path / "disk" / "outputs")
    with pytest.raises(InputError, match=r"outputs is a link to \S+disk/outputs, which is not there; .*output_dir=DIR"):
        make_unique_directory(link, "net")
    (tmp_path / "disk" / "outputs").mkdir(parents=True)
    assert make_unique_directory(link, "net").is_dir()
