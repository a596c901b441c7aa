"""Descriptions of one run: what is saved about it, shown in the header, and put into TensorBoard.

They are made of the objects of a run and its saved config. `runlog.py` and `text/console.py` write and show them.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import nn

from deepexp import paths, runtime
from deepexp.check import Plan
from deepexp.config.composed_of import words_of
from deepexp.config.composer import Composed
from deepexp.config.overrides import PATH_KEYS
from deepexp.data.dataset import Dataset
from deepexp.disk.yaml_file import read_mapping, text_of
from deepexp.metrics import Summary
from deepexp.models import pretrained
from deepexp.models.size import parameter_count
from deepexp.parts import Parts
from deepexp.run import provenance as origin
from deepexp.run.rundir import HydraFiles, RunDirectory
from deepexp.runlog import Description
from deepexp.schema import TrainConfig, as_written
from deepexp.text.console import Header, Horizon
from deepexp.trainer import Outcome
from deepexp.training.progress import Progress
from deepexp.user_code import targets

Names = dict[str, Any]
"""Group → the option that was chosen in it."""

_SAMPLES_SHOWN = 40  # in TensorBoard
_PLACES = PATH_KEYS - {"init_from", "model.pretrained"}  # where things lie, which changes no result


def hydra_files(composed: Composed, config: TrainConfig) -> HydraFiles:
    """What Hydra composed, with every interpolation resolved, so that it means the same wherever it is read."""
    resolved = composed.resolved()
    resolved["model"] = {**resolved["model"], **config.model.component.arguments}
    resolved["data"]["root"] = paths.absolute(config.data.root)
    resolved["init_from"] = config.init_from
    resolved["surgery"] = config.surgery and as_written(config.surgery)
    cache = resolved["data"].get("cache")
    # Only for a source that writes is `cache` known to be a folder; another may mean anything by that name.
    if isinstance(cache, str) and hasattr(targets.find(config.data.component.target), "keep_out_of"):
        resolved["data"]["cache"] = paths.absolute(cache)
    return HydraFiles(
        config=text_of(OmegaConf.create(resolved)),
        overrides=text_of(OmegaConf.create(list(composed.overrides))),
        hydra=text_of(OmegaConf.create({"runtime": {"choices": dict(composed.choices)}})),
    )


def _origins(config: TrainConfig, model: nn.Module) -> list[str]:
    """Where pretrained weights come from: `imagenet`, paths, or `random` if they should and there are no others."""
    whole = config.init_from or getattr(model, "pretrained_origin", None)
    layers = dict.fromkeys(graft.from_ for graft in config.surgery or [])
    return [*([whole] if whole and not (layers and whole == "random") else []), *layers]


def _origin(config: TrainConfig, model: nn.Module) -> str | None:
    """`_origins` as a word; None if there are none."""
    return ", ".join(_origins(config, model)) or None


def provenance(
    config: TrainConfig, plan: Plan, data: Dataset, parts: Parts, mode: str, *, goes_on: bool
) -> dict[str, Any]:
    """How the run came about, and what was chosen for it by looking at this machine.

    A run that goes on records no digest of its pretrained weights: the file may have changed since it was read.
    """
    digests = [] if goes_on else [digest for one in _origins(config, parts.model) if (digest := pretrained.digest(one))]
    return origin.collect(
        device=runtime.describe_device(plan.device),
        data_fingerprint=data.fingerprint,
        test_data_fingerprint=data.test_fingerprint,
        pretrained=_origin(config, parts.model),
        pretrained_sha256=", ".join(digests) or None,
        code=parts.identity.code,
        choices={
            "device": str(plan.device),
            **runtime.cpu_arithmetic(),
            "data.mode": mode,
            "cache_frozen": parts.frozen_features.choice,
            "cuda_graph": parts.update_maker.choice,
            "compile": parts.step.forward.choice,
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY"),
            "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT"),
        },
    )


def for_tensorboard(
    config: TrainConfig,
    data: Dataset,
    names: Names,
    example: torch.Tensor,
    model: nn.Module,
    run: RunDirectory,
    epoch: int,
) -> Description:
    """What TensorBoard shows of a run beside its curves; `model` has the weights after `epoch` epochs."""
    shown = torch.arange(min(_SAMPLES_SHOWN, len(data.train)))
    saved = (run.path / ".hydra" / "config.yaml").read_text(encoding="utf-8")
    return Description(
        config=saved,
        hparams=_hparams(config, names, model, run),
        model=model,
        example=example,
        images=data.train.pictures(shown),
        labels=data.train.labels[shown],
        classes=data.classes,
        epoch=epoch,
    )


def _hparams(config: TrainConfig, names: Names, model: nn.Module, run: RunDirectory) -> dict[str, Any]:
    """The values to compare runs by: the options, some keys that usually vary, those set for this run, `pretrained`."""
    values: dict[str, Any] = {name: str(option) for name, option in names.items() if option is not None}
    values |= {"optim.lr": config.optim.component.arguments.get("lr", "")}
    values |= {key: getattr(config, key) for key in ("batch_size", "epochs", "seed")}
    saved = read_mapping(run.path / ".hydra" / "config.yaml")
    for override in words_of(run.path):
        key = override.partition("=")[0].lstrip("+")
        value = _at(key, saved) if key not in _PLACES else None
        if isinstance(value, (bool, int, float, str)):
            values[key] = value
    if (begun_with := _origin(config, model)) is not None:
        values["pretrained"] = begun_with  # the config has false for weights that `auto` could not have
    return {key: value if isinstance(value, (bool, int, float)) else str(value) for key, value in values.items()}


def _at(key: str, saved: Mapping[str, Any]) -> Any:
    """The value of a dotted key; None where there is none."""
    node: Any = saved
    for part in key.split("."):
        if isinstance(node, list):
            node = node[int(part)] if part.isdigit() and int(part) < len(node) else None
        else:
            node = node.get(part) if isinstance(node, Mapping) else None
    return node


def header(config: TrainConfig, plan: Plan, data: Dataset, names: Names, model: nn.Module, run: RunDirectory) -> Header:
    """The description of a run that the console shows first."""
    counts = [f"{len(data.train):,} training"]
    counts += [f"{len(data.val):,} validation"] if data.val is not None else []
    counts += [f"{len(data.test):,} test"]
    channels, height, width = plan.shape
    return Header(
        model=str(names["model"]),
        parameters=parameter_count(model),
        data=f"{names['data']}, {' + '.join(counts)} samples, {channels}×{height}×{width}",
        device=f"{runtime.describe_device(plan.device)}, {config.precision}",
        directory=run.path,
        more={"optimizer": _describe_optimizer(config, names), **_loss(names), **_beginning(config)},
    )


def _loss(names: Names) -> dict[str, str]:
    return {} if names["loss"] == "cross_entropy" else {"loss": str(names["loss"])}


def _beginning(config: TrainConfig) -> dict[str, str]:
    whole = [] if config.init_from is None else [paths.shown(Path(config.init_from))]
    layers = [
        f"{graft.layers} of {paths.shown(Path(graft.from_))}{f' as {graft.to}' if graft.to else ''}"
        for graft in config.surgery or []
    ]
    return {"begins with": ", ".join([*whole, *layers])} if whole or layers else {}


def _describe_optimizer(config: TrainConfig, names: Names) -> str:
    lr = config.optim.component.arguments.get("lr")
    schedule = "" if names["schedule"] == "constant" else f", {names['schedule']} schedule"
    return f"{names['optim']}, lr {lr}{schedule}, batch size {config.batch_size}, seed {config.seed}"


def horizon(config: TrainConfig, plan: Plan, progress: Progress) -> Horizon:
    """How far the run goes, for the progress bar."""
    seconds = None if config.max_minutes is None else 60 * config.max_minutes - progress.elapsed_seconds
    return Horizon(config.epochs, len(plan.updates), plan.total_steps, progress.step, seconds)


def summary(config: TrainConfig, plan: Plan, names: Names, model: nn.Module, outcome: Outcome) -> Summary:
    """The results of a run, with its final weights."""
    progress = outcome.progress
    return Summary(
        status="done",
        model=str(names["model"]),
        data=str(names["data"]),
        optim=str(names["optim"]),
        seed=config.seed,
        epochs=progress.epoch,
        steps=progress.step,
        test_errors=outcome.test.errors,
        test_samples=outcome.test.samples,
        test_error_rate=outcome.test.error_rate,
        test_loss=outcome.test.loss,
        val_error_rate=None if outcome.val is None else outcome.val.error_rate,
        best_epoch=progress.best_epoch,
        train_seconds=progress.train_seconds,
        total_seconds=progress.elapsed_seconds,
        samples_per_second=progress.samples_seen / max(progress.train_seconds, 1e-9),
        device=runtime.describe_device(plan.device),
        precision=config.precision,
        pretrained=_origin(config, model),
        parameters=parameter_count(model),
    )
