import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

from deepexp.sweep import table
from deepexp.sweep.ledger import State
from deepexp.sweep.table import Row


def row(rate: float | None = None, val: float | None = None, **varying: str) -> Row:
    summary: dict[str, Any] | None = None
    if rate is not None:
        summary = {"test_error_rate": rate, "test_errors": round(1000 * rate), "test_samples": 1000, "test_loss": 0.5}
        summary |= {"val_error_rate": val, "total_seconds": 12.3, "pretrained": None}
    state = "failed" if summary is None else "done"
    reason = "diverged, in step 3" if summary is None else None
    name = ",".join(f"{key}={value}" for key, value in varying.items())
    return Row(name, varying, state, summary, reason, None if summary else f"{name}/run.log", name, 1)


def test_without_validation_rows_are_in_the_order_of_the_grid() -> None:
    rows = [row(0.3, seed="0"), row(0.1, seed="1"), row(None, seed="2"), row(0.2, seed="3")]
    assert table.ordered(rows) == rows


def test_with_validation_rows_are_ordered_by_its_error() -> None:
    first, failed, second = row(0.1, 0.3, seed="0"), row(None, seed="1"), row(0.9, 0.2, seed="2")
    assert table.ordered([first, failed, second]) == [second, first, failed]


def test_lines_of_the_table() -> None:
    lines = list(table.lines([row(0.012, batch_size="10"), row(None, batch_size="100")]))
    assert [line.split("  ")[0].strip() for line in lines] == ["batch_size", "10", "100"]
    assert "1.20%" in lines[1] and "12 " in lines[1] and "12.3 s" in lines[1] and "val" not in lines[0]
    assert lines[2].endswith("FAILED")


def test_a_narrow_terminal_gets_fewer_columns_and_is_told_which_are_left_out() -> None:
    rows = [row(0.012, 0.01, batch_size="10"), row(None, batch_size="100")]
    whole = list(table.lines(rows))
    width = max(map(len, whole))
    assert list(table.lines(rows, width=width)) == whole
    *shown, left_out = table.lines(rows, width=width - 12)
    assert left_out == "(in table.csv only: run time, test loss)"
    assert shown[0] == "batch_size  val error  test error  errors  state"


def test_mean_and_sample_deviation_over_seeds() -> None:
    rows = [
        row(0.01, a="x", seed="0"),
        row(0.03, a="x", seed="1"),
        row(0.05, a="y", seed="0"),
        row(None, a="y", seed="1"),
    ]
    lines = table.lines_over_seeds(rows)
    assert "2.00 ± 1.41%" in lines[1] and lines[1].startswith("x") and lines[1].endswith("2 of 2")
    assert "5.00%" in lines[2] and lines[2].endswith("1 of 2")


def test_means_over_seeds_are_ordered_by_validation_error_and_never_by_test_error() -> None:
    rows = [row(None, a="x", seed="0"), row(None, a="x", seed="1")]
    rows += [row(0.1, 0.3, a="y", seed="0"), row(0.1, 0.1, a="y", seed="1")]
    rows += [row(0.5, 0.2, a="z", seed="0"), row(0.5, 0.15, a="z", seed="1")]
    assert [line[0] for line in table.lines_over_seeds(rows)[1:]] == ["z", "y", "x"]
    without = [row(rate, a=a, seed=seed) for a, rate in (("y", 0.5), ("x", 0.1)) for seed in "01"]
    assert [line[0] for line in table.lines_over_seeds(without)[1:]] == ["y", "x"]


def test_jobs_that_were_not_started_are_counted_and_not_listed() -> None:
    rows = [
        row(0.1, a="x", seed="0"),
        *(replace(row(None, a=a, seed=seed), state="queued") for a, seed in ("x1", "y0", "y1")),
    ]
    assert len(list(table.lines(rows))) == 2 and list(table.lines(rows[1:])) == []
    (_, line) = table.lines_over_seeds(rows)
    assert line.startswith("x") and line.endswith("1 of 2")


def test_no_means_where_the_seed_does_not_vary() -> None:
    assert table.lines_over_seeds([row(0.1, a="x"), row(0.2, a="y")]) == []
    assert table.lines_over_seeds([row(0.1, seed="3")]) == []


def test_all_failures_are_listed_with_reason_and_log() -> None:
    lines = table.failures([row(0.1, seed="0"), row(None, seed="1"), row(None, seed="2")], "outputs/x")
    assert lines[0].startswith("2 of 3 jobs")
    assert lines[1].endswith("seed=1: failed: diverged, in step 3") and lines[2].endswith(
        "log: outputs/x/seed=1/run.log"
    )
    assert lines[3].endswith("seed=2: failed: diverged, in step 3")
    assert table.failures([row(0.1, seed="0")], "outputs/x") == []


def test_unfinished_jobs_do_not_count_as_failed() -> None:
    states: list[State] = ["done", "failed", "interrupted", "queued", "running", "interrupted"]
    rows = [replace(row(0.1 if state == "done" else None), state=state) for state in states]
    assert table.failures(rows, "outputs/x")[0] == "1 of 6 jobs failed:"
    assert table.unfinished(rows, ()) == "4 of 6 jobs are not finished: 2 interrupted, 1 not run, 1 cut off"
    assert table.unfinished(rows[2:3], ()) == "1 of 1 job is not finished: 1 interrupted"
    assert table.unfinished(rows[:2], ()) is None


def test_csv_has_all_figures(tmp_path: Path) -> None:
    table.write_csv(tmp_path / "table.csv", [row(0.25, **{"data.root": "a,b"}), row(None, **{"data.root": "c"})])
    with (tmp_path / "table.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first["data.root"] == "a,b" and float(first["test_error_rate"]) == 0.25 and first["status"] == "done"
    assert (
        second["test_error_rate"] == "" and second["reason"] == "diverged, in step 3" and second["status"] == "failed"
    )


def test_settings_and_figures_of_the_same_name_have_separate_columns(tmp_path: Path) -> None:
    stopped = row(0.25, epochs="2")
    rows = [replace(stopped, summary={**(stopped.summary or {}), "epochs": 1}), row(None, epochs="3")]
    table.write_csv(tmp_path / "table.csv", rows)
    with (tmp_path / "table.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    assert len(set(header)) == len(header)
    assert [dict(zip(header, line, strict=True))["epochs"] for line in lines] == ["2", "3"]
    assert [dict(zip(header, line, strict=True))["epochs_done"] for line in lines] == ["1", ""]
