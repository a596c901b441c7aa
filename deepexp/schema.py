"""The typed config: every key with its type, range, default and meaning; one check reports all problems together.

The dataclasses describe the closed part of the config. A model, data source, optimizer, schedule, augmentation or
loss is open: its node also holds `_target_` and that target's own arguments, which are `Component.arguments`.
Only values are looked at here; what needs the objects themselves (shapes, patterns, devices) is in `check.py`.
This module imports nothing heavy: the command line reads its help text from it.
"""

import dataclasses
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from deepexp.disk.yaml_words import as_yaml
from deepexp.errors import raise_any
from deepexp.text.annotations import allowed, is_within, kinds, match
from deepexp.text.suggest import did_you_mean


def key(default: Any, meaning: str, **limits: float) -> Any:
    """A config key: its default, its meaning, and limits out of `minimum`, `above`, `maximum`, `below`."""
    metadata = {"meaning": meaning, **limits}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Component:
    """An open node: the dotted name in its `_target_`, and the arguments for it."""

    target: str  # empty where it was refused
    arguments: dict[str, Any]


@dataclass
class InputConfig:
    """The picture that a model takes; null means the data's own."""

    channels: int | None = key(None, "channels of the model's input; null: the data's own", minimum=1)
    height: int | None = key(None, "height in pixels; null: the data's own", minimum=1)
    width: int | None = key(None, "width in pixels; null: the data's own", minimum=1)


@dataclass
class ModelConfig:
    """The part of the `model` node that every model has."""

    component: Component
    input: InputConfig


@dataclass
class DataConfig:
    """The part of the `data` node that every data set has."""

    component: Component
    root: str = key("${oc.env:DEEPEXP_DATA,data}", "where data sets lie or are downloaded to")
    mode: Literal["auto", "resident", "streamed"] = key(
        "auto", "resident: on the device; streamed: DataLoader; auto: resident if it fits"
    )
    workers: int | Literal["auto"] = key("auto", "processes that load streamed data", minimum=0)
    resize: int | None = key(None, "side in pixels that pictures are resized to; null: what the model takes", minimum=1)
    normalise: Literal["channel", "scalar", "imagenet", "none"] = key(
        "channel", "mean and deviation per channel, over all, those of ImageNet, or neither"
    )
    subset: int | None = key(None, "train on so many samples, drawn by class", minimum=1)
    replicate: int = key(1, "repeat the training samples so many times", minimum=1)


@dataclass
class OptimConfig:
    """The part of the `optim` node that every optimizer has."""

    component: Component
    groups: list[dict[str, Any]] = key([], "parameter groups: [{pattern, lr_mult, weight_decay, …}], first match wins")


@dataclass
class ScheduleConfig:
    """The learning-rate schedule."""

    component: Component


@dataclass
class AugmentConfig:
    """The augmentation of training pictures."""

    component: Component


CROSS_ENTROPY = "deepexp.training.losses.CrossEntropy"


@dataclass
class LossConfig:
    """What training minimises."""

    component: Component


@dataclass
class FreezeRule:
    """Parameters that are not trained for a share of the run or for some epochs."""

    pattern: str = key("", "glob on parameter names")
    share: float | None = key(None, "share of the epochs", minimum=0.0, maximum=1.0)
    epochs: int | None = key(None, "number of epochs", minimum=0)


@dataclass
class Graft:
    """Layers that are taken from another network."""

    from_: str  # a run or a file of weights
    layers: str  # a glob on the names of its tensors
    to: str | None = key(None, "their names in the model; null: the same")


@dataclass
class CheckpointConfig:
    """When a run is saved besides the end of each epoch."""

    every_minutes: float | None = key(None, "also save so often within an epoch; null: at each epoch only", above=0.0)


