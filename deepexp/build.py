"""From config to objects: the only place that calls Hydra's `instantiate`.

Each function makes one of the things on the straight line of a run. What a target refuses (`ValueError`) becomes an
`InputError` that names the config key.
"""

import contextlib
import dataclasses
import functools
import inspect
import json
import logging
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch import Tensor, nn

from deepexp import cuda_graph, paths, runtime
from deepexp.data.augment import Nothing
from deepexp.data.balance import balanced_weights
from deepexp.data.dataset import Dataset, Pictures, announced_pictures, assemble
from deepexp.data.features import FeatureLoader
from deepexp.data.loader import choose_mode, make_loader
from deepexp.data.source import DataInfo, Shape, Source, Split
from deepexp.errors import InputError, RunFailed, in_short, raise_any, under
from deepexp.models import init, surgery, transfer
from deepexp.models.layout import channels_last, unshared
from deepexp.optim.capturable import capturable_arguments
from deepexp.optim.ema import Ema
from deepexp.optim.freeze import FreezePlan
from deepexp.optim.fused import fused_arguments
from deepexp.optim.groups import check_arguments, check_group_options, parameter_groups, refusals
from deepexp.parts import Parts
from deepexp.run.identity import Identity
from deepexp.schema import CROSS_ENTROPY, HANDED_ON, Component, TrainConfig
from deepexp.step import Objective, Precision, Step
from deepexp.text.units import counted
from deepexp.training.compiled import AsWritten, Compiled
from deepexp.training.frozen_features import arrange
from deepexp.training.losses import Loss
from deepexp.training.memory import is_out_of_memory
from deepexp.training.updates import EagerUpdates
from deepexp.user_code import own_code, own_data, own_model, own_parts, targets

if TYPE_CHECKING:
    from deepexp.check import Plan

log = logging.getLogger(__name__)

LoaderMode = Literal["resident", "streamed"]


def session(config: TrainConfig, plan: "Plan") -> contextlib.AbstractContextManager[None]:
    """The process set up for a run of this config; see `runtime.session`."""
    tf32 = config.precision == "tf32"
    return runtime.session(plan.device, threads=config.threads, deterministic=config.deterministic, tf32=tf32)


def source(config: TrainConfig) -> Source:
    """The data source; it has loaded nothing yet. One of the user's own is guarded (`user_code/own_data.py`)."""
    given: dict[str, Any] = {}
    if "root" in targets.signature_of("data", config.data.component).parameters:
        given["root"] = Path(os.path.expanduser(config.data.root))
    return own_data.guarded(_instantiate("data", config.data.component, **given))


def source_key(config: TrainConfig) -> str:
    """A text that is equal for two configs whose sources give the same pictures."""
    component = config.data.component
    root = paths.absolute(config.data.root)
    return json.dumps([component.target, component.arguments, root], sort_keys=True, default=repr)


def input_shape(config: TrainConfig, info: DataInfo) -> Shape:
    """(channels, height, width) of what the model sees: `data.resize`, else the model's own input, else the data's."""
    channels, height, width = info.shape
    wanted = config.model.input
    if config.data.resize is not None:
        height = width = config.data.resize
    else:
        height, width = wanted.height or height, wanted.width or width
    if wanted.channels not in (None, channels) and channels != 1:
        raise InputError(
            f"model: takes {counted(wanted.channels, 'channel')}, and the pictures have {channels}; "
            f"choose another model or other data (only one channel can be repeated)"
        )
    return wanted.channels or channels, height, width


