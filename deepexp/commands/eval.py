"""usage: deepexp eval run=RUN [KEY=VALUE …]

The model of a run, tested again: its test error, what it takes each class for, its worst mistakes.

  deepexp eval run=outputs/mnist_net/2026-01-31_12-00-00_1a2b3c
  deepexp eval run=RUN checkpoint=best to=mistakes           with pictures, and the answer to every test sample

  run=…               directory of a run, finished or not
  checkpoint=last     last, or best: that of the best validation (val_fraction, monitor)
  device=auto         auto: CUDA, else MPS, else the CPU; or one of them
  data.root=null      where its data lie now; null: where they were
  mistakes=10         how many of the worst mistakes are listed, those of which the model is surest
  to=null             new folder for confusion and mistakes (.png, .svg) and answers.csv
  json=false          print JSON instead of tables, with all mistakes

The data have to be the same as those of the run; nothing is downloaded, and nothing of the run is changed.
Averaged weights are taken where the run has averaged them (ema), and its precision where the device has it. The rate
has a 95% interval (Wilson). The calibration error is how far the highest probabilities are from the rates at which they
are right, in 15 bins (Guo et al. 2017).
"""

import contextlib
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from deepexp.config import options
from deepexp.disk import json_file
from deepexp.disk.storage import named_by, put_new, write_text
from deepexp.errors import InputError
from deepexp.metrics import balanced_error_rate, calibration_error, confusion_matrix, top_error_rate
from deepexp.paths import shown
from deepexp.report.folder import staged
from deepexp.report.plots import confusion, mistakes
from deepexp.report.plots.plot import Missing
from deepexp.report.runs import Run, read_one
from deepexp.report.statistics import wilson_interval
from deepexp.schema import key
from deepexp.text.suggest import no_word_but_keys
from deepexp.text.terminal import Stream
from deepexp.text.text_table import Table, as_csv
from deepexp.text.units import counted, percent

if TYPE_CHECKING:
    from deepexp.inference.retest import Retest

_STAGING = ".eval-"
"""How the name of a folder begins in which results are written; they are moved out once all are complete."""
_TAKEN = "most often taken for"
_MOST_TAKEN = 3  # classes shown that a class is taken for
_MOST_CLASSES = 30  # that have a row in the terminal
_TOP = 5  # classes, of which one has to be right


@dataclass
class Options:
    """Options of `eval`."""

    run: str | None = key(None, "directory of a run")
    checkpoint: Literal["last", "best"] = key("last", "which of its checkpoints")
    device: str = key("auto", "where to test")
    data_root: str | None = key(None, "where its data lie now")
    mistakes: int = key(10, "how many of the worst mistakes are listed", minimum=0)
    to: str | None = key(None, "folder for pictures and answers")
    json: bool = key(False, "print JSON instead of tables")


def main(argv: Sequence[str]) -> int:
    """Test, print, and write what is asked for."""
    chosen, _ = options.parse(argv, Options, _no_option)
    if chosen.data_root == "":
        raise InputError("data.root: is empty; give the folder that the data lie in, or leave it out")
    run = read_one(chosen.run, "eval")
    if chosen.to is None:
        _test(chosen, run, None)
        return 0
    with _new_folder(chosen.to, run.path) as folder:
        _test(chosen, run, folder)
    return 0


def _test(chosen: Options, run: Run, to: Path | None) -> None:
    from deepexp import runtime
    from deepexp.inference.retest import on_device, retest

    with on_device(run.path, chosen.device) as device:
        where = runtime.describe_device(device)
        found = retest(run.path, which=chosen.checkpoint, device=device, data_root=chosen.data_root)
    worst = mistakes.worst_mistakes(found)
    out = Stream(sys.stdout, is_everything=True)
    if chosen.json:
        print(json_file.text_of(_as_json(run, found, worst, where)))
    else:
        out.write_lines(_lines(run, found, worst[: chosen.mistakes], where, out.columns))
    if to is not None:
        with named_by("to=DIR", to):
            written = _write(to, run, found)
        message = f"written: {', '.join(written)} in {shown(to.absolute())}"
        print(message, file=sys.stderr) if chosen.json else out.write(f"\n{message}\n")


def _no_option(word: str) -> str:
    return no_word_but_keys(word, options.names_of(Options), "tests the run of that name")