@dataclass
class TrainConfig:
    """Everything that `deepexp train` reads, in the order of the straight line from data to result."""

    model: ModelConfig
    data: DataConfig
    optim: OptimConfig
    schedule: ScheduleConfig
    augment: AugmentConfig
    loss: LossConfig
    batch_size: int | Literal["full"] = key(
        100, "samples an update, or 'full': gradient descent on the whole set", minimum=1
    )
    drop_last: bool = key(False, "leave out a last partial batch")
    order: Literal["shuffled", "sequential", "with_replacement"] = key(
        "shuffled", "how the samples of an epoch are visited"
    )
    epochs: int = key(10, "passes over the training set", minimum=1)
    max_steps: int | None = key(None, "end after so many updates", minimum=1)
    max_minutes: float | None = key(None, "end after so many minutes", above=0.0)
    dropout: float | None = key(None, "drop probability; null: the model's own default", minimum=0.0, below=1.0)
    batch_norm: bool | None = key(None, "null: the model's own default")
    init: Literal["default", "xavier", "kaiming"] = key("default", "initial weights; pretrained layers are left alone")
    init_from: str | None = key(
        None, "a run or file whose weights to begin with, except a last layer for other classes"
    )
    surgery: list[Graft] | None = key(
        None, "layers to take from other runs or files: [{from, layers, to}], globs on names of tensors"
    )
    freeze: list[FreezeRule] | None = key(
        None, "null: the model's own default; [{pattern, share | epochs}]: frozen first"
    )
    cache_frozen: bool = key(True, "compute outputs of frozen first layers only once, if it is exact and fits")
    loss_reduction: Literal["mean", "sum"] = key("mean", "of the loss over a batch, as its gradient sees it")
    label_smoothing: float = key(0.0, "share of the target that is spread over all classes", minimum=0.0, below=1.0)
    class_weights: Literal["balanced"] | list[float] | None = key(
        None,
        "of the training loss; balanced: rare classes count more; or [1, 2, …], a weight for each class",
        minimum=0.0,
    )
    clip_grad_norm: float | None = key(None, "largest norm of the whole gradient", above=0.0)
    accumulate: int = key(1, "batches an update", minimum=1)
    ema: float | None = key(None, "decay of averaged weights, which are then the ones tested", above=0.0, below=1.0)
    val_fraction: float = key(0.0, "share of the training set held out for validation", minimum=0.0, below=1.0)
    monitor: Literal["error_rate", "loss"] = key("error_rate", "validation figure that tells the best weights; or loss")
    early_stop: int | None = key(None, "end after so many epochs without a better validation (see monitor)", minimum=1)
    evaluate_every: int = key(1, "epochs between evaluations", minimum=1)
    log_every: int = key(50, "updates between readings of the loss", minimum=1)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    on_oom: Literal["stop", "halve"] = key("stop", "when the device runs out of memory: stop, or split the batch")
    seed: int = key(0, "of the initial weights, order, dropout, subsets and augmentation", minimum=0, maximum=2**63 - 1)
    device: str = key("auto", "auto, cpu, cuda, cuda:1, mps")
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = key(
        "fp32", "arithmetic of the model (tf32 and fp16: CUDA only)"
    )
    deterministic: bool = key(False, "torch's deterministic algorithms")
    compile: bool = key(False, "torch.compile for training passes: minutes at first, for long runs on a GPU")
    cuda_graph: bool | Literal["auto"] = key(
        "auto",
        "record updates and evaluations as CUDA graphs and replay them; auto: on CUDA, for models of conf/model",
    )
    threads: int | Literal["auto"] = key("auto", "CPU threads of this run", minimum=1)
    name: str | None = key(None, "of the run directory; null: the model's name")
    output_dir: str = key("outputs", "where run directories are made")
    resume: str | None = key(None, "run or sweep directory to go on with; auto: what this same command began")
    dry_run: bool = key(False, "show config, parameters, memory and one batch; train nothing")


def as_written(entries: Sequence[Any]) -> list[Any]:
    """The entries of a list in the config as YAML has them."""
    return [
        {name.rstrip("_"): value for name, value in vars(entry).items()} if dataclasses.is_dataclass(entry) else entry
        for entry in entries
    ]