def model(
    config: TrainConfig, shape: Shape, classes: int, device: torch.device | str, *, load_pretrained: bool = True
) -> nn.Module:
    """The model with its initial weights, which depend on the seed alone; on the meta device it has none."""
    given: dict[str, Any] = {"shape": shape, "classes": classes}
    component = config.model.component
    for flag in HANDED_ON:
        if getattr(config, flag) is not None and flag not in component.arguments:
            raise InputError(f"{flag}: model {component.target} has no place for it; leave {flag}=null")
    if torch.device(device).type == "meta":
        with runtime.forked_random(torch.device("cpu")):
            made = _made_on_meta(component, given, config.seed)
            make_real = (lambda: _made_on_cpu(component, given, config.seed)) if _runs_as_tried(config) else None
            own_model.check(made, component, targets.of("model", component), shape, classes, make_real)
        return made
    with runtime.forked_random(torch.device(device)):
        runtime.seed_generators(config.seed)
        made = _instantiate("model", component, **given)
        init.initialise(made, config.init)
        is_new = load_pretrained  # else the run that it belongs to has said so when it began
        if is_new and config.loss.component.target == CROSS_ENTROPY:
            again = functools.partial(_made_on_cpu, component, given, config.seed)
            own_model.warn_of_probabilities(again, component.target, shape)
    own_model.warn_of_loose_layers(made, component.target)
    own_model.warn_of_uncalled_methods(made, component.target)
    if load_pretrained and hasattr(made, "load_pretrained"):
        made.load_pretrained()
    made = channels_last(unshared(made.to(device=device)))
    if load_pretrained and config.init_from is not None:
        transfer.begin_with(made, Path(paths.absolute(config.init_from)), classes)
    if load_pretrained and config.surgery:
        surgery.operate(made, grafts(config))
    return made


def grafts(config: TrainConfig) -> list[surgery.Graft]:
    """The layers that `surgery` names."""
    return [surgery.Graft(Path(paths.absolute(one.from_)), one.layers, one.to) for one in config.surgery or []]


def _made_on_meta(component: Component, given: dict[str, Any], seed: int) -> nn.Module:
    """A model on the meta device; one of the user's own that cannot be made there is made on the CPU and moved."""
    targets.of("model", component)  # imported outside the block, so that tensors of its module are real ones
    runtime.seed_generators(seed)
    try:
        with torch.device("meta"):
            return _instantiate("model", component, **given)
    except InputError:
        if component.target.startswith("deepexp."):
            raise
    made = _made_on_cpu(component, given, seed)
    return made.to("meta") if isinstance(made, nn.Module) else made


def _made_on_cpu(component: Component, given: dict[str, Any], seed: int) -> Any:
    """A real model to try out, before initialisation; its own random choices depend on the seed."""
    runtime.seed_generators(seed)
    made = _instantiate("model", component, **given)
    return channels_last(made) if isinstance(made, nn.Module) else made


def _runs_as_tried(config: TrainConfig) -> bool:
    """Whether the run calls the model as `own_model.check` tries it: in fp32 on a CPU."""
    try:
        return config.precision == "fp32" and runtime.choose_device(config.device).type == "cpu"
    except InputError:  # which is reported as a problem of its own
        return False


def optimizer(
    config: TrainConfig, of: nn.Module, *, fused: bool = False, recorded: bool = False
) -> torch.optim.Optimizer:
    """The optimizer over the model's parameters in their groups.

    `fused`: in one kernel, where that is faster; `recorded`: so that a CUDA graph can record its step, if possible.
    """
    check_optimizer(config)
    component = config.optim.component
    partial = _instantiate("optim", component)
    try:
        groups = parameter_groups(of, config.optim.groups, component.arguments["lr"])
        fused = fused and all(parameter.is_floating_point() for parameter in of.parameters())  # not complex ones
        how = fused_arguments(partial, next(of.parameters()).device) if fused else {}
        how |= capturable_arguments(partial, config.optim.groups) if recorded else {}
        made: torch.optim.Optimizer = partial(groups, **how)
    except Exception as error:
        raise _refused_by_optimizer(error) from error
    return made


def check_optimizer(config: TrainConfig) -> None:
    """Raise `InputError` for what the optimizer refuses whatever the model is."""
    partial = _instantiate("optim", config.optim.component)
    if "lr" not in config.optim.component.arguments:
        raise InputError("optim.lr: is missing; schedules and groups start from it")
    raise_any(refusals(partial, config.optim.groups, config.precision))
    try:
        check_arguments(partial)
        check_group_options(partial, config.optim.groups)
    except Exception as error:
        raise _refused_by_optimizer(error) from error


