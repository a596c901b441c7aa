import importlib.util
import json
import os
import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from deepexp.errors import InputError
from deepexp.report.make import make
from deepexp.report.runs import read, unique_names
from deepexp.run.rundir import RunDirectory

spec = importlib.util.spec_from_file_location("synthetic", Path(__file__).with_name("synthetic.py"))
synthetic = importlib.util.module_from_spec(spec)
spec.loader.exec_module(synthetic)


def test_a_real_run_is_read_with_config_metrics_and_predictions(run):
    result = run(["epochs=2", "optim=adam", "max_steps=20"])
    (found,) = read([result.directory]).runs
    assert found.choices["optim"] == "adam"
    assert found.config["optim.lr"] == 0.001
    assert found.config["max_steps"] == 20
    assert found.status == "done"
    assert found.summary == result.summary
    assert list(found.metrics) == result.metrics
    predicted, target = found.predictions()
    assert (predicted != target).sum() == result.test_errors
    assert {"max_steps=20", "optim=adam"} <= set(found.overrides)


def test_jobs_are_in_the_order_of_the_grid(tmp_path):
    sweep = synthetic.make_sweep(tmp_path / "sweep", {"batch_size": [1000, 10, 100]}, lambda job: 0.1)
    assert [run.config["batch_size"] for run in read([tmp_path]).runs] == [1000, 10, 100]
    assert {run.sweep for run in read([tmp_path]).runs} == {sweep}


def test_a_sweep_comes_among_the_single_runs_by_the_time_at_which_it_began(tmp_path):
    earlier, later = (synthetic.make_run(tmp_path / name) for name in ("earlier", "later"))
    change(earlier / "status.json", start_time="2026-01-02T03:04:05+00:00")
    change(later / "status.json", start_time="2026-01-02T03:20:00+00:00")
    sweep = synthetic.make_sweep(tmp_path / "2026-01-02_03-10-00_aa3495", {"seed": [0]}, lambda job: 0.1)
    assert [run.path for run in read([tmp_path]).runs] == [earlier, sweep / "seed=0", later]


def test_a_run_given_twice_is_read_once_and_links_are_not_followed(tmp_path):
    one = synthetic.make_run(tmp_path / "outputs" / "one")
    elsewhere = synthetic.make_run(tmp_path / "elsewhere" / "two")
    (tmp_path / "outputs" / "link").symlink_to(elsewhere)
    assert [run.path for run in read([one, tmp_path / "outputs"]).runs] == [one]


def fifo(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


BAD = {
    "a pipe as config": lambda run: fifo(run / ".hydra" / "config.yaml"),
    "a pipe as choices": lambda run: fifo(run / ".hydra" / "hydra.yaml"),
    "a pipe as overrides": lambda run: fifo(run / ".hydra" / "overrides.yaml"),
    "a pipe as status": lambda run: fifo(run / "status.json"),
    "a pipe as provenance": lambda run: fifo(run / "provenance.json"),
    "a seed that is a list": lambda run: (run / ".hydra" / "config.yaml").write_text("seed: [1]\n"),
    "no rate": lambda run: change(run / "summary.json", test_error_rate=None),
    "another rate": lambda run: change(run / "summary.json", test_error_rate=0.7),
    "not a rate": lambda run: change(run / "summary.json", test_error_rate=float("nan")),
    "a lock that leads elsewhere": lambda run: (
        change(run / "status.json", status="running"),
        (run / "nowhere").touch(),
        (run / ".lock").symlink_to(run / "nowhere"),
    ),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", BAD)
def test_one_bad_run_is_named_and_the_others_are_reported(tmp_path, name):
    synthetic.make_run(tmp_path / "good")
    BAD[name](synthetic.make_run(tmp_path / "bad"))
    report = make([tmp_path])
    assert [run.name for run in report.runs] == ["good"]
    assert len(report.damaged) == 1 and str(tmp_path / "bad") in report.damaged[0]


def test_a_named_pipe_as_the_ledger_does_not_block(tmp_path):
    sweep = synthetic.make_sweep(tmp_path / "sweep", {"seed": [0, 1]}, lambda job: 0.1)
    fifo(sweep / "ledger.jsonl")
    assert len(make([sweep]).runs) == 2


def test_damaged_predictions_prevent_only_the_comparison(tmp_path):
    for name, rate in (("a", 0.1), ("b", 0.2)):
        path = synthetic.make_run(tmp_path / name, {"optim.lr": rate}, error_rate=rate) / "predictions.npz"
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("predicted.npy").header_offset + 60
    content = bytearray(path.read_bytes())
    content[start : start + 20] = (
        b"\xff" * 20
    )  # within the compressed data, which fail before their checksum is compared
    path.write_bytes(content)
    report = make([tmp_path])
    assert len(report.runs) == 2 and f"{path} is damaged" in report.comparisons.not_made[0]


def test_the_shown_status_of_each_saved_status(tmp_path):
    for status in ("done", "failed", "killed-by-signal", "running"):
        synthetic.make_run(tmp_path / status, status=status, reason="why" if status == "failed" else None)
    alive = RunDirectory(synthetic.make_run(tmp_path / "alive", status="running"))
    alive.lock()
    try:
        found = {run.name: run for run in read([tmp_path]).runs}
    finally:
        alive.unlock()
    assert {name: run.status for name, run in found.items()} == {
        "done": "done", "failed": "failed", "killed-by-signal": "interrupted", "running": "cut off", "alive": "running",
    }  # fmt: skip
    assert found["failed"].reason == "why"
    assert found["failed"].summary is None


def test_a_torn_last_line_is_left_out(tmp_path):
    path = synthetic.make_run(tmp_path / "one") / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    (run,) = read([tmp_path]).runs
    assert len(run.metrics) == whole.count(b"\n") - 1


def damage_status(run):
    (run / "status.json").write_text('{"format": 1, "stat')


def no_hydra(run):
    shutil.rmtree(run / ".hydra")


def damage_summary(run):
    content = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(content | {"test_errors": "three"}))


def more_errors_than_samples(run):
    content = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(content | {"test_errors": 10**6}))


