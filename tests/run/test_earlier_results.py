import pytest

from deepexp.run.earlier_results import keep_attempt, keep_summary
from deepexp.run.rundir import RunDirectory

from ..resumed import SMALL, resume

WORDS = [*SMALL, "val_fraction=0.2", "threads=1", "device=cpu"]


@pytest.mark.parametrize("content", [b"", b'{"format": 1, "epo'])
def test_a_damaged_summary_is_kept_and_the_run_is_resumed(run, content):
    result = run(SMALL)
    (result.directory / "summary.json").write_bytes(content)
    assert resume(result, "epochs=3").epochs == 3
    assert (result.directory / "summary.damaged.json").read_bytes() == content
    assert (result.directory / "predictions.damaged.npz").exists()


def test_a_run_without_checkpoints_begins_anew_and_keeps_its_metrics(run, caplog):
    """Also the second time, and when the new attempt is shorter."""
    result = run(SMALL)
    measured = (result.directory / "metrics.jsonl").read_bytes()
    for attempt in (1, 2):
        for path in (*result.directory.glob("checkpoints/*"), result.directory / "summary.json"):
            path.unlink()
        if attempt == 2:  # their folder is gone, too
            (result.directory / "checkpoints").rmdir()
        status = result.directory / "status.json"
        status.write_text(status.read_text().replace('"done"', '"killed-by-signal"'))
        assert len(resume(result, f"epochs={3 - attempt}").metrics) == 3 - attempt
        assert (result.directory / "metrics.attempt1.jsonl").read_bytes() == measured
    assert len((result.directory / "metrics.attempt2.jsonl").read_text().splitlines()) == 2
    assert caplog.text.count("has no checkpoint: it begins anew") == 2


@pytest.mark.parametrize("name", ["metrics.attempt{}.jsonl", "checkpoints/best.attempt{}.pt", "curves.attempt{}"])
def test_an_attempt_has_a_number_that_none_of_its_files_has_yet(directory, name):
    """An earlier one may have left any of them alone."""
    (directory / name.format(1)).write_bytes(b"earlier")
    keep_attempt(RunDirectory.open(directory))
    assert (directory / name.format(1)).read_bytes() == b"earlier"
    names = ("metrics.attempt2.jsonl", "checkpoints/best.attempt2.pt", "curves.attempt2")
    assert all((directory / each).is_file() for each in names)


def test_kept_predictions_are_not_overwritten_where_their_summary_is_missing(directory):
    (directory / "predictions.epoch2.npz").write_bytes(b"earlier")
    keep_summary(RunDirectory.open(directory))
    assert (directory / "predictions.epoch2.npz").read_bytes() == b"earlier"
    assert all((directory / name).is_file() for name in ("summary.epoch2.step6.json", "predictions.epoch2.step6.npz"))
