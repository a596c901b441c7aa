"""Resuming runs: which changes are allowed or refused, damaged files, signals and failures."""

import errno
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import time

import pytest
import yaml
from PIL import Image

import deepexp
from deepexp import checkpoint, cli
from deepexp.data import picture_cache
from deepexp.errors import InputError, Interrupted, RunFailed
from deepexp.step import Step
from deepexp.trainer import Trainer

from ..resumed import SMALL, resume
from ..same_run import assert_same_run


@pytest.mark.parametrize("change", ["batch_size=10", "optim.lr=1", "model=resnet", "seed=3", "device=auto"])
def test_keys_that_must_not_change_are_refused_by_name(run, change):
    with pytest.raises(InputError, match=rf"{change.split('=')[0]}: cannot be changed"):
        resume(run(SMALL), change)


def test_a_missing_directory_is_reported_before_swept_values(tmp_path):
    with pytest.raises(InputError, match="is not a run: there is nothing of that name"):
        deepexp.train([f"resume={tmp_path / 'typo'}", "optim.lr=0.1,0.2"], quiet=True)


@pytest.mark.parametrize("flags", [[], ["-m"]])
def test_resume_without_a_directory_is_refused(flags, capsys):
    assert cli.main(["train", *flags, "resume", "seed=1"]) == 2
    assert capsys.readouterr().err == "deepexp: 'resume' is not of the form KEY=VALUE\n"


def test_cfg_refuses_resume_instead_of_showing_the_default_config(tmp_path, capsys):
    assert cli.main(["train", "--cfg", "job", f"resume={tmp_path}"]) == 2
    streams = capsys.readouterr()
    assert streams.out == "" and f"--cfg: {tmp_path} is resumed with the saved config of each run" in streams.err


@pytest.mark.parametrize("change", ["optim.betas=[0.8,0.9]", "model.pretrained=false", "data.split_seed=1"])
def test_keys_of_options_other_than_the_defaults_are_refused_by_name(run, change):
    with pytest.raises(InputError, match=rf"^{change.split('=')[0]}: cannot be changed when a run is resumed"):
        resume(run([*SMALL, "optim=adam"]), change)


@pytest.mark.parametrize(
    ("options", "reason"),
    [(["schedule=cosine"], "schedule"), (["freeze=[{pattern: conv1.*, share: 0.5}]"], "freeze in epochs")],
)
def test_a_run_that_depends_on_its_horizon_cannot_be_extended(run, options, reason):
    with pytest.raises(InputError, match=reason):
        resume(run([*SMALL, *options]), "epochs=4")


def test_a_dry_run_of_a_resumed_run_names_its_config(run):
    with pytest.raises(InputError, match=r"^dry_run: shows a run before it begins; .*config\.yaml$"):
        resume(run(SMALL), "dry_run=true")


def test_a_run_cannot_be_shortened_below_its_present_epoch(run):
    with pytest.raises(InputError, match="epochs: 1 is too few, since epoch 2 has begun; at least 2"):
        resume(run(SMALL), "epochs=1")


@pytest.mark.parametrize("same", ["epochs=2", "log_every=7", "data.mode=streamed", "early_stop=null"])
def test_resuming_a_finished_run_without_more_epochs_changes_nothing(run, same, monkeypatch):
    result = run(SMALL)
    monkeypatch.setattr(Trainer, "fit", lambda *_: pytest.fail("trained"))
    before = {path: path.stat().st_mtime_ns for path in result.directory.rglob("*")}
    assert resume(result, same).test_errors == result.test_errors
    assert {path: path.stat().st_mtime_ns for path in result.directory.rglob("*")} == before


def test_other_data_are_refused(run):
    result = run(SMALL)
    path = result.directory / "provenance.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "data_fingerprint": "another"}))
    with pytest.raises(InputError, match="not those that"):
        resume(result, "epochs=3")