def an_infinite_rate(run):
    content = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(content | {"val_error_rate": float("inf")}))


def a_figure_less(run):
    content = json.loads((run / "summary.json").read_text())
    del content["val_error_rate"]
    (run / "summary.json").write_text(json.dumps(content))


def a_figure_less_in_a_line(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    del lines[0]["samples_per_second"]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def no_summary(run):
    (run / "summary.json").unlink()


def damage_metrics(run):
    (run / "metrics.jsonl").write_text('{"epoch": 1}\n')


def damage_config(run):
    (run / ".hydra" / "config.yaml").write_text("a: [")


def laughs(run):
    (run / ".hydra" / "config.yaml").write_text("a: &a [x, x]\nb: [*a, *a]\n")


def deep(run):
    (run / ".hydra" / "config.yaml").write_text("[" * 100_000)


def code(run):
    (run / ".hydra" / "config.yaml").write_text("a: !!python/object/apply:os.system [exit]\n")


DAMAGES = [
    damage_status,
    damage_summary,
    more_errors_than_samples,
    an_infinite_rate,
    a_figure_less,
    a_figure_less_in_a_line,
    no_summary,
    damage_metrics,
    damage_config,
    no_hydra,
    laughs,
    deep,
    code,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_named_and_left_out(tmp_path, damage):
    synthetic.make_run(tmp_path / "good")
    damage(synthetic.make_run(tmp_path / "bad"))
    reading = read([tmp_path])
    assert [run.name for run in reading.runs] == ["good"]
    (line,) = reading.damaged
    assert str(tmp_path / "bad") in line
    assert "\n" not in line


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"x" * 1000])
def test_damaged_predictions_are_named(tmp_path, content):
    path = synthetic.make_run(tmp_path / "one") / "predictions.npz"
    path.write_bytes(content)
    (run,) = read([tmp_path]).runs
    with pytest.raises(InputError, match=r"predictions\.npz is damaged") as refused:
        run.predictions()
    assert "pickle" not in str(refused.value)  # NumPy's message would advise to allow pickles


def test_predictions_are_never_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "gone_off",))

    path = synthetic.make_run(tmp_path / "one") / "predictions.npz"
    np.savez(path, predicted=np.array([Bomb()], dtype=object), target=np.array([1]))
    (run,) = read([tmp_path]).runs
    with pytest.raises(InputError, match="damaged"):
        run.predictions()
    assert not (tmp_path / "gone_off").exists()


def test_a_path_without_runs_is_refused(tmp_path):
    with pytest.raises(InputError, match="there is no run in it"):
        read([tmp_path])
    with pytest.raises(InputError, match="nothing of that name"):
        read([tmp_path / "none"])


def test_names_of_runs_are_as_short_as_possible():
    paths = [Path("/o/a/lr=1"), Path("/o/b/lr=1"), Path("/o/b/lr=2")]
    assert unique_names(paths) == ["a/lr=1", "b/lr=1", "lr=2"]


def test_a_report_on_five_hundred_runs_takes_seconds(tmp_path):
    grid = {"optim.lr": [0.001 * k for k in range(1, 51)], "seed": list(range(10))}
    synthetic.make_sweep(tmp_path / "sweep", grid, lambda job: 0.1 + job["optim.lr"] + 0.001 * job["seed"] % 0.007)
    began = time.process_time()
    report = make([tmp_path])
    assert len(report.runs) == 500
    (line,) = report.comparisons.not_made  # one line for the nine groups that differ by the same amount for every seed
    assert len(report.comparisons.made) + line.count("; optim.lr=") + 1 == 49
    assert time.process_time() - began < 5, "of processor time, whatever runs beside it"
