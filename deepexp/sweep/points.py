"""The check of every point of a sweep before the first job starts, and the choices made once for all of them."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from deepexp import build, check, runtime, weights
from deepexp.config import catalogue, overrides
from deepexp.config.compose import check_swept_keys, composing, placed
from deepexp.config.composer import Composed
from deepexp.data.dataset import has_validation
from deepexp.data.loader import mode_that_fits
from deepexp.data.memory import capacity_bytes
from deepexp.data.source import Shape
from deepexp.disk.yaml_words import yaml_word
from deepexp.errors import InputError
from deepexp.models import pretrained
from deepexp.run import identity
from deepexp.schema import CROSS_ENTROPY, TrainConfig
from deepexp.sweep.directory import Choices, DataMode
from deepexp.sweep.names import job_names
from deepexp.sweep.slots import Slot
from deepexp.text.units import first_few

_WHERE = ("name", "output_dir", "resume", "dry_run")
"""Keys that say where a run lies or how it is called, and do not change its result."""

ADDED = ("init_from", "surgery", "class_weights")
"""Keys that were added to deepexp later; where they are null, a job keeps the hash that it had without them.

So it does with the loss and the monitor that all jobs had before there was a choice, and where it takes the validation
data that a folder of pictures has: they do not change what is trained."""

NOTHING_STARTED = "nothing was started"
"""The last line of a message about points that are not possible."""

_MOST_PLACED = 20

_REFUSED = re.compile(r"([\w.]+): (\S+) is not allowed; (.+)")  # how `schema.py` refuses a value


@dataclass(frozen=True)
class Checked:
    """A point that was composed and found to be possible."""

    words: list[str]
    varying: dict[str, str]
    """What distinguishes it from other points: keys and values, as text."""
    name: str
    config: TrainConfig
    epochs: int
    """How many it is trained for, if no clock or early stop ends it."""
    device: torch.device
    device_bytes: int
    """Of the device's memory, what its pictures take if they are resident."""
    takes: tuple[Shape, int]
    """(shape of pictures, number of classes) that its model is made for."""
    choices: dict[str, str | None]
    """Group → the option chosen in it."""
    resolved: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Point:
    """A job to be: its name, the overrides that it is started with, and the hash that it is known by."""

    name: str
    varying: dict[str, str]
    overrides: list[str]
    config_hash: str
    former_hashes: Sequence[str]
    """Hashes that earlier versions gave it: with `data.workers` and the like, or with keys that were added then."""
    epochs: int
    """See `Checked`."""
    takes: tuple[Shape, int]
    """See `Checked`."""
    config: TrainConfig = field(repr=False)
    """As it was checked: without the choices made for the whole sweep."""


def check_points(points: Sequence[Sequence[str]], fixed: Collection[str], *, needs_validation: bool) -> list[Checked]:
    """Compose and check every point; one `InputError` for all problems, each with the points that have it.

    `fixed`: the keys that do not vary. `needs_validation`: refuse points without a validation set.
    """
    varying = [_varying(words, fixed) for words in points]
    names = job_names(varying)
    checked: list[Checked] = []
    problems: dict[str, list[str]] = {}
    first: dict[str, Composed] = {}  # problem → the config of the first point that has it
    plans: dict[str, check.Plan] = {}
    with composing() as compose:
        for words, values, name in zip(points, varying, names, strict=True):
            composed = None
            try:
                composed = compose(words)
                checked.append(
                    _check_point(composed, list(words), values, name, plans, needs_validation=needs_validation)
                )
            except InputError as error:
                for line in str(error).splitlines():
                    problems.setdefault(line, []).append(name)
                    if composed is not None:
                        first.setdefault(line, composed)
    if problems:
        raise refusal(_placed(_together(problems), first), len(points))
    return checked