def test_a_relative_cache_is_found_from_another_working_directory(run, tmp_path, monkeypatch):
    for part, name, number in itertools.product(("train", "test"), "ab", range(2)):
        picture = tmp_path / "pictures" / part / name / f"{number}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (22, 22), 40 * number).save(picture)
    monkeypatch.chdir(tmp_path)
    result = run(["data=image_folder", "data.root=pictures", "data.cache=kept", "epochs=1", "batch_size=4"])
    monkeypatch.setattr(picture_cache, "_build", lambda *_: pytest.fail("decoded again"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(resume(result, "epochs=2").metrics) == 2


def test_keys_of_the_runs_own_data_source_may_change(run, tmp_path, monkeypatch):
    for part, name in itertools.product(("train", "test"), "ab"):
        picture = tmp_path / "pictures" / part / name / "0.png"
        picture.parent.mkdir(parents=True)
        Image.new("L", (28, 28), 40).save(picture)
    monkeypatch.chdir(tmp_path)
    result = run(["data=image_folder", "data.root=pictures", "epochs=1", "batch_size=2"])
    (tmp_path / "pictures").rename(tmp_path / "elsewhere")
    resume(result, "epochs=2", "data.root=elsewhere", "data.cache=kept in (1)")  # the default data source has no cache
    data = yaml.safe_load((result.directory / ".hydra" / "config.yaml").read_text())["data"]
    assert data["root"] == str(tmp_path / "elsewhere") and data["cache"] == str(tmp_path / "kept in (1)")
    assert (tmp_path / "kept in (1)").is_dir()
    with pytest.raises(InputError, match=r"^data\.download: .*ImageFolder takes no argument of this name"):
        resume(result, "epochs=3", "data.download=false")


def test_cache_of_a_users_source_is_not_taken_for_a_path(run, tmp_path, monkeypatch):
    source = "from deepexp.data.digits import Digits\n\n\nclass Own(Digits):\n    def __init__(self, cache): ...\n"
    (tmp_path / "own_digits.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    result = run([*SMALL, "data._target_=own_digits.Own", "+data.cache=memory"])
    assert yaml.safe_load((result.directory / ".hydra" / "config.yaml").read_text())["data"]["cache"] == "memory"


def test_a_damaged_checkpoint_never_replaces_a_good_one(run, monkeypatch):
    result = run(SMALL)
    folder = result.directory / "checkpoints"
    (folder / "last.pt").write_bytes(b"rubbish")
    monkeypatch.setattr(checkpoint, "write_atomically", _fails)
    with pytest.raises(RunFailed):
        resume(result, "epochs=3")
    monkeypatch.undo()
    assert checkpoint.load_latest(folder)[1]["progress"]["epoch"] == 1
    assert resume(result, "epochs=3").epochs == 3


def test_a_damaged_best_is_set_aside_and_the_run_is_resumed(run, caplog):
    """It ends like a run that was never cut off; only the old best weights are lost."""
    words = [*SMALL, "val_fraction=0.2"]
    result = run(words, folder="cut")
    best = result.directory / "checkpoints" / "best.pt"
    best.write_bytes(b"rubbish")
    resume(result, "epochs=4")
    assert "best.pt: is cut short" in caplog.text and "kept as best.pt.damaged" in caplog.text
    assert best.with_name("best.pt.damaged").read_bytes() == b"rubbish"
    assert_same_run(result.directory, run([*words, "epochs=4"], folder="whole").directory)


def _fails(*_):
    raise RunFailed("no room")


def test_a_run_cut_off_after_its_last_save_logs_nothing_twice(run):
    result = run(SMALL)
    status = result.directory / "status.json"
    status.write_text(status.read_text().replace('"done"', '"running"'))
    assert [line["epoch"] for line in resume(result).metrics] == [1, 2]


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGUSR1", 138), ("SIGHUP", 129), ("SIGINT", 130)])
def test_a_signal_saves_a_checkpoint(tmp_path, monkeypatch, capsys, default_signals, name, status):
    call = Step.__call__

    def with_signal(self, batches, samples):
        os.kill(os.getpid(), getattr(signal, name))
        return call(self, batches, samples)

    monkeypatch.setattr(Step, "__call__", with_signal)
    words = ["train", *SMALL, "threads=1", "device=cpu", f"output_dir={tmp_path}"]
    assert cli.main(words) == status
    monkeypatch.undo()
    (path,) = tmp_path.glob("*/*")
    assert json.loads((path / "status.json").read_text())["status"] == "killed-by-signal"
    assert checkpoint.load(path / "checkpoints" / "last.pt")["progress"]["step"] == 1
    assert cli.main(["train", f"resume={path}"]) == 0


def test_a_clock_that_jumps_changes_nothing(run, monkeypatch):
    straight = run(SMALL, folder="straight")
    real, calls = time.time, [0]

    def jumping():
        calls[0] += 1
        return real() + (-1) ** calls[0] * 1e7

    monkeypatch.setattr(time, "time", jumping)
    jumped = run([*SMALL, "max_minutes=10", "checkpoint.every_minutes=1"], folder="jumped")
    assert jumped.steps == straight.steps and jumped.test_loss == straight.test_loss
    assert 0 <= jumped.total_seconds < 600


def test_a_disk_that_becomes_read_only_is_named(tmp_path, monkeypatch, capsys):
    end = Trainer._end_epoch

    def refused(_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def with_a_disk_that_refuses(self):
        monkeypatch.setattr(os, "fsync", refused)
        end(self)

    monkeypatch.setattr(Trainer, "_end_epoch", with_a_disk_that_refuses)
    assert cli.main(["train", *SMALL, "threads=1", "device=cpu", f"output_dir={tmp_path}"]) == 1
    streams = capsys.readouterr()
    assert "Read-only file system" in streams.out + streams.err and "Traceback" not in streams.err


def test_a_run_ended_by_a_dead_data_worker_can_be_resumed(tmp_path, monkeypatch, capsys):
    call = Step.__call__

    def killing(self, batches, samples):
        for process in multiprocessing.active_children():
            os.kill(process.pid, signal.SIGKILL)
        return call(self, batches, samples)

    words = ["data.mode=streamed", "data.workers=1", "data.subset=400", "batch_size=20", "epochs=2"]
    monkeypatch.setattr(Step, "__call__", killing)
    assert cli.main(["train", *words, "threads=1", "device=cpu", f"output_dir={tmp_path}"]) == 1
    streams = capsys.readouterr()
    assert "a process that reads pictures ahead was killed" in streams.out + streams.err
    monkeypatch.undo()
    (path,) = tmp_path.glob("*/*")
    assert json.loads((path / "status.json").read_text())["status"] == "failed"
    assert cli.main(["train", f"resume={path}"]) == 0


MODELS = {
    "mnist_net": ["model=mnist_net"],
    "resnet": ["model=resnet"],
    "monster": ["model=monster", "model.pretrained=false"],
}


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_a_save_a_minute_costs_at_most_two_percent(run, monkeypatch, model):
    """With Adam, whose state is twice the size of the weights."""
    seconds = []
    save = Trainer._save

    def timed(self, **options):
        began = time.perf_counter()
        save(self, **options)
        seconds.append(time.perf_counter() - began)

    monkeypatch.setattr(Trainer, "_save", timed)
    words = ["optim=adam", "data.subset=40", "batch_size=20", "epochs=3", "ema=0.99", "evaluate_every=3"]
    run([*model, *words])
    print(f"{model}: {', '.join(f'{1000 * each:.0f}' for each in seconds)} ms a save")
    assert sorted(seconds)[1] <= 0.02 * 60


def test_a_directory_removed_during_the_run_is_named(tmp_path, monkeypatch, capsys):
    end = Trainer._end_epoch

    def removed(self):
        shutil.rmtree(self.checkpoints.parent)
        end(self)

    monkeypatch.setattr(Trainer, "_end_epoch", removed)
    assert cli.main(["train", *SMALL, "threads=1", "device=cpu", f"output_dir={tmp_path}"]) == 1
    streams = capsys.readouterr()
    assert "its folder was removed during the run" in streams.out + streams.err


def test_out_of_memory_says_what_to_lower(run, monkeypatch):
    def full(self, batches, samples):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(Step, "__call__", full)
    with pytest.raises(RunFailed, match=r"out of memory: lower batch_size.*step 1"):
        run(SMALL)


def test_a_signal_raises_interrupted_in_python(run, monkeypatch):
    monkeypatch.setattr(Trainer, "_save_is_due", lambda self: self._stop._note(signal.SIGTERM, None))
    with pytest.raises(Interrupted, match="the run was saved"):
        run(SMALL)


@pytest.mark.slow
def test_memory_is_flat_over_thousands_of_steps(tmp_path, monkeypatch):
    """With a checkpoint every second and one sample a step."""
    resident = []
    look = Trainer._save_is_due

    def noted(self):
        if self.progress.step % 500 == 0:
            with open("/proc/self/statm") as file:
                resident.append(int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6)
        return look(self)

    if not os.path.exists("/proc/self/statm"):
        pytest.skip("memory is read from /proc")
    monkeypatch.setattr(Trainer, "_save_is_due", noted)
    words = [
        "data.subset=1000",
        "data.resize=22",
        "batch_size=1",
        "epochs=6",
        "checkpoint.every_minutes=0.0166",
        "optim.lr=0.001",
    ]
    deepexp.train([*words, "threads=1", "device=cpu", f"output_dir={tmp_path}"], quiet=True)
    assert len(resident) == 12
    after_warm_up = resident[4:]  # two epochs: memory is fragmented until the second evaluation
    print(f"{min(after_warm_up):.1f} to {max(after_warm_up):.1f} MB from step 2,500 on")
    assert max(after_warm_up) - min(after_warm_up) < 20


@pytest.mark.parametrize("torn", ["metrics.jsonl", "events.out.tfevents.*"])
def test_a_torn_file_is_refused_until_it_is_moved_away(run, torn):
    first = run(SMALL)
    (path,) = first.directory.glob(torn)
    path.write_bytes(path.read_bytes()[:100])
    before = contents(first.directory)
    with pytest.raises(InputError, match="it was damaged or replaced since; put the original back, or move it away"):
        resume(first, "epochs=3")
    assert contents(first.directory) == before
    path.rename(first.directory / "torn")
    assert resume(first, "epochs=3").epochs == 3


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}
