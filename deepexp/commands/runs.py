"""usage: deepexp runs [PATH…] [KEY=VALUE …]

What is in outputs/, or in PATH: a line for each run, with its status, result, age and size.

  deepexp runs model=resnet                     of one model; any group, config key, or figure of the summary
  deepexp runs status=failed,interrupted        done, running, failed, interrupted, paused (others
                                                were better), or cut-off: its process is gone
  deepexp runs optim.lr=0.1 'test_error_rate<0.02' sort=val_error_rate
  deepexp runs data=cifar* sort=-age            the oldest first
  deepexp runs prune=true                       shows which checkpoints could be removed, and asks

  sort=null           any such key, or age, size; with a minus before it the other way round
  json=false          print JSON instead of a table
  prune=false         remove checkpoints of runs that are done: of old runs all, of others previous.pt
  older_than=30d      what is old: 90d, 12h, 2w
  confirm=false       with prune=true: remove without asking

Conditions also choose what is pruned. Runs that are not done keep all, so that they can be resumed; a run without
checkpoints keeps its results, but can be trained no further, and its model cannot be loaded any more.
"""

import datetime
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deepexp.config import options
from deepexp.disk import json_file
from deepexp.errors import InputError, RunFailed
from deepexp.paths import shown
from deepexp.report import listing, prune
from deepexp.report.folder import without_reports
from deepexp.report.runs import FAILED, Run, is_empty, read
from deepexp.schema import key
from deepexp.text.suggest import did_you_mean
from deepexp.text.terminal import Stream, printable
from deepexp.text.text_table import Table
from deepexp.text.units import age, amount, counted, percent

DEFAULT = Path("outputs")
OLD = "30d"
EXPENDABLE = ("model", "data", "optim", "size", "val error", "age")


@dataclass
class Options:
    """Options of `runs`."""

    sort: str | None = key(None, "key to sort by")
    json: bool = key(False, "print JSON instead of a table")
    prune: bool = key(False, "remove checkpoints")
    older_than: str | None = key(None, "age from which on all checkpoints go")
    confirm: bool = key(False, "remove without asking")


_NAMES = options.names_of(Options)


def main(argv: Sequence[str]) -> int:
    """List the runs that are asked for, or remove checkpoints of them."""
    chosen, words = options.parse(argv, Options)
    paths, conditions = _sorted_out(words)
    older_than = chosen.older_than or OLD
    limit = _seconds(older_than)
    _check_together(chosen)
    if paths == [DEFAULT] and is_empty(DEFAULT):
        print("[]" if chosen.json else f"there are no runs in {DEFAULT}/ here")
        return 0
    reading = read(paths)
    now = datetime.datetime.now().astimezone()
    runs = listing.chosen(reading.runs, conditions, _NAMES)
    if chosen.sort is not None:
        if not chosen.sort.removeprefix("-"):
            raise InputError("sort: is empty; give a key to sort by, or age or size")
        runs = _in_order(runs, chosen.sort, now)
    for line in reading.damaged:
        print(f"damaged: {printable(line)}", file=sys.stderr)
    for line in listing.near_misses(reading.runs, conditions):
        print(printable(line), file=sys.stderr)
    if chosen.prune:
        return _prune(prune.plan(runs, limit, now), older_than, confirmed=chosen.confirm)
    if chosen.json:
        print(json_file.text_of([_as_json(run, now) for run in runs]))
    else:
        _show(runs, now)
    return 0


def _check_together(chosen: Options) -> None:
    """`InputError` for options that would have no effect."""
    if chosen.confirm and not chosen.prune:
        raise InputError("confirm: confirms prune=true, which was not asked for")
    if chosen.older_than is not None and not chosen.prune:
        raise InputError("older_than: says what prune=true removes, which was not asked for; sort=age sorts by it")
    if chosen.json and chosen.prune:
        raise InputError("json: prints what runs there are, and prune=true removes some of them; leave out one of them")


def _sorted_out(words: Sequence[str]) -> tuple[list[Path], list[listing.Condition]]:
    """(paths, conditions). Runs of a sweep have `=` in their names: a word that exists as a path is one."""
    paths, conditions = [], []
    for word in words:
        path = Path(os.path.expanduser(word))
        condition = None if path.exists() else listing.parse_condition(word)
        if condition is not None:
            conditions.append(condition)
        elif path.exists() or "/" in word:
            paths.append(path)
        else:
            raise InputError(f"{word}: is no path and no KEY=VALUE{did_you_mean(word, _NAMES)}")
    return without_reports(paths) or [DEFAULT], conditions