@contextlib.contextmanager
def _new_folder(word: str, run: Path) -> Iterator[Path]:
    """An empty folder, made before the work begins; removed again if the work fails and the folder was new."""
    folder = Path(os.path.expanduser(word))
    is_made_here = not os.path.lexists(folder)
    if not word or folder.resolve().is_relative_to(run.resolve()):
        raise InputError(f"to: {word or 'nothing'} is not allowed; a folder outside the run, which is not changed")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        _check_empty(folder)
    except OSError as error:
        raise InputError(f"to: cannot write into {folder}: {error.strerror or error}; give another folder") from None
    try:
        yield folder
    except BaseException:
        if is_made_here:
            with contextlib.suppress(OSError):  # somebody else has put something there meanwhile
                folder.rmdir()
        raise


def _check_empty(folder: Path) -> None:
    """`InputError` if a folder holds anything but staging folders, of tests that are running or were killed."""
    if any(not path.name.startswith(_STAGING) for path in folder.iterdir()):
        raise InputError(f"to: {folder} is there and is not empty; give a new folder, since nothing is replaced")


def _lines(run: Run, found: "Retest", worst: Sequence[int], where: str, columns: int | None) -> Iterator[str]:
    yield from _what(run, found, where)
    yield ""
    cells, errors, samples = _cells(found), found.errors, len(found.target)
    low, high = wilson_interval(errors, samples)
    yield (
        f"test error   {percent(errors / samples)}  "
        f"({errors:,} of {samples:,}; 95% interval {100 * low:.2f}–{percent(high)})"
    )
    rates = _rates(found, cells)
    if len(set(cells.sum(1)) - {0}) > 1:
        yield f"balanced     {percent(rates['balanced_error_rate'])}  (the mean of the classes' error rates)"
    if len(found.classes) > 2 * _TOP:
        yield f"top-{_TOP} error  {percent(rates[f'top_{_TOP}_error_rate'])}"
    if math.isfinite(rates["calibration_error"]):
        yield f"calibration  {percent(rates['calibration_error'])}  (expected calibration error)"
    yield f"test loss    {found.loss:.4f}"
    if compared := _compared(run, found):
        yield compared
    yield ""
    by_class, _ = _by_class(cells, found.classes).fitted(columns, ["samples", _TAKEN])
    yield from by_class.lines()
    if by_class.caption:
        yield by_class.caption
    matrix = _matrix(cells, found.classes)
    if len(found.classes) <= confusion.MOST_ANNOTATED and (columns is None or matrix.width() <= columns):
        yield ""
        yield "test samples by their true class (row) and what they are taken for (column)"
        yield from matrix.lines()
    if worst:
        yield ""
        yield "the worst mistakes, those of which the model is surest"
        listed, _ = _mistakes(found, worst).fitted(columns, ["with probability", "true class"])
        yield from listed.lines()


def _what(run: Run, found: "Retest", where: str) -> Iterator[str]:
    """Lines on the model, its data, the device, the precision and the checkpoint."""
    data, own = run.choices.get("data", "its data"), found.saved.config.precision
    precision = found.precision if own == found.precision else f"{found.precision} (trained in {own}, for CUDA only)"
    yield f"{run.choices.get('model', 'a model')} on {data}, {where}, {precision}"
    yield found.saved.in_words()


def _compared(run: Run, found: "Retest") -> str | None:
    """How the answers agree with the run's own test; None if that tested other weights, or is missing."""
    if run.summary is None or run.summary["steps"] != found.saved.step:
        return None
    try:
        own = run.predictions()
    except InputError as error:
        return f"it cannot be compared with the run's own test: {error}"
    if own is None or len(own[0]) != len(found.target):
        return None
    differ = int((own[0].astype(np.int64) != found.predicted.numpy()).sum())
    if differ == 0:
        return "the run's own test took each sample for the same class as this one"
    return f"the run's own test took {counted(differ, 'sample')} for another class, on {run.summary['device']}"


def _rates(found: "Retest", cells: np.ndarray) -> dict[str, float]:
    """Figures beside the error rate, by their names in JSON."""
    probabilities, target = found.probabilities.numpy(), found.target.numpy()
    rates = {
        "balanced_error_rate": balanced_error_rate(cells),
        "calibration_error": calibration_error(probabilities, target),
    }
    if len(found.classes) > _TOP:
        rates[f"top_{_TOP}_error_rate"] = top_error_rate(probabilities, target, _TOP)
    return rates


def _cells(found: "Retest") -> np.ndarray:
    return confusion_matrix(found.predicted.numpy(), found.target.numpy(), len(found.classes))


