import dataclasses
import json

import pytest

from deepexp.bench.breakdown import Breakdown, Operation
from deepexp.bench.report import Report, Setting
from deepexp.process import startup

NAMES = {"deepexp": "deepexp", "plain": "plain loop"}
SETTING = Setting("mnist_net", "digits", "sgd", 100, "fp32", "cpu (2 threads)", {"deepexp": 2, "plain": 2}, NAMES, [])


def report(**changes):
    values = {
        "benchmark": "step",
        "setting": SETTING,
        "figures": {"step": {"deepexp": [0.004, 0.005], "plain": [0.01, 0.02]}},
        "test_error_rates": {},
        "peak_memory_bytes": {
            "deepexp": {"main": 9 * 10**8, "device": None},
            "plain": {"main": 10**9, "device": 10**9},
        },
        "limit": {"step_seconds": 0.003, "epoch_seconds": 1.5, "clock": "wall"},
        "notes": [],
    }
    return Report(**{**values, **changes})


def row(report, start):
    return next(line.split() for line in report.lines() if line.startswith(start))


def test_the_table_has_medians_and_the_ratio():
    text = "\n".join(report().lines())
    assert "mnist_net on digits, batch size 100, sgd, fp32\ncpu (2 threads), torch " in text
    assert row(report(), "plain loop") == ["plain", "loop", *"15 ms 0.33 (0.25–0.40) 2 1.0 GB + 1.0 GB".split()]
    assert row(report(), "deepexp ") == ["deepexp", *"4.5 ms 2 900.0 MB".split()]
    assert row(report(), "limit of") == ["limit", "of", "this", "machine", "3", "ms", "1.50"]
    assert "threads differ" not in text
    assert text.replace("\n", "").isprintable()


def test_the_table_of_an_epoch_has_test_errors():
    figures = {"epoch": {"deepexp": [2.0], "plain": [4.0]}}
    shown = report(figures=figures, test_error_rates={"deepexp": 0.05, "plain": 0.06})
    assert row(shown, "deepexp ")[-1] == "5.00%" and row(shown, "plain")[-1] == "6.00%"
    assert row(shown, "limit of")[-3:] == ["1.50", "s", "1.33"]


def test_contenders_left_out_are_named():
    assert list(report(notes=["keras is left out: it is not installed"]).lines())[-1].startswith("keras is left out")


def test_the_share_of_kernels_is_below_the_table():
    assert "the GPU is at work during 93.00% of deepexp's step" in list(report(kernel_share=0.93).lines())
    assert report(kernel_share=0.93).as_json()["kernel_share"] == 0.93
    assert not any("GPU" in line for line in report().lines()) and report().as_json()["kernel_share"] is None
    on_gpu = dataclasses.replace(SETTING, device="cuda:0 (H200)")
    assert any("the GPU could not be profiled" in line for line in report(setting=on_gpu).lines())
    limit = {**report().limit, "clock": "kernels"}
    assert not any("watched" in line for line in report(setting=on_gpu, limit=limit).lines())


KERNEL = "void at::native::(anonymous namespace)::" + "reduce_kernel<" + 50 * "float, " + "int>"
BREAKDOWN = Breakdown(
    0.01, [Operation(KERNEL, 2, 0.006), *(Operation(f"copy {index}", 1, 0.00025) for index in range(12))]
)


def test_the_breakdown_of_a_step():
    """Rows add up to the whole step, and fit a terminal."""
    lines = list(report(breakdown=BREAKDOWN).lines())
    table = lines[lines.index("") :][-15:]
    assert table[0].split() == [*"where deepexp's step spends its time calls time share".split()]
    assert table[1].startswith("reduce_kernel<float, ") and table[1].split()[-4:] == ["2", "6", "ms", "60.00%"]
    assert table[2].split() == ["copy", "0", "1", "0.25", "ms", "2.50%"]
    assert table[-2].split() == ["1", "others", "1", "0.25", "ms", "2.50%"]
    assert table[-1].split() == [*"outside of these".split(), "1", "ms", "10.00%"]
    assert sum(float(line.split()[-1].rstrip("%")) for line in table[1:]) == pytest.approx(100)
    assert max(map(len, table)) < 80
    assert report(breakdown=BREAKDOWN).as_json()["breakdown"]["operations"][0]["name"] == KERNEL
    assert report().as_json()["breakdown"] is None


def test_spinning_threads_of_other_contenders_are_mentioned(monkeypatch):
    for name in ("OMP_WAIT_POLICY", startup.MARK):
        monkeypatch.delenv(name, raising=False)
    assert any("idle threads spin" in line for line in report().lines())
    for quiet in (
        {"threads": {"deepexp": 2, "bare": 2}},
        {"threads": {"deepexp": 2, "plain": 1}},
        {"device": "cuda:0"},
    ):
        setting = dataclasses.replace(SETTING, **quiet)
        assert not any("idle threads spin" in line for line in report(setting=setting).lines())
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    assert not any("idle threads spin" in line for line in report().lines())


def test_json_holds_every_round():
    read = json.loads(json.dumps(report().as_json()))
    assert read["format"] == 1 and read["benchmark"] == "step"
    assert read["seconds"]["step"]["deepexp"] == [0.004, 0.005]
    assert read["median_seconds"]["step"]["plain"] == pytest.approx(0.015)
    assert read["ratio"]["step"]["plain"]["median"] == pytest.approx(0.325)
    assert read["limit"]["step_seconds"] == 0.003
    assert read["versions"]["torch"] and read["setting"]["threads"] == {"deepexp": 2, "plain": 2}
