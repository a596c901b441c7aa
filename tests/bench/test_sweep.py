"""`deepexp bench sweep`: whole commands, on a small sweep."""

import json

import pytest

from deepexp.bench import sweep
from deepexp.bench.sweep import Report
from deepexp.cli import main

WAYS = ["deepexp train -m", "one after the other", "2 at a time", "2 at a time, idle threads spinning"]


@pytest.mark.slow
def test_all_ways_are_measured_and_no_files_are_left(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["data.subset=60", "batch_size=20", "epochs=1", "device=cpu", "seed=0,1", "json=true"]
    assert main(["bench", "sweep", *words]) == 0
    out, err = capfd.readouterr()
    report = json.loads(out)
    assert "\x1b" not in err and "\r" not in err
    assert report["runs"] == 2 and list(report["seconds"]) == WAYS
    assert all(len(seconds) == 1 and seconds[0] > 1 for seconds in report["seconds"].values()), "each imports torch"
    assert report["ratio"]["one after the other"]["median"] == pytest.approx(
        report["seconds"][WAYS[0]][0] / report["seconds"][WAYS[1]][0]
    )
    assert not list(tmp_path.iterdir())


def test_the_table_has_medians_and_ratios():
    figures = dict(zip(WAYS, [[10.0, 12.0], [40.0, 40.0], [20.0, 30.0], [100.0, 100.0]], strict=True))
    lines = list(Report(["seed=0,1"], 2, 2, figures).lines())
    assert lines[0] == "2 runs: seed=0,1"
    row = next(line for line in lines if line.startswith("one after"))
    assert row.split()[4:] == ["40.0", "s", "20.0", "s", "0.28", "(0.25–0.30)", "2"]


def test_without_swept_keys_four_seeds_are_run():
    words, points = sweep._points(["epochs=1"])
    assert words == ["epochs=1", "seed=0,1,2,3"]
    assert points == [["epochs=1", f"seed={seed}"] for seed in range(4)]


@pytest.mark.parametrize(
    "words, status, expected",
    [
        (["seed=0,1", "batch_sise=3"], 2, "batch_size"),
        (["at_a_time=1"], 2, "at_a_time: 1 is not allowed; a whole number ≥ 2"),
        (["resume=somewhere"], 2, "leave it out"),
        (["dry_run=true"], 2, "deepexp: dry_run=true: bench sweep makes runs of its own"),
        (["seed=0,1", "data=image_folder", "data.root=nowhere"], 2, "ended with status 2"),
    ],
)
def test_a_mistake_is_named_without_a_traceback(words, status, expected, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "sweep", *words]) == status
    err = capfd.readouterr().err.splitlines()
    assert expected in "\n".join(err) and not any("Traceback" in line for line in err)
