"""The results that a run had before it goes on or begins anew: they are kept, under other names."""

import itertools
import logging
import os
from collections.abc import Iterator

from deepexp import checkpoint
from deepexp.disk.storage import storage_errors, sync_directory
from deepexp.errors import InputError
from deepexp.run import event_format
from deepexp.run.rundir import RunDirectory

log = logging.getLogger(__name__)


def keep_summary(run: RunDirectory) -> None:
    """Rename `summary.json` to `summary.epoch<N>.json`, and `predictions.npz` likewise.

    If that name is taken, by an earlier end within the same epoch, it is `summary.epoch<N>.step<M>.json`. A summary
    that cannot be read, so that its epoch is not known, becomes `summary.damaged.json`.
    """
    summary, predictions = run.path / "summary.json", run.path / "predictions.npz"
    if not summary.exists():
        return
    for when in _possible_names(run):
        kept, kept_predictions = run.path / f"summary.{when}.json", run.path / f"predictions.{when}.npz"
        if not kept.exists() and not kept_predictions.exists():
            break
    with storage_errors(summary, option=None):
        if predictions.exists():
            os.replace(predictions, kept_predictions)
        os.replace(summary, kept)
        sync_directory(run.path)


def _possible_names(run: RunDirectory) -> Iterator[str]:
    """What may be inserted into the names of the old summary and predictions, the preferred first."""
    try:
        content = run.read_json("summary.json")
    except InputError as error:
        log.warning("%s; it is kept, and the run goes on", error)
        last = "damaged"
    else:
        epochs, steps = content.get("epochs"), content.get("steps")
        if not isinstance(epochs, int) or not isinstance(steps, int):  # they become part of a file's name
            raise InputError(f"{run.path / 'summary.json'} is damaged: epochs is {epochs!r}, steps is {steps!r}")
        yield f"epoch{epochs}"
        last = f"epoch{epochs}.step{steps}"
    yield last
    yield from (f"{last}.{number}" for number in itertools.count(2))


def keep_attempt(run: RunDirectory) -> None:
    """Rename `metrics.jsonl` to `metrics.attempt<N>.jsonl`, and `best.pt` and the curves likewise.

    An attempt with neither measurements nor `best.pt` leaves nothing to keep. TensorBoard ignores the curves' name.
    """
    metrics, best = run.path / "metrics.jsonl", run.checkpoints / checkpoint.BEST
    with storage_errors(run.path, option=None):
        has_figures = metrics.exists() and metrics.stat().st_size > 0
        if not has_figures and not best.exists():
            return
        for number in itertools.count(1):
            names = {
                metrics: metrics.with_name(f"metrics.attempt{number}.jsonl"),
                best: best.with_name(f"best.attempt{number}.pt"),
                event_format.present(run.path) or run.path / "events": run.path / f"curves.attempt{number}",
            }
            if not any(kept.exists() for kept in names.values()):
                break
        kept_now = {path: kept for path, kept in names.items() if path.exists()}
        for path, kept in kept_now.items():
            os.replace(path, kept)
            sync_directory(path.parent)
    kept_in = " and ".join(str(kept.relative_to(run.path)) for kept in kept_now.values())
    log.warning("the results of the earlier attempt are kept in %s: %s", run.path, kept_in)
