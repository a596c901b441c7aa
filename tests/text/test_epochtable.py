import dataclasses
import re

import pytest

from deepexp.metrics import EpochMetrics
from deepexp.text.epochtable import EpochTable

METRICS = EpochMetrics(
    epoch=7,
    step=4200,
    train_loss=0.51234,
    train_error_rate=0.1234,
    test_loss=0.41234,
    test_errors=1042,
    test_error_rate=0.1042,
    val_loss=0.31234,
    val_error_rate=0.0942,
    lr=0.0001,
    grad_norm=1.2345,
    samples_per_second=123_456,
    train_seconds=10.0,
    test_seconds=2.34,
    elapsed_seconds=3723,
)


@pytest.mark.parametrize("has_validation", [False, True])
@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
@pytest.mark.parametrize("epochs", [7, 10, 1000])
def test_lines_fit_and_are_aligned_with_their_titles(width, epochs, has_validation):
    table = EpochTable(epochs, width, has_validation=has_validation)
    title, line = table.title(), table.line(METRICS)
    assert len(title) == len(line) <= width
    ends = {match.end() for match in re.finditer(r"\S(?=\s{2}|$)", title)}
    assert ends == {match.end() for match in re.finditer(r"\S(?=\s{2}|$)", line)}


def test_main_figures_are_shown_at_80_columns():
    table = EpochTable(10, 80, has_validation=False)
    shown = dict(zip(re.split(r"\s{2,}", table.title()), table.line(METRICS).split("  "), strict=False))
    line = table.line(METRICS)
    for figure in ("7/10", "0.5123", "12.34%", "0.4123", "10.42%", "1,042", "123,456", "12.3 s"):
        assert figure in line, shown
    assert "9.42%" in EpochTable(10, 80, has_validation=True).line(METRICS)


def test_all_figures_are_shown_at_200_columns():
    line = EpochTable(10, 200, has_validation=True).line(METRICS)
    for figure in ("0.3123", "9.42%", "0.0001", "1.2345", "1:02:03"):
        assert figure in line


def test_unknown_figures_are_dashes():
    metrics = dataclasses.replace(
        METRICS, test_loss=None, test_errors=None, test_error_rate=None, train_error_rate=None
    )
    line = EpochTable(10, 80, has_validation=False).line(metrics)
    assert line.split().count("-") == 4