def _refused_by_optimizer(error: Exception) -> InputError:
    """What to raise for an error of an optimizer, which may be of any kind for wrong arguments."""
    return InputError(under("optim", str(error) if isinstance(error, ValueError) else in_short(error)))


def schedule(config: TrainConfig) -> Any:
    """The learning-rate schedule: a pure function of the step."""
    return _instantiate("schedule", config.schedule.component)


def augment(config: TrainConfig) -> Any:
    """The augmentation of training pictures."""
    return _instantiate("augment", config.augment.component)


def loss(config: TrainConfig, class_counts: Sequence[int], device: torch.device | str = "cpu") -> Loss:
    """What training minimises, on the device if it holds tensors; one that takes `class_counts` is given them."""
    takes = targets.signature_of("loss", config.loss.component).parameters
    given = {"class_counts": list(class_counts)} if "class_counts" in takes else {}
    made: Any = _instantiate("loss", config.loss.component, **given)
    return made.to(device) if isinstance(made, nn.Module) else made


def dataset(config: TrainConfig, plan: "Plan", loaded: Mapping[str, Source] | None = None) -> Dataset:
    """The pictures of the run, in the shape that the model takes.

    `loaded`: sources that are loaded already, by their `source_key`; they are taken instead of loading anew.
    """
    return assembled(config, (loaded or {}).get(source_key(config), plan.source), plan.shape)


def assembled(config: TrainConfig, source: Source, shape: Shape) -> Dataset:
    """The pictures of a source as the config has them chosen, held out and normalised."""
    try:
        return assemble(
            source,
            shape=shape,
            subset=config.data.subset,
            replicate=config.data.replicate,
            val_fraction=config.val_fraction,
            normalise=config.data.normalise,
            seed=config.seed,
        )
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunFailed(f"data: out of memory; fewer or smaller pictures need less ({in_short(error)})") from error


def data_mode(config: TrainConfig, plan: "Plan", data: Dataset) -> LoaderMode:
    """Where the pictures lie while training: `data.mode`, with `auto` settled by the memory there is."""
    return choose_mode(data, plan.device, config.data.mode)


def device_bytes(config: TrainConfig, plan: "Plan") -> int:
    """How much more of the device's memory resident pictures will take, estimated without loading them.

    On a CPU 0, unless they are memory-mapped from files: all others are in its memory in either mode.
    """
    if plan.device.type == "cpu" and not (plan.info.is_mapped and plan.shape == plan.info.shape):
        return 0
    return announced_pictures(plan.info, config.data.subset, config.val_fraction) * math.prod(plan.shape)


def parts(config: TrainConfig, plan: "Plan", data: Dataset, model: nn.Module, mode: LoaderMode) -> Parts:
    """What a trainer works with, around a model that is on its device already."""
    device = plan.device
    runtime.warn_of_imitation(device, config.precision)

    def loader(split: Split, name: str) -> FeatureLoader:
        pictures = make_loader(split, data, device, mode, config.data.workers)
        return FeatureLoader(pictures, len(split), plan.shape, device, name)

    train, test = loader(data.train, "training"), loader(data.test, "test")
    val = None if data.val is None else loader(data.val, "validation")
    unrecorded = _unrecorded(config, device, mode)
    recorded = unrecorded is None
    made = optimizer(config, model, fused=True, recorded=recorded)
    weights, minimised = _class_weights(config, data, device), loss(config, data.class_counts, device)
    step = Step(
        model,
        made,
        objective=Objective(config.loss_reduction, config.label_smoothing, weights, minimised),
        precision=Precision(device, config.precision),
        clip_grad_norm=config.clip_grad_norm,
        split_on_oom=config.on_oom == "halve",
        recorded=recorded,
        forward=Compiled(_most_common_batch(plan)) if config.compile else AsWritten(),
    )
    freeze = FreezePlan(model, freeze_rules(config, model), config.epochs)
    loaders = [train, test] if val is None else [train, test, val]
    augmentation = augment(config)
    ema = None if config.ema is None else Ema(model, config.ema, recorded=recorded)
    eager = EagerUpdates(step, train, augmentation, ema)
    update_maker, scorer = cuda_graph.arrange(eager, plan.updates, refused=unrecorded, asked=config.cuda_graph)
    return Parts(
        model=model,
        optimizer=made,
        step=step,
        schedule=schedule(config),
        freeze=freeze,
        frozen_features=arrange(step, loaders, freeze, config.epochs, _why_not_kept(config, augmentation)),
        ema=ema,
        augment=augmentation,
        update_maker=update_maker,
        scorer=scorer,
        train=train,
        val=val,
        test=test,
        updates=plan.updates,
        train_samples=len(data.train),
        val_samples=0 if data.val is None else len(data.val),
        test_samples=len(data.test),
        shape=plan.shape,
        pictures=Pictures(plan.info.shape, data.mean, data.std, data.classes),
        identity=Identity.of(config),
    )


