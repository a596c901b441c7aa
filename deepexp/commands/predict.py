"""usage: deepexp predict run=RUN PICTURE… [KEY=VALUE …]

The classes that a run's model predicts for pictures, and their probabilities. PICTURE is a file, or a folder of them.

  deepexp predict run=outputs/mnist_net/2026-01-31_12-00-00_1a2b3c seven.png
  deepexp predict run=RUN input=scans invert=true csv=true > scans.csv

  run=…               directory of a run, finished or not
  input=null          the same as PICTURE, for one
  checkpoint=last     last, or best: that of the best validation (val_fraction, monitor)
  device=auto         auto: CUDA, else MPS, else the CPU; or one of them
  top=3               how many classes are shown for each, the most probable first
  invert=false        invert the pictures: a model of MNIST knows bright digits on dark paper
  json=false          print JSON, with the probabilities of all classes
  csv=false           print CSV with the same: picture, class, probability, and then a column for each class

Pictures are brought to the size of those that the model was trained on and normalised as they were; warnings say what
that changes. Nothing of the run is changed, and its data are not needed.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deepexp.config import options
from deepexp.disk import json_file
from deepexp.errors import InputError
from deepexp.report.runs import one_directory
from deepexp.schema import key
from deepexp.text.suggest import no_such
from deepexp.text.terminal import Stream
from deepexp.text.text_table import Table, as_csv

if TYPE_CHECKING:
    from deepexp.inference.prediction import Predictions


@dataclass
class Options:
    """Options of `predict`."""

    run: str | None = key(None, "directory of a run")
    input: str | None = key(None, "a picture, or a folder of pictures")
    checkpoint: Literal["last", "best"] = key("last", "which of its checkpoints")
    device: str = key("auto", "where to predict")
    top: int = key(3, "how many classes are shown", minimum=1)
    invert: bool = key(False, "invert the pictures, bright for dark")
    json: bool = key(False, "print JSON")
    csv: bool = key(False, "print CSV")


def main(argv: Sequence[str]) -> int:
    """Decode the pictures, ask the model, and print what it says."""
    chosen, words = options.parse(argv, Options)
    if chosen.json and chosen.csv:
        raise InputError("csv: json=true is given too; choose one")
    files = _files([*([] if chosen.input is None else [chosen.input]), *words])
    run = one_directory(chosen.run, "predict")

    from deepexp.inference.prediction import predict
    from deepexp.inference.retest import on_device

    with on_device(run, chosen.device) as device:
        found = predict(run, files, which=chosen.checkpoint, device=device, invert=chosen.invert)
    if chosen.json:
        print(json_file.text_of(_as_json(found)))
        return 0
    if chosen.csv:
        print(_csv_text(found), end="")
        return 0
    out = Stream(sys.stdout, is_everything=True)
    table, _ = _table(found, chosen.top).fitted(out.columns, [_OTHERS])
    out.write_lines(table.lines())
    return 0


def _files(words: Sequence[str]) -> list[str]:
    """The picture files named, and those below folders named; `InputError` for a word that is neither."""
    from deepexp.data.folder_scan import pictures_below

    if not words:
        raise InputError("predict: of which pictures? Give files or folders: deepexp predict run=outputs/… seven.png")
    files: list[str] = []
    for word in words:
        path = os.path.expanduser(word)
        name, equals, _ = word.partition("=")
        if os.path.isdir(os.path.join(path, ".hydra")):
            raise InputError(f"{word}: is a run and no picture; run={word} asks its model")
        if os.path.isdir(path):
            files += pictures_below(Path(path))
        elif os.path.isfile(path):
            files.append(path)
        elif os.path.exists(path):
            raise InputError(f"{word}: is not a file; a picture, or a folder of pictures")
        elif equals and "/" not in word:
            raise InputError(no_such("key", name, options.names_of(Options)))
        else:
            raise InputError(
                f"{word or 'an empty word'}: there is nothing of that name; a picture, or a folder of pictures"
            )
    return files


_OTHERS = "or"


def _table(found: "Predictions", top: int) -> Table:
    sure, order = found.probabilities.sort(dim=1, descending=True, stable=True)
    named = [
        [f"{found.classes[index]} ({100 * share:.1f}%)" for index, share in zip(indices, shares, strict=True)][:top]
        for indices, shares in zip(order.tolist(), sure.tolist(), strict=True)
    ]
    columns = {
        "picture": list(found.files),
        "class": [found.classes[index] for index in order[:, 0].tolist()],
        "probability": [f"{100 * share:.1f}%" for share in sure[:, 0].tolist()],
    }
    if top > 1 and len(found.classes) > 1:
        columns[_OTHERS] = [", ".join(names[1:]) for names in named]
    return Table.of_columns(columns, left={"picture", "class", _OTHERS})


def _as_json(found: "Predictions") -> list[dict[str, object]]:
    best = found.probabilities.argmax(1).tolist()
    return [
        {
            "picture": file,
            "class": found.classes[index],
            "probability": shares[index],
            "probabilities": [
                {"class": name, "probability": share} for name, share in zip(found.classes, shares, strict=True)
            ],
        }
        for file, index, shares in zip(found.files, best, found.probabilities.tolist(), strict=True)
    ]


def _csv_text(found: "Predictions") -> str:
    header = ["picture", "class", "probability", *(f"probability of {name}" for name in found.classes)]
    best = found.probabilities.argmax(1).tolist()
    rows = zip(found.files, best, found.probabilities.tolist(), strict=True)
    return as_csv(header, ([file, found.classes[index], shares[index], *shares] for file, index, shares in rows))