def refusal(problems: Mapping[str, Sequence[str]], total: int) -> InputError:
    """One error for all problems, each with the names of the points that have it, of `total` points."""
    lines = [f"{_whose(names, total)}: {line}" if total > 1 else line for line, names in problems.items()]
    return InputError("\n".join([*lines, NOTHING_STARTED]))


def warn(points: Sequence[Checked]) -> None:
    """Log once for all jobs the warnings that each of them logs too."""
    for device, precision in dict.fromkeys((point.device, point.config.precision) for point in points):
        runtime.warn_of_imitation(device, precision)
    catalogue.warn_of_unused(dict.fromkeys(choice for point in points for choice in point.choices.items()))


def choose_pretrained(points: Sequence[Checked]) -> bool | str | None:
    """What `model.pretrained=auto` stands for on this machine now; None if no point has it."""
    for point in points:
        if point.config.model.component.arguments.get("pretrained") == "auto":
            return pretrained.resolve("auto")
    return None


def check_pretrained(points: Sequence[Point]) -> None:
    """Find or download the pretrained weights that points name, once for each model, before the first job begins.

    `InputError` for all weights that cannot be had, with the points that need them.
    """
    models: dict[str, list[Point]] = {}
    for point in points:
        component = point.config.model.component
        what = [component.target, component.arguments, point.config.init_from, point.config.surgery, point.takes]
        models.setdefault(json.dumps(what, sort_keys=True, default=repr), []).append(point)
    problems: dict[str, list[str]] = {}
    for alike in models.values():
        try:
            weights.fetch(alike[0].config, *alike[0].takes)  # for `auto`, see `choose_pretrained`
        except InputError as error:
            problems.setdefault(str(error), []).extend(point.name for point in alike)
    if problems:
        raise refusal(problems, len(points))


def choose_data_mode(points: Sequence[Checked], slots: Sequence[Slot]) -> DataMode | None:
    """What `data.mode=auto` stands for on this machine: streamed if any pictures do not fit; None if no point has it.

    Jobs that share a GPU have a copy of the pictures each; on a CPU all jobs share the pages of a mapped file.
    """
    sharing = max(Counter(tuple(slot.environment.items()) for slot in slots).values())
    chosen: DataMode | None = None
    for point in points:
        if point.config.data.mode == "auto" and chosen != "streamed":
            needed = point.device_bytes * (1 if point.device.type == "cpu" else sharing)
            chosen = mode_that_fits(needed, capacity_bytes(point.device)) if needed else "resident"
    return chosen


def settled(point: Checked, choices: Choices) -> Point:
    """The point with the choices made for the whole sweep written into its overrides, where it leaves them open."""
    words = list(point.words)
    resolved = point.resolved
    if resolved["model"].get("pretrained") == "auto":
        choice = choices.pretrained
        assert choice is not None
        resolved = {**resolved, "model": {**resolved["model"], "pretrained": choice}}
        value = overrides.quote(choice) if isinstance(choice, str) else yaml_word(choice)
        words.append(f"model.pretrained={value}")
    if point.config.threads == "auto":
        words.append(f"threads={choices.threads}")
    if point.config.data.mode == "auto":
        words.append(f"data.mode={choices.data_mode}")  # no part of the hash: the batches are the same
    reduced = _without(resolved, identity.HOW - point.varying.keys())
    return Point(
        name=point.name,
        varying=point.varying,
        overrides=words,
        config_hash=config_hash(reduced),
        former_hashes=[config_hash(resolved), config_hash(reduced, but_for={"class_weights"})],
        epochs=point.epochs,
        takes=point.takes,
        config=point.config,
    )