def _in_order(runs: Sequence[Run], sort: str, now: datetime.datetime) -> list[Run]:
    special = {"age": lambda run: prune.seconds_since_end(run.state, now), "size": lambda run: prune.size(run.path)}
    return listing.in_order(runs, sort, [*_NAMES, *special], special.get(sort.removeprefix("-")))


def _show(runs: Sequence[Run], now: datetime.datetime) -> None:
    out = Stream(sys.stdout, is_everything=True)
    table, dropped = _table(runs, now).fitted(out.columns, EXPENDABLE)
    out.write_lines(table.lines())
    hidden = f"; not shown for want of room: {', '.join(dropped)}" if dropped else ""
    out.write(f"\n{counted(len(runs), 'run')}{hidden}\n")


def _table(runs: Sequence[Run], now: datetime.datetime) -> Table:
    columns = {
        "status": [run.status.upper() if run.status == FAILED else run.status for run in runs],
        **{group: [run.choices.get(group, "-") for run in runs] for group in ("model", "data", "optim")},
        "val error": [_rate(run, "val_error_rate") for run in runs],
        "test error": [_rate(run, "test_error_rate") for run in runs],
        "age": ["-" if (ago := prune.seconds_since_end(run.state, now)) is None else age(ago) for run in runs],
        "size": [amount(prune.size(run.path), "B") for run in runs],
        "path": [shown(run.path.absolute()) for run in runs],
    }
    if not any(text != "-" for text in columns["val error"]):
        del columns["val error"]
    return Table.of_columns(columns, left={"status", "model", "data", "optim", "path"})


def _rate(run: Run, name: str) -> str:
    """An error rate of the summary; for a run that is not done, from its last evaluation, in brackets."""
    if run.summary is not None:
        value = run.summary[name]
        return "-" if value is None else percent(value)
    known = [line[name] for line in run.metrics if line[name] is not None]
    return f"({percent(known[-1])})" if known else "-"


def _as_json(run: Run, now: datetime.datetime) -> dict[str, object]:
    return {
        "path": str(run.path),
        "status": run.status,
        "reason": run.reason,
        "choices": dict(run.choices),
        "overrides": list(run.overrides),
        "summary": run.summary,
        "age_seconds": prune.seconds_since_end(run.state, now),
        "size_bytes": prune.size(run.path),
    }


def _prune(plan: Sequence[prune.Pruning], older_than: str, *, confirmed: bool) -> int:
    """Show what would go, and remove it if that is confirmed, here or on the command line."""
    if not plan:
        print(f"nothing to remove: no run that is done has checkpoints older than {older_than} or a spare one")
        return 0
    print("\n".join(_plan_lines(plan, older_than)))
    if not confirmed and not _asked():
        print("nothing was removed; confirm=true removes it")
        return 0
    freed, problems = 0, []
    for pruning in plan:
        try:
            prune.remove(pruning)
            freed += pruning.frees_bytes
        except (InputError, OSError) as error:
            problems.append(f"{shown(pruning.run.path.absolute())}: its checkpoints were not removed: {error}")
    print(f"removed from {len(plan) - len(problems):,} of {counted(len(plan), 'run')}: {amount(freed, 'B')}")
    if problems:
        raise RunFailed("\n".join(problems))
    return 0


def _plan_lines(plan: Sequence[prune.Pruning], older_than: str) -> Iterator[str]:
    columns = {
        "path": [shown(pruning.run.path.absolute()) for pruning in plan],
        "checkpoints": [", ".join(path.name for path in pruning.files) for pruning in plan],
        "frees": [amount(pruning.frees_bytes, "B") for pruning in plan],
    }
    yield from Table.of_columns(columns, left={"path", "checkpoints"}).lines()
    yield ""
    old = sum(pruning.is_all for pruning in plan)
    if old:
        yield f"{old:,} of them ended more than {older_than} ago and would keep none: no model to load or go on from"
    yield f"{counted(len(plan), 'run')}, {amount(sum(pruning.frees_bytes for pruning in plan), 'B')} in all"


def _asked() -> bool:
    """Whether somebody at a terminal says yes."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    try:
        return input("remove these? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([hdw])", text)
    if found is None:
        raise InputError(f"older_than: {text!r} is not allowed; a number and a unit: 12h, 30d, 2w")
    return float(found[1]) * {"h": 3_600, "d": 86_400, "w": 7 * 86_400}[found[2]]
