import pytest

from ..resumed import SMALL, resume


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