def _class_weights(config: TrainConfig, data: Dataset, device: torch.device) -> Tensor | None:
    """The weights of the classes in the training loss, (classes,) float32 on the device; None if all count the same."""
    given = config.class_weights
    if given is None:
        return None
    weights = balanced_weights(data.train.labels, len(data.classes)) if given == "balanced" else torch.tensor(given)
    named = zip(data.classes, weights.tolist(), strict=True)
    log.info("class weights: %s", ", ".join(f"{name} {weight:.3g}" for name, weight in named))
    return weights.to(device)


def _most_common_batch(plan: "Plan") -> int:
    """The batch size that occurs most often in an epoch."""
    ((size, _),) = Counter(stop - start for update in plan.updates for start, stop in update).most_common(1)
    return size


def _unrecorded(config: TrainConfig, device: torch.device, mode: LoaderMode) -> str | None:
    """Why the updates of a run are not to be recorded as a CUDA graph; None if they are."""
    if config.cuda_graph is False:
        return "cuda_graph=false"
    reason = _unrecordable(config, mode)
    if reason is not None or config.cuda_graph is True:
        return reason
    if not cuda_graph.can_record(device):
        return f"the device is {device.type}"
    for name, component in (
        ("model", config.model.component),
        ("augment", config.augment.component),
        ("loss", config.loss.component),
    ):
        if not component.target.startswith("deepexp."):
            return f"{name} is {component.target}, which may choose anew in each update; cuda_graph=true if it does not"
    return None


def _unrecordable(config: TrainConfig, mode: LoaderMode) -> str | None:
    """Why a recording is impossible; None if it is possible."""
    target = targets.of("optim", config.optim.component)
    if inspect.isclass(target) and issubclass(target, torch.optim.LBFGS):
        return "its optimizer evaluates the loss several times an update, and how often is not known before"
    if mode == "streamed":
        return "data.mode=streamed has the CPU make the batches"
    if config.on_oom == "halve":
        return "on_oom=halve may change the batches"
    return None


def _why_not_kept(config: TrainConfig, augmentation: Any) -> str | None:
    """Why the config does not let the features of frozen layers be computed only once; None if it does."""
    if not config.cache_frozen:
        return "cache_frozen=false"
    if not isinstance(augmentation, Nothing):
        return "augment changes the pictures"
    if config.on_oom == "halve":
        return "on_oom=halve may change the batches"
    return None


def freeze_rules(config: TrainConfig, model: nn.Module) -> list[dict[str, Any]]:
    """`freeze` of the config, or the model's own default where that is null."""
    if config.freeze is None:
        return list(getattr(model, "default_freeze", []))
    return [dataclasses.asdict(rule) for rule in config.freeze]


def _instantiate(group: str, component: Component, **given: Any) -> Any:
    targets.check_arguments(group, component, given)
    try:
        made = instantiate({"_target_": component.target, "_convert_": "all", **component.arguments}, **given)
    except (InstantiationException, SystemExit) as error:
        cause = error if isinstance(error, SystemExit) else error.__cause__
        if isinstance(cause, (ValueError, InputError)):
            raise InputError(f"{group}: {own_code.place(cause)}{cause}") from error
        reason = own_code.told(cause) if cause else " ".join(str(error).split()).partition(". ")[0]
        raise InputError(f"{group}: {component.target} failed: {reason}") from error
    own_parts.check_methods(group, made, component.target)
    return made