def config_hash(resolved: Mapping[str, Any], but_for: Collection[str] = ()) -> str:
    """The hash of a composed config, by which a sweep knows its jobs; keys that only name a run are left out.

    `but_for`: keys of `ADDED` that count even where they are null.
    """
    added = {key for key in ADDED if resolved.get(key) is None and key not in but_for}
    if resolved.get("loss") == {"_target_": CROSS_ENTROPY}:
        added.add("loss")
    if resolved.get("monitor") == "error_rate":
        added.add("monitor")
    if resolved.get("data", {}).get("own_validation") is True:
        resolved = _without(resolved, {"data.own_validation"})
    kept = {key: value for key, value in resolved.items() if key not in _WHERE and key not in added}
    text = json.dumps(kept, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _without(resolved: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    """A nested mapping without some keys, such as `log_every` or `data.workers`."""
    kept = {}
    for name, value in resolved.items():
        if name in keys:
            continue
        inner = [key.removeprefix(f"{name}.") for key in keys if key.startswith(f"{name}.")]
        kept[name] = _without(value, inner) if inner else value
    return kept


def _check_point(
    composed: Composed,
    words: list[str],
    varying: dict[str, str],
    name: str,
    plans: dict[str, check.Plan],
    *,
    needs_validation: bool,
) -> Checked:
    """`plans`: those made so far; points that differ in their seed alone share one."""
    check_swept_keys(composed, words)
    resolved = composed.resolved()
    if not varying:  # it is the only point, and named like a single run
        name = job_names([{}], composed.run_name)[0]
    but_for_the_seed = config_hash({key: value for key, value in resolved.items() if key != "seed"})
    config, plan = check.typed_and_planned(resolved, plans.get(but_for_the_seed))
    plans[but_for_the_seed] = plan
    for key in _WHERE:
        if key in varying:
            raise InputError(f"{key}: cannot be different from job to job")
    if needs_validation and not has_validation(plan.info, config.val_fraction):
        raise InputError(
            "val_fraction: settings are chosen by the validation error, and there is none; set val_fraction=0.1, "
            "or ask for the test error with hydra.launcher.objective=test_error_rate"
        )
    return Checked(
        words=words,
        varying=varying,
        name=name,
        config=config,
        epochs=plan.epochs,
        device=plan.device,
        device_bytes=build.device_bytes(config, plan),
        takes=plan.takes,
        choices=composed.choices,
        resolved=resolved,
    )


def _placed(problems: Mapping[str, list[str]], first: Mapping[str, Composed]) -> dict[str, list[str]]:
    """The problems, some of them with their place in a file of the user's; looking for one takes 50 ms."""
    lines = [line for line in problems if line in first][:_MOST_PLACED]
    found = {line: placed(first[line], [line])[0] for line in lines}
    return {found.get(line, line): names for line, names in problems.items()}


def _varying(words: Sequence[str], fixed: Collection[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for word in words:
        _, key, value = overrides.split(word)
        if key not in fixed:
            values[key] = "null" if value is None else overrides.unquote(value)
    return values


def _together(problems: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The problems, with one line for all refused values of a key, as random points each have another value."""
    values: dict[tuple[str, str], list[str]] = {}
    points: dict[tuple[str, str], list[str]] = {}
    for line, names in problems.items():
        found = _REFUSED.fullmatch(line)
        key, value, rest = found.groups() if found else (line, "", "")
        values.setdefault((key, rest), []).append(value)
        points.setdefault((key, rest), []).extend(names)
    return {_refused(key, every, rest) if rest else key: points[key, rest] for (key, rest), every in values.items()}


def _refused(key: str, values: Sequence[str], rest: str) -> str:
    """The message of `schema.py` about a refused value, for several of them."""
    if len(values) == 1:
        return f"{key}: {values[0]} is not allowed; {rest}"
    hint = "; int(interval(…)) draws whole ones" if rest.startswith("a whole number") and "." in values[0] else ""
    return f"{key}: {_listed(values, ', ')} are not allowed; {rest}{hint}"


def _whose(names: Sequence[str], total: int) -> str:
    """The points that have a problem, in words."""
    return f"all {total} points" if len(names) == total > 1 else _listed(list(dict.fromkeys(names)), "; ")


def _listed(words: Sequence[str], comma: str) -> str:
    """The first few of some words."""
    return " and ".join(words) if len(words) <= 2 else first_few(words, comma)
