import pytest

from deepexp.text.units import amount, clock, counted, duration, first_few, one_line, percent


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.00 s"),
        (0.4249, "0.42 s"),
        (9.994, "9.99 s"),
        (9.996, "10.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1:00"),
        (125, "2:05"),
        (3599.6, "1:00:00"),
        (3723, "1:02:03"),
        (90000, "25:00:00"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "thing", "text"),
    [
        (0, "run", "0 runs"),
        (1, "run", "1 run"),
        (1438, "training sample", "1,438 training samples"),
        (1, "class", "1 class"),
        (2, "class", "2 classes"),
    ],
)
def test_counted(number, thing, text):
    assert counted(number, thing) == text


def test_clock():
    assert [clock(seconds) for seconds in (0.4, 7, 59.6, 3723)] == ["0:00", "0:07", "1:00", "1:02:03"]


def test_percent():
    assert [percent(rate) for rate in (0, 1 / 360, 0.025, 1)] == ["0.00%", "0.28%", "2.50%", "100.00%"]


@pytest.mark.parametrize(
    ("number", "unit", "text"),
    [
        (12345.4, "", "12,345"),
        (60000, "pictures", "60,000 pictures"),
        (999, "B", "999 B"),
        (170_498_071, "B", "170.5 MB"),
        (2_500, "B", "2.5 kB"),
        (3e9, "B", "3.0 GB"),
        (1.4e12, "B", "1.4 TB"),
        (28e15, "B", "28.0 PB"),
        (5e18, "B", "5.0 EB"),
    ],
)
def test_amount(number, unit, text):
    assert amount(number, unit) == text


@pytest.mark.parametrize(("words", "told"), [("a", "a"), ("abc", "a; b; c"), ("abcde", "a; b; c and 2 more")])
def test_only_the_first_of_many_words_are_listed(words, told):
    assert first_few(list(words), "; ") == told


def test_an_error_of_several_lines_becomes_one_line():
    assert one_line(ValueError("of\n\ttorch")) == "of torch"
    assert one_line("word " * 10, most=12) == "word word …"
