"""usage: deepexp export run=RUN [KEY=VALUE …]

The model of a run as a file that works without deepexp: ONNX for ONNX Runtime, browsers, phones; pt2 for torch alone.

  deepexp export run=outputs/resnet/2026-01-31_12-00-00_1a2b3c              resnet.onnx
  deepexp export run=RUN checkpoint=best format=pt2 to=models/best.pt2

  run=…               directory of a run, finished or not
  format=onnx         onnx (needs pip install onnx onnxscript onnxruntime), or pt2, which torch.export.load reads
  fold_bn=true        make batch normalisation a part of the convolution or linear layer before it
  checkpoint=last     last, or best: that of the best validation (val_fraction, monitor)
  to=null             the file, which must not be there yet; null: named by the model, in the working directory
  check=1000          compare with the model on so many test pictures; on random ones, if the data are not here
  json=false          print JSON

The file takes any number of pictures as bytes, in the size that the model takes, normalises them as the training's were
and gives logits; it holds the names of the classes, too. Before it is put in its place, it is loaded again and compared
with the model. Averaged weights are taken where the run has averaged them (ema).
"""

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from deepexp.config import options
from deepexp.disk import json_file
from deepexp.disk.storage import named_by, put_new, sync_directory, write_atomically
from deepexp.errors import InputError
from deepexp.paths import shown
from deepexp.report.folder import staged
from deepexp.report.runs import Run, read_one
from deepexp.schema import key
from deepexp.text.suggest import no_word_but_keys
from deepexp.text.terminal import Stream, printable
from deepexp.text.units import amount, counted

if TYPE_CHECKING:
    from deepexp.inference.export import Exported

Format = Literal["onnx", "pt2"]
_STAGING = ".deepexp-export-"
"""How the name of a folder begins in which a file is written first."""
_MOST_CLASSES = 5  # whose names are shown


@dataclass
class Options:
    """Options of `export`."""

    run: str | None = key(None, "directory of a run")
    format: Format = key("onnx", "kind of file")
    fold_bn: bool = key(True, "make batch normalisation a part of the layer before it")
    checkpoint: Literal["last", "best"] = key("last", "which of its checkpoints")
    to: str | None = key(None, "the file")
    check: int = key(1000, "how many test pictures are compared", minimum=1)
    json: bool = key(False, "print JSON")


def main(argv: Sequence[str]) -> int:
    """Make the file, check it, put it in its place, and say what it is."""
    chosen, _ = options.parse(argv, Options, _no_option)
    run = read_one(chosen.run, "export")
    to = _place(chosen, run)

    from deepexp.inference.export import export
    from deepexp.inference.retest import on_device

    with on_device(run.path, "cpu"):
        made = export(
            run.path,
            chosen.format,
            which=chosen.checkpoint,
            fold=chosen.fold_bn,
            check=chosen.check,
            notes={"run": run.name, "model": run.choices.get("model", ""), "data": run.choices.get("data", "")},
        )
    with named_by("to=FILE", to):
        _put(made.content, to)
    if chosen.json:
        print(json_file.text_of(_as_json(chosen, made, to)))
    else:
        Stream(sys.stdout, is_everything=True).write_lines(_lines(run, made, to))
    return 0


def _no_option(word: str) -> str:
    return no_word_but_keys(word, options.names_of(Options), "exports the model of the run of that name")


def _place(chosen: Options, run: Run) -> Path:
    """Where the file is to be; `InputError` if something is there, or nothing can be written there."""
    if chosen.to is None:
        name = Path(run.choices.get("model", "model")).name  # without the folders of an option such as small/mine
        to = Path(f"{name}.{chosen.format}")
    else:
        to = Path(os.path.expanduser(chosen.to))
    if not to.name or Path(os.path.realpath(to)).is_relative_to(run.path.resolve()):
        raise InputError(f"to: {chosen.to or 'nothing'} is not allowed; a file outside the run, which is not changed")
    other = next((kind for kind in get_args(Format) if kind != chosen.format and to.suffix == f".{kind}"), None)
    if other is not None:
        raise InputError(
            f"to: {to} has the ending of format={other}, and this is format={chosen.format}; change one of them"
        )
    _check_free(to)
    if not os.path.isdir(to.parent):  # unlike Path.is_dir, no error for too long names and closed folders
        raise InputError(f"to: there is no folder {to.parent} for {to.name}; make it, or give another place")
    try:
        with tempfile.NamedTemporaryFile(dir=to.parent, prefix=f".{to.name}."):  # as long as the name of its .partial
            pass
    except OSError as error:
        raise InputError(
            f"to: cannot write {to.name} into {shown(to.parent.absolute())}: {error.strerror or error}; give to=FILE"
        ) from None
    return to


def _put(content: bytes, to: Path) -> None:
    """Write the whole file elsewhere, then move it to its place unless another export has put one there meanwhile."""
    with staged(to.parent, _STAGING) as staging:
        write_atomically(staging / to.name, content)
        try:
            put_new(staging / to.name, to)
        except FileExistsError:
            _check_free(to)
            raise
        sync_directory(to.parent)


def _check_free(to: Path) -> None:
    if os.path.lexists(to):
        raise InputError(f"to: {to} is there, and nothing is replaced; give another name with to=FILE")


def _lines(run: Run, made: "Exported", to: Path) -> Iterator[str]:
    saved, parity = made.saved, made.parity
    yield f"{run.choices.get('model', 'a model')} on {run.choices.get('data', 'its data')}"
    yield saved.in_words()
    yield ""
    channels, height, width = saved.shape
    yield f"takes    pictures (batch, {channels}, {height}, {width}) uint8, 0 to 255; they are normalised in the file"
    if made.pictures.shape != saved.shape:
        was = "×".join(map(str, made.pictures.shape))
        repeated = "" if made.pictures.shape[0] == channels else ", with a single channel repeated"
        yield f"         those of the data are {was}, resized bilinearly with antialiasing{repeated}"
    names = [printable(name) for name in made.pictures.classes]
    more = f", … ({len(names)})" if len(names) > _MOST_CLASSES else ""
    yield f"gives    logits (batch, {len(names)}) float32, of {', '.join(names[:_MOST_CLASSES])}{more}"
    if made.folded.of:
        yield f"folded   {made.folded.count} of {counted(made.folded.of, 'batch normalisation')}"
    kind = "random" if parity.no_test_pictures else "test"
    yield (
        f"checked  with {counted(parity.pictures, f'{kind} picture')}: logits up to {parity.largest:.3g} differ by at "
        f"most {parity.difference:.1e}, {_same(parity.other_answers)}"
    )
    if parity.no_test_pictures:
        yield f"         as the test pictures are not here: {parity.no_test_pictures}"
    yield f"written  {shown(to.absolute())}, {amount(len(made.content), 'B')}"


def _same(others: int) -> str:
    return f"{counted(others, 'picture')} of another class" if others else "every class is the same"


def _as_json(chosen: Options, made: "Exported", to: Path) -> dict[str, Any]:
    saved, parity = made.saved, made.parity
    return {
        "file": str(to),
        "format": chosen.format,
        "bytes": len(made.content),
        **saved.facts(),
        "input_shape": list(saved.shape),
        "classes": list(made.pictures.classes),
        "batch_norms": made.folded.of,
        "batch_norms_folded": made.folded.count,
        "pictures_compared": parity.pictures,
        "no_test_pictures": parity.no_test_pictures,
        "largest_logit": parity.largest,
        "largest_difference": parity.difference,
        "other_answers": parity.other_answers,
    }
