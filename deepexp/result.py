"""The results of runs, for Python, read from the files of their directories."""

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from deepexp.errors import InputError
from deepexp.process import alone
from deepexp.text.units import counted, first_few, percent

if TYPE_CHECKING:
    from torch import nn

    from deepexp.inference.prediction import Predictions


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """A finished run: `result.test_error_rate` and every other key of `summary.json` are attributes of it."""

    directory: Path
    summary: dict[str, Any]
    metrics: list[dict[str, Any]]
    """One mapping for each evaluation, as in `metrics.jsonl`."""

    def __getattr__(self, name: str) -> Any:
        summary = self.__dict__.get("summary", {})  # copy and pickle ask before there is one
        try:
            return summary[name]
        except KeyError:
            raise AttributeError(f"a result has no {name!r}; its summary has {', '.join(summary)}") from None

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.summary})

    @property
    def config(self) -> dict[str, Any]:
        """The run's whole config, nested as in YAML; `InputError` if its file is missing or damaged."""
        from deepexp.run import saved_config
        from deepexp.run.rundir import RunDirectory

        return saved_config.values(RunDirectory.open(self.directory))

    @property
    def model(self) -> "nn.Module":
        """The trained model, on the CPU and in test mode; its averaged weights where the run has averaged them."""
        from deepexp.inference.saved_model import load

        return load(self.directory).model

    @property
    def best_model(self) -> "nn.Module":
        """As `model`, with the weights of `best.pt`: those that were best in validation.

        `InputError` for a run without validation data, which has none.
        """
        from deepexp.inference.saved_model import load

        return load(self.directory, "best").model

    def predict(
        self,
        *pictures: str | Path,
        checkpoint: Literal["last", "best"] = "last",
        device: str = "auto",
        invert: bool = False,
    ) -> "Predictions":
        """What the model takes picture files for, as `deepexp predict`; folders stand for the pictures below them.

        `.labels` has the name of a class for each file in `.files`, `.probabilities` (files, classes) float32 how sure
        the model is of each of `.classes`. Raises `InputError` for files that are no pictures, and without `best.pt`.
        """
        from deepexp.data.folder_scan import pictures_below
        from deepexp.inference.prediction import predict
        from deepexp.inference.retest import on_device

        if not pictures:
            raise InputError("predict: of which pictures? Give files or folders")
        files = [file for one in pictures for file in (pictures_below(Path(one)) if Path(one).is_dir() else [str(one)])]
        with alone.LOCK, on_device(self.directory, device) as where:
            return predict(self.directory, files, which=checkpoint, device=where, invert=invert)

    def __repr__(self) -> str:
        return f"Result({str(self.directory)!r}, test error {percent(self.summary['test_error_rate'])})"


def load_run(directory: str | Path) -> Result:
    """The result of a run directory; `InputError` if it is none, or the run has not finished."""
    if not isinstance(directory, str | os.PathLike):
        raise InputError(f"directory: {directory!r} is not allowed; the path of a run directory")
    directory = Path(directory)
    summary = directory / "summary.json"
    if (directory / "sweep.json").exists():
        raise InputError(f"{directory}: is a sweep; give the directory of one of the runs in it, or take load_runs")
    if not summary.exists():
        is_run = (directory / "status.json").exists()
        what = "has not finished" if is_run else "is no run directory"
        remedy = f"; if it was cut off, deepexp.train(['resume={directory}']) goes on with it" if is_run else ""
        raise InputError(f"{directory}: {what} (there is no summary.json in it){remedy}")
    metrics = directory / "metrics.jsonl"
    try:
        content = json.loads(summary.read_text(encoding="utf-8"))
        text = metrics.read_text(encoding="utf-8") if metrics.exists() else ""  # lost; the result is whole without it
        lines = [json.loads(line) for line in text.splitlines()]
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{directory}: its summary.json or metrics.jsonl is damaged ({error})") from error
    if not isinstance(content, dict) or "test_error_rate" not in content:
        raise InputError(f"{summary}: is damaged (it has no test_error_rate)")
    return Result(directory, content, lines)


def load_runs(*paths: str | Path) -> list[Result]:
    """The results of all runs that have finished in these sweeps, runs, or folders above them; jobs as in their grid.

    A warning tells which of the runs there have no result. Raises `InputError` for a path in which there is no run.
    """
    from deepexp.report.runs import DONE, read

    if not paths or not all(isinstance(path, str | os.PathLike) for path in paths):
        raise InputError(f"paths: {', '.join(map(repr, paths)) or 'nothing'} is not allowed; sweeps, runs, or folders")
    reading = read([Path(path) for path in paths])
    unfinished = [f"{run.path}: {run.status}" for run in reading.runs if run.status != DONE]
    if missing := [*unfinished, *reading.damaged, *reading.not_started]:
        log.warning("%s without a result: %s", counted(len(missing), "run"), first_few(missing))
    return [load_run(run.path) for run in reading.runs if run.status == DONE]
