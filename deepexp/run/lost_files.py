"""Resuming a run that has lost files beside its checkpoint: removed by hand, or with the disk that they were on.

Their figures are gone, but the run can go on. Files that are there but damaged are refused elsewhere.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from deepexp import checkpoint
from deepexp.data.dataset import Dataset, Pictures
from deepexp.errors import InputError
from deepexp.run import event_format
from deepexp.run.rundir import RunDirectory

METRICS, EVENTS, PROVENANCE, STATUS = "metrics.jsonl", "events.out.tfevents", "provenance.json", "status.json"

_LOGS = {METRICS: "metrics.jsonl", EVENTS: "events"}
"""File → what `RunLog.offsets` calls it."""


def lost_files(run: RunDirectory, content: Mapping[str, Any]) -> list[str]:
    """The files that a run had when its checkpoint was written, and that are now missing or empty.

    Raises `InputError` if the checkpoint does not say how long they were.
    """
    paths = {METRICS: run.path / METRICS, EVENTS: event_format.present(run.path)}
    logs = _lengths(run, content)
    lost = [name for name in (STATUS, PROVENANCE) if not (run.path / name).exists()]
    for name, path in paths.items():
        size = path.stat().st_size if path is not None and path.exists() else 0
        if size == 0 and logs.get(_LOGS[name], 0) > 0:
            lost.append(name)
    return lost


def begin_anew(run: RunDirectory, content: dict[str, Any], lost: Sequence[str]) -> None:
    """Record in the checkpoints that the lost files are empty, before anything is written into new ones.

    Otherwise a run that is cut off once more would cut the new files back to the lengths of the old ones.
    """
    offsets = {_LOGS[name]: 0 for name in lost if name in _LOGS}
    if not offsets:
        return
    content["logs"] = {**content["logs"], **offsets}
    for path in (run.checkpoints / name for name in (checkpoint.LAST, checkpoint.PREVIOUS)):
        try:
            saved = checkpoint.load(path)
            before = _lengths(run, saved)
        except InputError:
            continue  # missing or damaged: no run goes on from it
        checkpoint.save(path, {**saved, "logs": {**before, **offsets}})


def _lengths(run: RunDirectory, content: Mapping[str, Any]) -> dict[str, int]:
    """`RunLog.offsets` as saved in a checkpoint; `InputError` if it holds something else."""
    logs = content.get("logs")
    if not isinstance(logs, dict) or not all(type(length) is int and length >= 0 for length in logs.values()):
        raise InputError(f"{run.checkpoints}: the checkpoint does not say how long the run's files were (logs)")
    return logs


def known_by_digest(run: RunDirectory, data: Dataset) -> bool | None:
    """Whether the run was trained on these data, as the digest in `provenance.json` tells; None where that is lost."""
    if not (run.path / PROVENANCE).exists():
        return None
    return bool(run.read_json(PROVENANCE).get("data_fingerprint") == data.fingerprint)


def may_be_of(data: Dataset, content: Mapping[str, Any]) -> bool:
    """Whether these data agree with what a checkpoint records of its pictures; true for an old one without that."""
    if "pictures" not in content:
        return True
    try:
        return Pictures.of(content["pictures"], len(data.mean), len(data.classes)).may_be_of(data)
    except (AttributeError, KeyError, TypeError, ValueError):
        return False


def in_words(lost: Sequence[str], step: int) -> str:
    """The warning about lost files."""
    were = "was" if len(lost) == 1 else "were"
    told = f"{' and '.join(lost)} {were} missing: the content is lost, and begins anew at step {step}"
    if PROVENANCE in lost:
        told += "; only their mean, deviation and classes show that the data are the same"
    return told
