"""Whether two run directories hold the same run bit for bit, apart from times."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from deepexp import checkpoint


def assert_same_run(run: Path, whole: Path) -> None:
    """Checkpoints, predictions, metrics, summary and curves must be equal bit for bit."""
    mine, theirs = (state(path / "checkpoints" / "last.pt") for path in (run, whole))
    assert_equal(mine, theirs)
    if (whole / "checkpoints" / "best.pt").exists():
        assert_equal(*(state(path / "checkpoints" / "best.pt") for path in (run, whole)))
    for name in ("predicted", "target"):
        arrays = [np.load(path / "predictions.npz")[name] for path in (run, whole)]
        assert np.array_equal(*arrays)
    assert lines(run / "metrics.jsonl") == lines(whole / "metrics.jsonl")
    assert lines(run / "summary.json") == lines(whole / "summary.json")
    assert curves(run) == curves(whole)


def state(path: Path) -> dict[str, Any]:
    content = checkpoint.load(path)
    del content["logs"]  # lengths in bytes, which vary with the number of digits of times
    del content["identity"]  # config and code as given, which may differ for the same result
    content["progress"] = without_clocks(content["progress"])
    return content


def assert_equal(mine: Any, theirs: Any) -> None:
    assert type(mine) is type(theirs)
    if isinstance(mine, torch.Tensor):
        assert mine.dtype == theirs.dtype and torch.equal(mine, theirs)
    elif isinstance(mine, dict):
        assert list(mine) == list(theirs)
        for key in mine:
            assert_equal(mine[key], theirs[key])
    elif isinstance(mine, (list, tuple)):
        assert len(mine) == len(theirs)
        for one, other in zip(mine, theirs, strict=True):
            assert_equal(one, other)
    else:
        assert mine == theirs


def lines(path: Path) -> list[dict[str, Any]]:
    text = path.read_text()
    return [without_clocks(json.loads(line)) for line in ([text] if path.suffix == ".json" else text.splitlines())]


def without_clocks(figures: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in figures.items() if not key.endswith(("seconds", "per_second"))}


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith("speed/")]
    return {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in tags}
