"""A finished run tested again, to know what its files do not hold: how sure its model was of each test sample.

Nothing is downloaded, trained or written. What is done with the answers is elsewhere.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from deepexp import build
from deepexp.data.dataset import Dataset
from deepexp.data.resident import ResidentLoader
from deepexp.errors import InputError
from deepexp.rundir import RunDirectory
from deepexp.saved_model import saved_config, saved_model

_BATCH_SIZE = 500


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


def retest(directory: Path) -> Retest:
    """Load the model and the data of a run and run the one on the other, on the CPU.

    Raises `InputError` where a target of the config is not known here, the data are not here or not those of the run,
    or there is no checkpoint.
    """
    run = RunDirectory.open(directory)
    model = saved_model(directory)
    data = _data(run)
    samples = torch.arange(len(data.test))
    bounds = [(start, min(start + _BATCH_SIZE, len(samples))) for start in range(0, len(samples), _BATCH_SIZE)]
    loader = ResidentLoader(data.test, data.mean, data.std, torch.device("cpu"))
    with torch.inference_mode():
        probabilities = [model(images).float().softmax(1) for images, _ in loader.batches(samples, bounds)]
    return Retest(data.test.pictures(samples), data.test.labels, torch.cat(probabilities), data.classes)


def _data(run: RunDirectory) -> Dataset:
    config = saved_config(run)
    if "download" in config.data.component.arguments:
        config.data.component.arguments["download"] = False  # a run from elsewhere must not make us fetch anything
    source = build.source(config)
    data = build.assembled(config, source, build.input_shape(config, source.info()))
    fingerprint = run.read_json("provenance.json").get("data_fingerprint")
    if data.fingerprint != fingerprint:
        raise InputError(
            f"the data that {config.data.component.target} finds here are not those that the run was made on"
        )
    return data
