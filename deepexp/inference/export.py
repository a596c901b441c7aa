"""A run's model exported to a file that works without deepexp, and the check that both give the same logits.

The file takes pictures as bytes, in the shape that the model takes; it normalises them as the training pictures were.
"""

import contextlib
import importlib
import importlib.util
import io
import json
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

import deepexp
from deepexp.data.dataset import Pictures
from deepexp.data.normalise import Normaliser
from deepexp.data.source import Shape
from deepexp.errors import InputError, RunFailed
from deepexp.inference.retest import data_of, pictures_of
from deepexp.inference.saved_model import SavedModel, Which, load
from deepexp.models.fold import Folded, batch_norms, fold_batch_norm
from deepexp.run.rundir import RunDirectory
from deepexp.text.units import amount, counted
from deepexp.user_code import own_code

log = logging.getLogger(__name__)

Format = Literal["onnx", "pt2"]
"""`pt2` is what `torch.export.load` reads."""

Ask = Callable[[np.ndarray], np.ndarray]
"""(pictures, channels, height, width) uint8 → (pictures, classes) float32"""

INPUT, OUTPUT = "pictures", "logits"
NOTES = "deepexp.json"
"""The extra file of a `pt2` that holds what an ONNX file has as its metadata."""

_TOLERANCE = 1e-3  # of the largest logit; float32 arithmetic in another order differs by a hundredth of that
_BATCH_SIZE = 100
_RANDOM_PICTURES = 100
_MOST_ONNX_BYTES = 2**31 - 2**20  # protobuf's limit, with room for the graph


@dataclass(frozen=True)
class Parity:
    """How far the logits of the file are from those of the model, for the same pictures."""

    pictures: int
    no_test_pictures: str | None
    """Why the pictures are random; None if they are of the test set."""
    difference: float
    """The largest absolute difference of two logits."""
    largest: float
    """The largest absolute value of the model's logits."""
    other_answers: int
    """Pictures that get another class."""


@dataclass(frozen=True)
class Exported:
    """A file's content, and what is known of it."""

    content: bytes
    saved: SavedModel
    pictures: Pictures
    folded: Folded
    """How many batch normalisations the model has, and how many were folded into the layer before."""
    parity: Parity


