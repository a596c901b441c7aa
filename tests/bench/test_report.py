import json

import pytest

from deepexp.bench.report import Report, Setting

SETTING = Setting("mnist_net", "digits", "sgd", 100, "fp32", "cpu (2 threads)", {"deepexp": 2, "plain": 2}, 50, [])


def report(**changes):
    values = {
        "setting": SETTING,
        "figures": {"step": {"deepexp": [0.004, 0.005], "plain": [0.01, 0.02]}},
        "test_error_rates": {},
        "peak_memory_bytes": {"deepexp": {"main": 9 * 10**8, "device": None}, "plain": {"main": 10**9, "device": None}},
        "epoch_left_out_seconds": None,
    }
    return Report(**{**values, **changes})


def test_the_table_has_medians_and_the_ratio():
    text = "\n".join(report().lines())
    assert "mnist_net on digits, batch size 100, sgd, fp32\ncpu (2 threads), torch " in text
    row = next(line for line in text.splitlines() if line.startswith("step"))
    assert row.split() == ["step", "4.5", "ms", "15", "ms", "0.33", "(0.25–0.40)", "2"]
    assert "900.0 MB" in text and "0.90" in text
    assert "GPU" not in text and "threads differ" not in text
    assert text.isprintable() or set(text) - set("\n") == {sign for sign in text if sign.isprintable()}


def test_what_was_left_out_is_said():
    assert "epoch_rounds=1 measures it" in "\n".join(report(epoch_left_out_seconds=300.0).lines())


def test_json_holds_every_round():
    read = json.loads(json.dumps(report().as_json()))
    assert read["format"] == 1
    assert read["seconds"]["step"]["deepexp"] == [0.004, 0.005]
    assert read["median_seconds"]["step"]["plain"] == pytest.approx(0.015)
    assert read["ratio"]["step"]["median"] == pytest.approx(0.325)
    assert read["versions"]["torch"] and read["setting"]["threads"] == {"deepexp": 2, "plain": 2}
