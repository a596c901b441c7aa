"""The check of a whole config before anything is loaded; all problems are reported at once.

Objects are made for it where they cost nothing: the model on the meta device (shapes without numbers), the optimizer
over that, the data source without its data. The result is a `Plan`: the numbers that follow from a config.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from deepexp import build, cuda_graph, paths, runtime, schema
from deepexp.data.dataset import has_validation, training_samples
from deepexp.data.memory import available_bytes
from deepexp.data.order import Bounds, batch_bounds
from deepexp.data.source import DataInfo, Shape, Source
from deepexp.disk.yaml_words import as_yaml
from deepexp.errors import InputError, under
from deepexp.optim.freeze import FreezePlan
from deepexp.run import identity
from deepexp.schema import Problems, TrainConfig
from deepexp.text.units import amount, counted, first_few
from deepexp.user_code import own_parts

T = TypeVar("T")

_BYTES_A_SAMPLE = 8  # for its place in the order of an epoch
_BYTES_A_BATCH = 200  # for its bounds, in a plan
FULL_CHUNK = 1000  # samples that batch_size=full takes at once; the gradient is that of the whole set


@dataclass(frozen=True)
class Plan:
    """What follows from a config: where it runs, on what, and how long."""

    device: torch.device
    source: Source
    info: DataInfo
    shape: Shape  # of what the model sees
    train_samples: int
    updates: list[list[Bounds]]  # of an epoch: the batches of each update
    total_steps: int

    @property
    def takes(self) -> tuple[Shape, int]:
        """(shape of pictures, number of classes) that its model is made for."""
        return self.shape, len(self.info.classes)

    @property
    def epochs(self) -> int:
        """How many epochs its updates make; the last may be a partial one."""
        return math.ceil(self.total_steps / max(len(self.updates), 1))


def typed_and_planned(config: Any, known: Plan | None = None) -> tuple[TrainConfig, Plan]:
    """The config as dataclasses and its plan; one `InputError` with a line for each problem.

    `known`: the plan of a config that differs from this one in its seed or name alone; it is returned again.
    """
    problems = Problems()
    result = schema.typed(config, problems)
    if problems.lines:
        problems.lines += problems_beside(config, [_key_of(line) for line in problems.lines])
    problems.raise_any()
    assert result is not None
    if known is None:
        return result, plan(result)
    schema.check_values(result, problems)
    problems.raise_any()
    return result, known


def check_values(config: Any) -> None:
    """Raise one `InputError` with a line for each wrong value; nothing is built for it, nor are data looked for."""
    problems = Problems()
    result = schema.typed(config, problems)
    if result is not None:
        schema.check_values(result, problems)
    problems.raise_any()


_SIZES = {"model", "data", "experiment", "scale", "data.subset", "data.replicate", "val_fraction"}
_LENGTHS = {"batch_size", "drop_last", "accumulate", "epochs", "max_steps", *_SIZES}


def problems_beside(config: Any, wrong: Collection[str]) -> list[str]:
    """Lines for what else is wrong with a config in which the values of the keys in `wrong` were refused or left out.

    Defaults take their place. Problems that mention those keys, or may come from their defaults, are left out.
    """
    problems = Problems()
    result = schema.typed(config, problems)
    lines = [line for line in problems.lines if _key_of(line) not in wrong]
    if result is not None:
        wrong = {*wrong, *map(_key_of, problems.lines)}
        try:
            plan(result)
        except InputError as error:
            lines += [line for line in str(error).splitlines() if not _hangs_on(line, wrong)]
    return lines


def _hangs_on(line: str, wrong: Collection[str]) -> bool:
    """Whether a problem is, or may be, due to the defaults that stand in for the values of `wrong` keys.

    A key that does not exist may have been meant for any key that sets the length of a run.
    """
    known = {item.name for item in dataclasses.fields(TrainConfig)}
    if any(key.partition(".")[0] not in known for key in wrong):
        wrong = {*wrong, *_LENGTHS}
    passed_on = {f"model.{key}" for key in schema.HANDED_ON if key in wrong}
    return (
        any(re.search(rf"(?<![\w.]){re.escape(key)}(?!\w)", line) for key in {*wrong, *passed_on})
        or (line.startswith("schedule:") and not _LENGTHS.isdisjoint(wrong))
        or ("sample" in line and not _SIZES.isdisjoint(wrong))
    )


def _key_of(line: str) -> str:
    """The key that a line begins with: `freeze` of `freeze[0].patern: …`."""
    found = re.match(r"[\w.]+", line)
    return found[0] if found else line


def plan(config: TrainConfig) -> Plan:
    """Check everything that does not need the data themselves."""
    problems = Problems()
    schema.check_values(config, problems)
    attempt = _Attempt(problems)
    device = attempt("device", lambda: runtime.choose_device(config.device))
    source = attempt("data", lambda: build.source(config))
    info = attempt("data", source.info) if source is not None else None
    if info is not None and len(info.classes) < 2:
        problems.add(f"data: {_only(info.classes)}, and a model tells at least two apart (is data.root one level off?)")
    shape = attempt("model", lambda: build.input_shape(config, info)) if info is not None else None
    if shape is not None and config.data.normalise == "imagenet" and shape[0] != 3:
        problems.add(
            f"data.normalise: imagenet is for pictures of 3 channels, and the model takes {shape[0]}; "
            "set model.input.channels=3, or take channel"
        )
    model = None
    if info is not None and shape is not None:
        model = attempt("model", lambda: build.model(config, shape, len(info.classes), "meta"))
    samples = attempt("data", lambda: _training_samples(config, info)) if info is not None else None
    updates = [] if samples is None else _updates(config, samples, uses_batch_norm(model))
    if model is None:
        attempt("optim", lambda: build.check_optimizer(config))
    else:
        attempt("freeze", lambda: _check_freeze(config, model))
        attempt("optim", lambda: build.optimizer(config, model))
    augmentation = attempt("augment", lambda: build.augment(config))
    if augmentation is not None and shape is not None and device is not None:
        attempt("augment", lambda: own_parts.check_augment(augmentation, shape, device, model))
    classes = 2 if info is None else len(info.classes)
    # No data are loaded yet: a loss is tried with sizes of classes that differ, as it may divide by how much they do.
    loss = attempt("loss", lambda: build.loss(config, range(100, 100 + classes)))
    if loss is not None and info is not None and device is not None:
        attempt("loss", lambda: own_parts.check_loss(loss, config.loss.component.target, len(info.classes), device))
    schedule = attempt("schedule", lambda: build.schedule(config))
    total_steps = steps_of_run(config, len(updates))
    if schedule is not None and total_steps:
        attempt("schedule", lambda: own_parts.check_schedule(schedule, total_steps))
    attempt("model", lambda: identity.refuse_changed(config))
    attempt("name", lambda: None if config.name is None else paths.check_folder_name(config.name))
    _check_combinations(config, device, samples, problems)
    if info is not None:
        _check_class_weights(config.class_weights, info.classes, problems)
        _check_validation(config, info, problems)
    if model is not None and shape is not None and uses_batch_norm(model):
        _check_batch_norm(config, model, shape, problems)
    problems.raise_any()
    assert device is not None and source is not None and info is not None and shape is not None and samples is not None
    return Plan(device, source, info, shape, samples, updates, total_steps)


def uses_batch_norm(model: nn.Module | None) -> bool:
    """Whether a model's output for a sample depends on the rest of its batch while it trains."""
    return model is not None and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())


