"""A run's model tested again, for what the run's files do not hold: its probabilities for each test sample.

Nothing is downloaded or trained, and nothing written but decoded pictures, to the user's own cache.
"""

import contextlib
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from deepexp import build, paths, runtime
from deepexp.data.dataset import Dataset, Pictures
from deepexp.data.loader import Loader
from deepexp.data.order import Bounds
from deepexp.data.resident import ResidentLoader
from deepexp.data.source import FileSource, Source, WritingSource
from deepexp.errors import InputError
from deepexp.inference.saved_model import SavedModel, Which, load
from deepexp.run import saved_config
from deepexp.run.lost_files import known_by_digest
from deepexp.run.rundir import RunDirectory
from deepexp.schema import TrainConfig
from deepexp.step import Precision
from deepexp.training.evaluation import Scores, evaluate, scores_of_logits
from deepexp.training.losses import Loss
from deepexp.user_code import targets

log = logging.getLogger(__name__)

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Retest:
    """The answers of a run's model, on the test samples of its data in their own order."""

    images: Tensor
    """(samples, channels, height, width) uint8, as the model saw them"""
    target: Tensor
    """(samples,) int64"""
    probabilities: Tensor
    """(samples, classes) float32"""
    classes: tuple[str, ...]
    files: tuple[str, ...] | None
    """(samples,) paths, where the data are picture files"""
    loss: float
    """Mean of the run's loss per sample."""
    saved: SavedModel
    """The model, now on the device that it was tested on."""
    precision: str
    """The precision of the arithmetic, in the words of the config."""

    @property
    def predicted(self) -> Tensor:
        """(samples,) int64"""
        return self.probabilities.argmax(1)

    @property
    def errors(self) -> int:
        """How many test samples were predicted wrongly."""
        return int((self.predicted != self.target).sum())


@contextlib.contextmanager
def on_device(directory: Path, name: str) -> Iterator[torch.device]:
    """The device of that name, in a process set up to run the model of a run there; raises `InputError`.

    What the user's own code prints goes to standard error: standard output is for the result, which may be JSON.
    """
    with contextlib.redirect_stdout(sys.stderr):
        device = runtime.choose_device(name)
        tf32 = precision_here(saved_config.read(RunDirectory.open(directory))[1], device) == "tf32"
        with runtime.session(device, threads="auto", deterministic=False, tf32=tf32):
            yield device


def retest(
    directory: Path, *, which: Which = "last", device: torch.device = _CPU, data_root: str | None = None
) -> Retest:
    """Test the model of a run on the test set of its data, in the run's precision if the device has it.

    `data_root`: the folder that the data lie in now; None: that of the run's config.
    Raises `InputError` where a target of the config is not known here, the data are not here or not those of the run,
    or there is no such checkpoint.
    """
    run = RunDirectory.open(directory)
    saved = load(directory, which)
    source, data = data_of(run, saved.pictures, data_root)
    precision = precision_here(saved.config, device)
    saved.model.to(device)
    answers = _Answers(build.loss(saved.config, data.class_counts, device))
    test = ResidentLoader(data.test, data.mean, data.std, device)
    evaluation = evaluate(saved.model, test, len(data.test), Precision(device, precision), scorer=answers)
    return Retest(
        images=data.test.pictures(torch.arange(len(data.test))),
        target=data.test.labels,
        probabilities=torch.cat(answers.probabilities),
        classes=data.classes,
        files=tuple(source.test_files()) if isinstance(source, FileSource) else None,
        loss=evaluation.loss,
        saved=saved,
        precision=precision,
    )


def precision_here(config: TrainConfig, device: torch.device) -> str:
    """The precision of the config, or fp32 where the device does not have it."""
    is_for_cuda = config.precision in ("tf32", "fp16")
    return "fp32" if is_for_cuda and device.type != "cuda" else config.precision


class _Answers:
    """A `Scorer` that keeps the probability of each class."""

    def __init__(self, loss: Loss) -> None:
        self._loss = loss
        self.probabilities: list[Tensor] = []  # (batch, classes) float32 each, on the CPU

    def __call__(self, model: nn.Module, loader: Loader, order: Tensor, bounds: Sequence[Bounds]) -> Iterator[Scores]:
        self.probabilities.clear()  # left by a pass that ran out of memory
        for images, labels in loader.batches(order, bounds):
            logits = model(images).float()  # (batch, classes)
            self.probabilities.append(logits.softmax(1).cpu())
            yield scores_of_logits(logits, labels, self._loss)


def data_of(run: RunDirectory, pictures: Pictures | None, root: str | None = None) -> tuple[Source, Dataset]:
    """The source and the data of a run, loaded anew; `InputError` if they are not here, or others than the run's.

    `pictures`: what its checkpoint records of them, which they are compared with if `provenance.json` is lost. `root`:
    the folder that they lie in, if they were moved.
    The config may be a stranger's: nothing is written to where it points.
    """
    _, config = saved_config.read(run)
    if root is not None:
        config.data.root = paths.absolute(root)
    if "download" in targets.signature_of("data", config.data.component).parameters:
        config.data.component.arguments["download"] = False  # a run from elsewhere must not make us fetch anything
    source = build.source(config)
    if isinstance(source, WritingSource):
        source.keep_out_of({"root", "cache"})
    data = build.assembled(config, source, build.input_shape(config, source.info()))
    is_same = known_by_digest(run, data)
    if is_same is None:
        log.warning(
            "%s is missing: whether these are the run's data cannot be told for certain", run.path / "provenance.json"
        )
        is_same = pictures is None or pictures.may_be_of(data)
    if not is_same:
        raise InputError(
            f"the data that {config.data.component.target} finds here are not those that the run was trained on; "
            "if those lie elsewhere now, deepexp eval run=… data.root=DIR takes them from there"
        )
    return source, data


def pictures_of(run: RunDirectory, saved: SavedModel) -> Pictures:
    """What is known of the pictures that a model was trained on; from the data, if an older checkpoint lacks it.

    Raises `InputError` if the data are not here either.
    """
    if saved.pictures is not None:
        return saved.pictures
    try:
        source, data = data_of(run, None)
    except InputError as error:
        raise InputError(
            f"{run.path}: its checkpoint is from before mean and deviation of the pictures were saved with it, "
            f"and its data are not here: {error}"
        ) from None
    return Pictures(source.info().shape, data.mean, data.std, data.classes)
