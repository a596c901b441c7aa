import pytest

from deepexp.bench import compare


def test_contenders_take_turns_at_going_first():
    seen = []

    def measure(contender):
        seen.append(contender)
        return float(len(seen))

    figures = compare.rounds({"a": "A", "b": "B"}, measure, 3, lambda: seen.append("."))
    assert "".join(seen) == "A.B.B.A.A.B."
    assert figures == {"a": [1.0, 7.0, 9.0], "b": [3.0, 5.0, 11.0]}


def test_one_outlying_round_moves_neither_ratio_nor_medians():
    figures = {"a": [1.0, 100.0, 1.2], "b": [2.0, 210.0, 2.0]}
    ratio = compare.ratio(figures, "a", "b")
    assert ratio.median == pytest.approx(0.5)
    assert (ratio.lowest, ratio.highest) == (pytest.approx(100 / 210), pytest.approx(0.6))
    assert compare.ratios(figures, "a") == {"b": ratio}
    assert compare.medians(figures) == {"a": 1.2, "b": 2.0}