class Problems:
    """The problems found, which are reported together."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, line: str) -> None:
        if line not in self.lines:
            self.lines.append(line)

    def raise_any(self) -> None:
        """Raise one `InputError` with a line for each problem, if there are any."""
        raise_any(self.lines)


def typed(config: Mapping[str, Any], problems: Problems) -> TrainConfig | None:
    """The config as dataclasses, after adding what is wrong with single values to `problems`.

    Wrong values are replaced by their defaults, so that the rest can be checked; None where one has no default.
    """
    result = _build(TrainConfig, config, "", problems)
    return None if result is _WRONG else typing.cast(TrainConfig, result)


def section(cls: type, node: Mapping[str, Any], prefix: str, problems: Problems) -> Any:
    """A closed part of a config as an instance of its dataclass; not to be used if anything is added to `problems`."""
    return _build(cls, node, prefix, problems)


HANDED_ON = ("dropout", "batch_norm")
"""Keys that reach a model through its YAML, which has them as `${dropout}`; not every model has a place for them."""


def keys_of(group: str) -> list[str]:
    """The closed keys of a group, which are not passed to its target."""
    cls = typing.get_type_hints(TrainConfig)[group]
    return [item.name for item in dataclasses.fields(cls) if item.name != "component"]


def check_values(config: TrainConfig, problems: Problems) -> None:
    """Add what is wrong with values that must fit each other; nothing is built for it."""
    for index, rule in enumerate(config.freeze or []):
        if (rule.share is None) == (rule.epochs is None):
            problems.add(f"freeze[{index}]: needs either share or epochs beside its pattern")
        if not rule.pattern:
            problems.add(f"freeze[{index}]: needs a pattern (a glob on parameter names)")
    if not config.output_dir.strip():
        problems.add("output_dir: is empty; give a folder, or leave it out")
    if config.init_from is not None and not config.init_from.strip():
        problems.add("init_from: is empty; give a run or a file of weights, or leave it out")
    if config.label_smoothing and config.loss.component.target != CROSS_ENTROPY:
        problems.add("label_smoothing: is for loss=cross_entropy alone; leave it at 0.0, or choose that loss")
    if config.batch_size == "full" and config.accumulate > 1:
        problems.add("accumulate: batch_size=full already takes the whole set in one update; leave accumulate at 1")
    if config.batch_size == "full" and config.drop_last:
        problems.add("drop_last: batch_size=full has no last partial batch; leave drop_last at false")


def describe_keys() -> Iterator[tuple[str, Any, str]]:
    """(dotted key, default, meaning with the allowed values) of every closed key, for help texts."""
    yield from _describe(TrainConfig, "")


def _describe(cls: type, prefix: str) -> Iterator[tuple[str, Any, str]]:
    hints = typing.get_type_hints(cls)
    for item in dataclasses.fields(cls):
        if hints[item.name] is Component:
            continue
        if dataclasses.is_dataclass(hints[item.name]):
            yield from _describe(typing.cast(type, hints[item.name]), f"{prefix}{item.name}.")
            continue
        default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
        yield prefix + item.name, default, str(item.metadata["meaning"])


_WRONG: Any = object()  # in place of what was refused


def _build(cls: type, node: Any, prefix: str, problems: Problems) -> Any:
    """An instance of a config dataclass out of a mapping; see `typed`."""
    if not isinstance(node, Mapping):
        problems.add(f"{prefix.rstrip('.') or 'config'}: {as_yaml(node)} is not allowed; a mapping is needed")
        return _WRONG
    hints = {name.rstrip("_"): hint for name, hint in typing.get_type_hints(cls).items()}
    known = {item.name.rstrip("_"): item for item in dataclasses.fields(cls)}  # `from_`, as `from` is Python's
    values: dict[str, Any] = {}
    if "component" in known:
        extra = {name: value for name, value in node.items() if name not in known}
        values["component"] = _component(extra, prefix, problems)
    else:
        for name in node:
            if name not in known:
                problems.add(f"{prefix}{name}: there is no such key{did_you_mean(str(name), list(known))}")
    for name, item in known.items():
        if name == "component":
            continue
        if name in node:
            values[name] = _value(hints[name], node[name], prefix + name, item.metadata, problems)
        elif not _has_default(item):
            problems.add(f"{prefix}{name}: is missing")
    values = {name: value for name, value in values.items() if value is not _WRONG}
    if not all(n in values or _has_default(known[n]) for n in known):
        return _WRONG
    return cls(**{known[name].name: value for name, value in values.items()})


def _has_default(item: dataclasses.Field[Any]) -> bool:
    return item.default is not dataclasses.MISSING or item.default_factory is not dataclasses.MISSING


def _component(extra: Mapping[str, Any], prefix: str, problems: Problems) -> Component:
    target = extra.get("_target_")
    if not extra:
        problems.add(f"{prefix.rstrip('.')}: is missing or empty; choose an option of this group that has a _target_")
        target = ""
    elif not isinstance(target, str):
        problems.add(f"{prefix}_target_: the dotted name of a class or function is needed")
        target = ""
    return Component(target, {name: value for name, value in extra.items() if name != "_target_"})


def _value(annotation: Any, value: Any, path: str, limits: Mapping[str, Any], problems: Problems) -> Any:
    for kind in kinds(annotation):
        if dataclasses.is_dataclass(kind):
            return _build(typing.cast(type, kind), value, f"{path}.", problems)
        if typing.get_origin(kind) is list:
            if not isinstance(value, Sequence) or isinstance(value, str):
                continue
            (inner,) = typing.get_args(kind)
            items = [_item(inner, entry, f"{path}[{index}]", limits, problems) for index, entry in enumerate(value)]
            return _WRONG if any(item is _WRONG for item in items) else items
        matched, converted = match(kind, value)
        if matched:
            if (
                isinstance(converted, (int, float))
                and not isinstance(converted, bool)
                and not is_within(converted, limits)
            ):
                continue
            return converted
    problems.add(f"{path}: {as_yaml(value)} is not allowed; {allowed(annotation, limits)}")
    return _WRONG


def _item(inner: Any, entry: Any, path: str, limits: Mapping[str, Any], problems: Problems) -> Any:
    if inner is float:
        return _value(inner, entry, path, limits, problems)
    if dataclasses.is_dataclass(inner):
        return _build(typing.cast(type, inner), entry, f"{path}.", problems)
    if not isinstance(entry, Mapping):
        problems.add(f"{path}: {as_yaml(entry)} is not allowed; a mapping is needed")
        return _WRONG
    return dict(entry)
