"""Numbers and lists as people read them."""

import statistics
import textwrap
from collections.abc import Sequence


def duration(seconds: float) -> str:
    """`0.42 s`, `12.3 s`, `2:05`, `1:02:03`: three figures, then minutes, then hours."""
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    return clock(seconds)


def clock(seconds: float) -> str:
    """`0:07`, `2:05`, `1:02:03`: minutes and seconds, and hours if there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def percent(rate: float) -> str:
    """A fraction in percent, to a hundredth of one."""
    return f"{100 * rate:.2f}%"


def mean_percent(rates: Sequence[float]) -> str:
    """`4.21 ± 0.42%`: the mean of fractions and, of several, their sample standard deviation, in percent."""
    spread = f" ± {100 * statistics.stdev(rates):.2f}" if len(rates) > 1 else ""
    return f"{100 * statistics.fmean(rates):.2f}{spread}%"


def amount(number: float, unit: str = "") -> str:
    """`12,345 pictures`; bytes (unit `B`) in a size that suits: `170.5 MB`."""
    if unit != "B":
        return f"{number:,.0f} {unit}".rstrip()
    for size, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f} {prefix}B"
    return f"{number:.0f} B"


def counted(number: int, thing: str) -> str:
    """`1 run`, `1,438 samples`, `2 classes`: so many of a thing, which is named in the singular."""
    ending = "" if number == 1 else "es" if thing.endswith("s") else "s"
    return f"{number:,} {thing}{ending}"


def first_few(words: Sequence[str], comma: str = ", ", most: int = 3) -> str:
    """`a, b, c and 2 more`: some words, but not all where there are many."""
    more = f" and {len(words) - most:,} more" if len(words) > most else ""
    return f"{comma.join(words[:most])}{more}"


def one_line(text: object, most: int = 400) -> str:
    """A text of several lines, as torch's errors are, on one line of at most `most` characters."""
    return textwrap.shorten(str(text), most, placeholder=" …")


def age(seconds: float) -> str:
    """`40 s`, `5 min`, `3 h`, `12 d`: how long ago something was, in the largest unit of which there are two."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