def _trains_on_one(config: TrainConfig, model: nn.Module, shape: Shape) -> bool:
    """Whether a model with batch normalisation can train on a batch of one picture.

    It refuses one where a layer then has a single value per channel, unless the layer stays frozen to the end. A model
    that cannot be called on the meta device is not judged.
    """
    try:
        freeze = FreezePlan(model, build.freeze_rules(config, model), config.epochs)
        freeze.apply(config.epochs - 1)
        model.train()
        freeze.eval_frozen()
        with torch.no_grad():
            model(torch.empty(1, *shape, device="meta"))
    except Exception as error:  # a model of the user's own may raise anything, and wrong rules are reported elsewhere
        return "more than 1 value per channel" not in str(error)
    return True


def steps_of_run(config: TrainConfig, updates_per_epoch: int) -> int:
    """How many updates a run has if no clock or early stop ends it: the horizon of its schedule."""
    steps = config.epochs * updates_per_epoch
    return steps if config.max_steps is None else min(steps, config.max_steps)


class _Attempt:
    """Calls a function that may refuse the config: its errors are added to the problems, and the result is None."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems

    def __call__(self, key: str, make: Callable[[], T]) -> T | None:
        try:
            return make()
        except InputError as error:
            text = str(error)
        except ValueError as error:
            text = under(key, str(error))
        for line in text.splitlines():
            self._problems.add(line)
        return None


def _only(classes: Sequence[str]) -> str:
    return f"the only class is {classes[0]!r}" if classes else "there is no class"


def _check_freeze(config: TrainConfig, model: nn.Module) -> None:
    """Raise for rules that match no parameter, or leave none to train in the first epoch, when most are frozen."""
    FreezePlan(model, build.freeze_rules(config, model), config.epochs).apply(0)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError("freeze: every parameter is frozen at first; leave some of them to train")


def _training_samples(config: TrainConfig, info: DataInfo) -> int:
    """How many samples an epoch has; `InputError` if their order and batches alone take more memory than is free."""
    samples = training_samples(info, config.data.subset, config.data.replicate, config.val_fraction)
    batch_size = FULL_CHUNK if config.batch_size == "full" else config.batch_size
    needed = samples * _BYTES_A_SAMPLE + samples // batch_size * _BYTES_A_BATCH
    free = available_bytes(torch.device("cpu"))
    if free is not None and needed > free:
        remedy = "data.subset takes fewer of them" if config.data.replicate == 1 else "give a smaller data.replicate"
        raise InputError(
            f"data: an epoch of {samples:,} training samples needs {amount(needed, 'B')} of memory for their order and "
            f"batches alone, and {amount(free, 'B')} are free; {remedy}"
        )
    return samples


def _updates(config: TrainConfig, samples: int, batch_norm: bool) -> list[list[Bounds]]:
    """The batches of each update of an epoch."""
    if config.batch_size == "full":
        return [batch_bounds(samples, FULL_CHUNK, False, batch_norm)]
    batches = batch_bounds(samples, config.batch_size, config.drop_last, batch_norm)
    return [batches[start : start + config.accumulate] for start in range(0, len(batches), config.accumulate)]


def _check_validation(config: TrainConfig, info: DataInfo, problems: Problems) -> None:
    """Add the settings that need validation data, where there are none."""
    if has_validation(info, config.val_fraction):
        return
    for key, is_asked in {"early_stop": config.early_stop is not None, "monitor": config.monitor == "loss"}.items():
        if is_asked:
            problems.add(f"{key}: needs validation data; set val_fraction, for example val_fraction=0.1")


def _check_class_weights(
    weights: Literal["balanced"] | list[float] | None, classes: Sequence[str], problems: Problems
) -> None:
    """Add what is wrong with a list of weights: one for each class is needed, and one of them above 0, in float32."""
    if isinstance(weights, list):
        used = torch.tensor(weights)
        if len(weights) != len(classes) or not used.any() or not used.isfinite().all():
            problems.add(
                f"class_weights: {as_yaml(weights)} is not allowed; {len(classes)} numbers, not all of them 0, for "
                f"{first_few(classes)}"
            )


def _check_combinations(
    config: TrainConfig, device: torch.device | None, samples: int | None, problems: Problems
) -> None:
    """Add what does not go together although each part is allowed."""
    if samples is not None and config.batch_size != "full" and config.batch_size > samples:
        problems.add(
            f"batch_size: {config.batch_size} is more than the {counted(samples, 'training sample')}; "
            f"at most {samples}, or full"
        )
    if config.precision in ("tf32", "fp16") and device is not None and device.type != "cuda":
        problems.add(
            f"precision: {config.precision} is for CUDA devices, and this run is on {device.type}; use fp32 or bf16"
        )
    if config.cuda_graph is True and device is not None and not cuda_graph.can_record(device):
        problems.add(f"cuda_graph: true is for CUDA devices, and this run is on {device.type}; use auto or false")
    if samples and config.batch_size != "full" and config.batch_size <= samples < config.accumulate * config.batch_size:
        together = config.accumulate * config.batch_size
        there = counted(samples, "training sample")
        problems.add(f"accumulate: an update of {together:,} samples is more than the {there}")


def _check_batch_norm(config: TrainConfig, model: nn.Module, shape: Shape, problems: Problems) -> None:
    """Add what a model with batch normalisation cannot be trained with."""
    remedy = "set batch_norm=false or choose a model without it"
    if config.batch_size == 1 and not _trains_on_one(config, model, shape):
        problems.add(
            "batch_size: 1 leaves batch normalisation of a linear layer, or of maps of one pixel, nothing to compare; "
            "at least 2"
        )
    if config.batch_size == "full":
        problems.add(f"batch_size: full is taken in chunks, which batch normalisation would see as batches; {remedy}")
    if config.on_oom == "halve":
        problems.add(f"on_oom: halve changes the batches that batch normalisation sees; {remedy}")
