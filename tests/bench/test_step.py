"""`deepexp bench step` from the outside: two processes and their comparison."""

import json

import pytest

from deepexp.cli import main

QUICK = ["rounds=2", "seconds=0.01", "epoch_rounds=1", "data.subset=60", "batch_size=20", "threads=1", "device=cpu"]


def test_json_is_all_there_is_on_stdout(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "step", "json=true", "profile=true", *QUICK]) == 0
    out, err = capfd.readouterr()
    report = json.loads(out)
    assert "\x1b" not in err and "\r" not in err
    assert set(report["seconds"]) == {"step", "epoch"}
    assert all(len(report["seconds"]["step"][name]) == 2 for name in ("deepexp", "plain"))
    assert report["setting"]["threads"] == {"deepexp": 1, "plain": 1}
    assert report["test_error_rate"] == {}, "each has made other steps before"
    assert report["peak_memory_bytes"]["deepexp"]["main"] > 100e6
    assert "aten::convolution_backward" in [operation["name"] for operation in report["breakdown"]["operations"]]
    assert not list(tmp_path.iterdir()), "a benchmark leaves nothing behind"


@pytest.mark.parametrize(
    "words, expected",
    [
        ([], "bench: which one?; one of step, epoch, sweep"),
        (["stpe"], "stpe: there is no such benchmark (did you mean 'step'?); one of step, epoch, sweep"),
        (["step", "rounds=0"], "rounds: 0 is not allowed; a whole number ≥ 1"),
        (["step", "model=monstre"], "monstre"),
        (["step", "batch_size=0"], "batch_size: 0 is not allowed"),
        (["step", "hydra.verbose=true"], "hydra.verbose: has no effect"),
        (["step", "-m"], "-m: there is no such flag"),
        (["step", "dry_run=true"], "dry_run: a benchmark neither resumes a run nor skips training; leave it out"),
        (["epoch", "resume=somewhere"], "resume: a benchmark neither resumes"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(words, expected, capfd):
    assert main(["bench", *words]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("deepexp: ") and len(err.splitlines()) == 1
    assert expected in err


def test_a_mistake_found_by_a_contender_has_no_traceback(capfd, tmp_path):
    """Contenders read the data in their own processes."""
    folder = tmp_path / "pictures"
    for path in (folder / split / name / "picture.png" for split in ("train", "test") for name in ("a", "b")):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"no picture")
    words = ["data=image_folder", f"data.root={folder}", *[word for word in QUICK if "subset" not in word]]
    assert main(["bench", "step", *words, "batch_size=1"]) == 2
    err = capfd.readouterr().err
    assert "picture.png" in err and "Traceback" not in err