def _by_class(cells: np.ndarray, classes: Sequence[str]) -> Table:
    """A row for each class that has test samples; where they are many, for those with the highest error rates."""
    samples, errors = cells.sum(1), cells - np.diag(np.diag(cells))  # (classes,), (classes, classes)
    tested = [int(index) for index in samples.nonzero()[0]]
    shown = tested
    if len(tested) > _MOST_CLASSES:
        shown = sorted(tested, key=lambda index: -errors[index].sum() / samples[index])[:_MOST_CLASSES]
    rows = []
    for index in shown:
        order = np.argsort(-errors[index], kind="stable")[:_MOST_TAKEN]
        taken = ", ".join(f"{classes[other]} ({errors[index, other]:,})" for other in order if errors[index, other])
        wrong = int(errors[index].sum())
        rows.append([classes[index], f"{samples[index]:,}", f"{wrong:,}", percent(wrong / samples[index]), taken])
    rest = ""
    if shown is not tested:
        most = percent(errors[shown[-1]].sum() / samples[shown[-1]])
        rest = f"and {len(tested) - len(shown):,} more classes, with error rates of at most {most}"
    return Table(["class", "samples", "errors", "error rate", _TAKEN], rows, frozenset({1, 2, 3}), rest)


def _matrix(cells: np.ndarray, classes: Sequence[str]) -> Table:
    rows = [
        [name, *(f"{count:,}" if count else "·" for count in row)]
        for name, row in zip(classes, cells.tolist(), strict=True)
    ]
    return Table(["", *classes], rows, frozenset(range(1, len(classes) + 1)))


def _mistakes(found: "Retest", worst: Sequence[int]) -> Table:
    answers = list(_answers(found, worst))
    columns = {
        "sample": [f"{answer['sample']:,}" for answer in answers],
        "true class": [answer["true"] for answer in answers],
        "taken for": [answer["predicted"] for answer in answers],
        "with probability": [f"{100 * answer['probability']:.1f}%" for answer in answers],
    }
    if found.files is not None:
        columns["file"] = [shown(Path(answer["file"])) for answer in answers]
    return Table.of_columns(columns, left={"true class", "taken for", "file"})


def _answers(found: "Retest", samples: Sequence[int]) -> Iterator[dict[str, Any]]:
    target, predicted = found.target.tolist(), found.predicted.tolist()
    probability = found.probabilities.amax(1).tolist()
    for sample in samples:
        yield {
            "sample": sample,
            "true": found.classes[target[sample]],
            "predicted": found.classes[predicted[sample]],
            "probability": probability[sample],
            **({} if found.files is None else {"file": found.files[sample]}),
        }


def _as_json(run: Run, found: "Retest", worst: Sequence[int], where: str) -> dict[str, object]:
    errors, samples = found.errors, len(found.target)
    return {
        "run": str(run.path),
        **found.saved.facts(),
        "device": where,
        "precision": found.precision,
        "test_errors": errors,
        "test_samples": samples,
        "test_error_rate": errors / samples,
        "test_error_interval": wilson_interval(errors, samples),
        **_rates(found, _cells(found)),
        "test_loss": found.loss,
        "classes": list(found.classes),
        "confusion": _cells(found).tolist(),
        "mistakes": list(_answers(found, worst)),
    }


def _write(folder: Path, run: Run, found: "Retest") -> list[str]:
    """Write the pictures and the answers, all of them or none, into a folder that is still empty; their names."""
    with staged(folder, _STAGING) as staging:
        names = _fill(staging, run, found)
        _check_empty(folder)  # another test may have been written there meanwhile
        try:
            for name in names:
                put_new(staging / name, folder / name)
        except BaseException as error:
            for name in names:
                if not (staging / name).exists():
                    (folder / name).unlink(missing_ok=True)
            if isinstance(error, FileExistsError):
                _check_empty(folder)
            raise
    return names


def _fill(folder: Path, run: Run, found: "Retest") -> list[str]:
    from deepexp.pages import plotting

    written = []
    for plot in (
        confusion.draw_matrix(_cells(found), run.name, "confusion", found.classes),
        mistakes.draw_sheet(found, run.name),
    ):
        if not isinstance(plot, Missing):
            written += [path.name for path in plotting.save(plot.figure, folder / plot.name)]
    answers = list(_answers(found, range(len(found.target))))
    write_text(folder / "answers.csv", as_csv(list(answers[0]), [list(answer.values()) for answer in answers]))
    return [*written, "answers.csv"]