def export(
    directory: Path,
    kind: Format,
    *,
    which: Which = "last",
    fold: bool = True,
    check: int = 1000,
    notes: Mapping[str, Any],
) -> Exported:
    """Make the content of a file of the run's model, load it again, and compare its answers with the model's.

    `fold`: make batch normalisation a part of the layer before it, where there is one; `check`: at most so many test
    pictures are compared, or some random ones where the data are not here. `notes`: what else the file is to say.
    Raises `InputError` for what is not installed or known here, `RunFailed` for a model that cannot be exported or a
    file that gives something else.
    """
    run = RunDirectory.open(directory)
    _check_installed(kind)
    saved = load(directory, which)
    pictures = pictures_of(run, saved)
    program, folded = _program(saved, pictures, fold)

    def about(folded: Folded) -> dict[str, Any]:
        return {**_about(saved, pictures, folded), **notes}

    with _quiet():
        if kind == "onnx":
            content, folded = _onnx(program, saved.shape, folded, about, fold=fold)
            file = _onnx_runtime(content)
        else:
            content = _pt2(program, about(folded))
            file = _torch_runtime(content)
    with torch.inference_mode():
        parity = _compare(saved, pictures, file, *_pictures_to_try(run, pictures, saved.shape, check))
    _check_parity(parity, saved.config.model.component.target)
    return Exported(content, saved, pictures, folded, parity)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide what exporters print, which goes into the debug log, and their warnings for their own authors."""
    with contextlib.redirect_stdout(io.StringIO()) as said, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            log.debug("the exporter says: %s", said.getvalue())


class _FromBytes(nn.Module):
    """A model behind the normalisation of its pictures."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, model: nn.Module, pictures: Pictures) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("pixel_mean", pictures.mean.view(-1, 1, 1))
        self.register_buffer("pixel_std", pictures.std.view(-1, 1, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        """(batch, channels, height, width) uint8 → (batch, classes) float32"""
        return self.model((pictures.to(torch.float32) - self.pixel_mean) / self.pixel_std).float()


def _program(saved: SavedModel, pictures: Pictures, fold: bool) -> tuple[ExportedProgram, Folded]:
    """The model as a graph of ATen's operators, for any number of pictures."""
    target = saved.config.model.component.target
    example = _example(saved.shape)
    sizes = ({0: Dim("batch", min=1)},)
    try:
        with torch.no_grad(), _quiet():
            model = _FromBytes(saved.model_again(), pictures)  # a copy: the file is compared with the original
            model = model.to(memory_format=torch.contiguous_format).eval().requires_grad_(False)
            program = torch.export.export(model, example, dynamic_shapes=sizes)
            graph_module = program.module(check_guards=False)
            assert isinstance(graph_module, torch.fx.GraphModule)
            folded = fold_batch_norm(graph_module) if fold else Folded(0, len(batch_norms(graph_module)))
            if folded.count:
                program = torch.export.export(graph_module, example, dynamic_shapes=sizes)
    except Exception as error:  # tracing a model may raise anything
        raise RunFailed(f"{target} cannot be exported: {own_code.told(error)} ({_hint(saved.model)})") from error
    return program, folded


def _hint(model: nn.Module) -> str:
    """What may be wrong with a model that cannot be exported, and the remedy."""
    for name, part in model.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            return (
                f"torch.export cannot look into what torch.jit.script or trace has made, as {name or 'all of it'} is; "
                "leave these out, and the weights still fit"
            )
    return (
        "torch.export makes a graph of its forward, which must not depend on the values or the number of its "
        "pictures: write x.shape[0] where it has len(x)"
    )


def _about(saved: SavedModel, pictures: Pictures, folded: Folded) -> dict[str, Any]:
    """What the file records about itself."""
    channels, height, width = saved.shape
    return {
        "input": f"{INPUT} (batch, {channels}, {height}, {width}) uint8, 0 to 255; they are normalised in here",
        "output": f"{OUTPUT} (batch, {len(pictures.classes)}) float32; softmax makes probabilities of them",
        "classes": list(pictures.classes),
        "mean": pictures.mean.tolist(),
        "std": pictures.std.tolist(),
        "pictures_were": list(pictures.shape),
        **saved.facts(),
        "batch_norm": f"{folded.count} of {folded.of} folded",
        "deepexp": deepexp.__version__,
        "torch": str(torch.__version__),
    }


def _onnx(
    program: ExportedProgram,
    shape: Shape,
    folded: Folded,
    notes: Callable[[Folded], Mapping[str, Any]],
    *,
    fold: bool,
) -> tuple[bytes, Folded]:
    """(content of the file, what is folded in it)."""
    weights = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    if weights > _MOST_ONNX_BYTES:
        raise InputError(f"format: an ONNX file holds 2 GB, and the model has {amount(weights, 'B')}; format=pt2 does")
    try:
        made = torch.onnx.export(
            program,
            _example(shape),
            dynamo=True,
            verbose=False,
            optimize=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: "batch"},),
        )
        assert made is not None
        folded = _simplified(made, folded, fold=fold)
        for name, value in notes(folded).items():
            text = value if isinstance(value, str) else json.dumps(value)
            made.model.metadata_props[name] = text.encode("utf-8", "replace").decode()  # a run's name may be no UTF-8
        content: bytes = made.model_proto.SerializeToString()
    except Exception as error:  # what has no counterpart in ONNX fails in many ways
        why: BaseException = error
        while why.__cause__ is not None:  # the outer errors only say at which step
            why = why.__cause__
        raise RunFailed(f"the model cannot be written as ONNX: {own_code.told(why)}; format=pt2 may do") from error
    return content, folded


def _simplified(made: torch.onnx.ONNXProgram, folded: Folded, *, fold: bool) -> Folded:
    """Simplify the graph in place; ONNX's own optimizer folds into further kinds of layers. Returns what is folded."""
    if not fold:
        optimizer = importlib.import_module("onnxscript.optimizer")
        optimizer.fold_constants(made.model)
        optimizer.remove_unused_nodes(made.model)
        return folded
    before = _onnx_batch_norms(made)
    made.optimize()
    return Folded(folded.count + before - _onnx_batch_norms(made), folded.of)


def _onnx_batch_norms(made: torch.onnx.ONNXProgram) -> int:
    return sum(node.op_type == "BatchNormalization" for node in made.model.graph)


