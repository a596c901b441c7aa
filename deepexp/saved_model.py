"""A trained model out of a run directory, built from the config that was saved and filled with the last checkpoint."""

from pathlib import Path

import torch
from torch import nn

from deepexp import build, checkpoint, schema, trust
from deepexp.errors import InputError
from deepexp.optim.ema import fill
from deepexp.resuming import read_yaml
from deepexp.rundir import RunDirectory


def saved_config(run: RunDirectory) -> schema.TrainConfig:
    """The config of a run, all of whose targets are known here; raises `InputError`."""
    saved = read_yaml(run, "config")
    trust.check_targets(saved)
    problems = schema.Problems()
    config = schema.typed(saved, problems)
    problems.raise_any()
    assert config is not None
    return config


def saved_model(directory: Path) -> nn.Module:
    """The model of a run, on the CPU and in test mode; averaged weights where the run has averaged them.

    Nothing but targets that are known here is called, and no pretrained weights are looked for. Raises `InputError`.
    """
    run = RunDirectory.open(directory)
    config = saved_config(run)
    path, content = checkpoint.load_latest(run.checkpoints)
    channels, height, width = content["shape"]
    model = build.model(config, (channels, height, width), content["classes"], "cpu", load_pretrained=False)
    try:
        model.load_state_dict(content["model"])
        if content["ema"] is not None:
            fill(model, content["ema"]["averages"])
    except (AttributeError, KeyError, RuntimeError, TypeError) as error:
        raise InputError(f"{path}: does not fit the model of {directory} ({str(error).splitlines()[0]})") from None
    return model.to(memory_format=torch.channels_last).eval()