def _pt2(program: ExportedProgram, notes: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={NOTES: json.dumps(notes)})
    return buffer.getvalue()


_PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "pt2": ()}


def _check_installed(kind: Format) -> None:
    missing = [name for name in _PACKAGES[kind] if importlib.util.find_spec(name) is None]
    if missing:
        be = "is" if len(missing) == 1 else "are"
        raise InputError(
            f"format: {kind} needs {', '.join(missing)}, which {be} not installed; "
            f"pip install {' '.join(missing)}, or take format=pt2"
        )


def _onnx_runtime(content: bytes) -> Ask:
    """ONNX Runtime on a CPU, with as many threads as torch has."""
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise RunFailed(f"ONNX Runtime cannot load the file: {own_code.told(error)}; format=pt2 may do") from error
    return lambda pictures: session.run([OUTPUT], {INPUT: pictures})[0]


def _torch_runtime(content: bytes) -> Ask:
    model = torch.export.load(io.BytesIO(content)).module()
    return lambda pictures: model(torch.from_numpy(pictures)).numpy()


def _pictures_to_try(run: RunDirectory, known: Pictures, shape: Shape, most: int) -> tuple[Tensor, str | None]:
    """(pictures, channels, height, width) uint8: of the test set, from all over it; else random ones, and why."""
    try:
        _, data = data_of(run, known)
    except InputError as error:
        random = torch.Generator().manual_seed(0)
        return torch.randint(0, 256, (_RANDOM_PICTURES, *shape), dtype=torch.uint8, generator=random), str(error)
    samples = torch.linspace(0, len(data.test) - 1, min(most, len(data.test))).round().long()
    return data.test.pictures(samples), None


def _compare(saved: SavedModel, pictures: Pictures, file: Ask, given: Tensor, no_test_pictures: str | None) -> Parity:
    """Compare the logits of the file and of the model, which is called as in a run, for the same pictures."""
    normalise = Normaliser(saved.shape, pictures.mean, pictures.std)
    target = saved.config.model.component.target
    model_says, file_says = [], []
    # First a batch of one picture, which exporters treat apart; then full batches, and a last one of any size.
    for batch in filter(len, (given[:1], *given[1:].split(_BATCH_SIZE))):
        pixels = batch.permute(0, 2, 3, 1).flatten(1)  # (batch, height * width * channels)
        try:
            model_says.append(saved.model(normalise(pixels)))
            file_says.append(torch.from_numpy(file(np.ascontiguousarray(batch.numpy()))))
        except Exception as error:  # a model may raise anything, and so may what runs the file
            told = f"{target} fails for {counted(len(batch), 'picture')}: {own_code.told(error)}"
            raise RunFailed(f"{told}; nothing was written") from error
        if not model_says[-1].shape == file_says[-1].shape == (len(batch), len(pictures.classes)):
            raise RunFailed(
                f"{target} gives {tuple(file_says[-1].shape)} in the file and {tuple(model_says[-1].shape)} in the run "
                f"for {counted(len(batch), 'picture')}, and {(len(batch), len(pictures.classes))} is due; "
                "nothing was written"
            )
    ours, theirs = torch.cat(model_says).double(), torch.cat(file_says).double()  # (pictures, classes)
    return Parity(
        pictures=len(given),
        no_test_pictures=no_test_pictures,
        difference=float((ours - theirs).abs().max()),
        largest=float(ours.abs().max()),
        other_answers=int((ours.argmax(1) != theirs.argmax(1)).sum()),
    )


def _check_parity(parity: Parity, target: str) -> None:
    """Raise `RunFailed` if the file gives other logits than the model, or none that can be compared."""
    if not math.isfinite(parity.largest):
        what = f"{parity.pictures} {'random' if parity.no_test_pictures else 'test'} pictures"
        raise RunFailed(
            f"{target} gives logits that are NaN or infinite for some of {what}, in the run as well, so that its file "
            "cannot be checked; nothing was written"
        )
    if not parity.difference <= _TOLERANCE * parity.largest:  # NaN is refused, too
        raise RunFailed(
            f"{target} in the file gives something else than in the run: logits differ by "
            f"up to {parity.difference:.2g}, and {parity.largest:.2g} is the largest; nothing was written"
        )


def _example(shape: Shape) -> tuple[Tensor]:
    return (torch.zeros(2, *shape, dtype=torch.uint8),)
