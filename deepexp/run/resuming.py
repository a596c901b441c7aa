"""Resuming a run: which config it then has, and what may differ from the one that it was started with.

Changes that would not fit what was trained already are refused, each key by name. What its arithmetic and its code are
now is compared in `circumstances.py`.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from deepexp import build, check, checkpoint, paths
from deepexp.check import Plan
from deepexp.config.composed_of import GROUPS, choices_of
from deepexp.config.composer import Composed
from deepexp.config.overrides import quote_paths, split
from deepexp.data.dataset import Dataset
from deepexp.data.source import WritingSource
from deepexp.disk.storage import storage_errors
from deepexp.disk.yaml_file import text_of
from deepexp.errors import InputError
from deepexp.run import earlier_results, lost_files, saved_config
from deepexp.run.identity import HOW, MAY_CHANGE, Identity
from deepexp.run.rundir import RunDirectory
from deepexp.schema import TrainConfig
from deepexp.text.units import counted

log = logging.getLogger(__name__)

SAME_COMMAND = "auto"
"""What stands in `resume=` for the run or sweep that the same command began; a folder of that name is `./auto`."""


@dataclass(frozen=True)
class Resumed:
    """What a run is resumed with."""

    config: TrainConfig
    plan: Plan
    names: dict[str, Any]
    """Group → the option that was chosen in it."""
    changed: str | None
    """The config with the changes asked for, as YAML; None if there are none."""


def names_place(word: str) -> bool:
    """Whether an override says which run or sweep is to be resumed."""
    return word.lstrip("+").startswith("resume=")


def wants_same_command(words: Sequence[str]) -> bool:
    """Whether the words ask, by `resume=auto`, for whatever the same command began (see `same_command.py`)."""
    return _place_asked(words) == SAME_COMMAND


def place_in(words: Sequence[str]) -> Path | None:
    """The directory that `resume=…` names, if one stands among the words; the last one counts."""
    value = _place_asked(words)
    if value is None or value == SAME_COMMAND:
        return None
    check_place(value)
    return Path(os.path.expanduser(value))


def _place_asked(words: Sequence[str]) -> str | None:
    found = [word for word in quote_paths(words) if names_place(word)]
    override = OverridesParser.create().parse_override(found[-1]) if found else None
    if override is not None and override.is_sweep_override():
        raise InputError(f"{found[-1]}: takes one run or sweep at a time; resume each by a command of its own")
    value = None if override is None else override.value()
    return None if value is None else str(value)


def with_keys_of_its_own(words: Sequence[str]) -> list[str]:
    """The words of a resumed run, with `++` before keys that the default data set lacks, such as `data.cache`.

    They are composed with the default config, whatever data the run has. Raises `InputError` for an empty place.
    """
    if place_in(words) is None:
        return list(words)
    own = [key for key in HOW if key.partition(".")[0] in GROUPS]
    return [f"++{word.lstrip('+')}" if split(word)[1] in own else word for word in words]


def check_place(place: str) -> None:
    """`InputError` for an empty place, as from a shell variable that is not set."""
    if not place.strip():
        raise InputError("resume: is empty; give the directory of a run or of a sweep")


def resume(run: RunDirectory, composed: Composed) -> Resumed:
    """The saved config with the changes asked for. Nothing is written yet.

    Raises `InputError` naming each change that is refused, and why.
    """
    saved, _ = saved_config.read(run)
    asked = _asked(run, composed, saved)
    changes = _different(asked, saved)
    before = OmegaConf.create(saved)
    if "data.root" in changes:  # the old place may hold no data any more
        OmegaConf.update(before, "data.root", changes["data.root"])
    config_before, plan_before = check.typed_and_planned(OmegaConf.to_container(before))
    if "data.root" in asked and "cache" in config_before.data.component.arguments:
        changes.setdefault("data.cache", asked.get("data.cache"))  # the saved one may be for other pictures
    if isinstance(changes.get("data.cache"), str) and isinstance(plan_before.source, WritingSource):
        changes["data.cache"] = paths.absolute(changes["data.cache"])
    changed = OmegaConf.create(saved)
    for key, value in changes.items():
        OmegaConf.update(changed, key, value)
    config, plan = check.typed_and_planned(OmegaConf.to_container(changed))
    _refuse_if_horizon_matters(config_before, plan_before, config, plan)
    if isinstance(plan.source, WritingSource):
        plan.source.keep_out_of(_foreign_places(config, composed, asked))
    return Resumed(config, plan, choices_of(run.path, saved), text_of(changed) if changes else None)


def begin(run: RunDirectory, resumed: Resumed, *, anew: bool) -> None:
    """Record that the run goes on, and with which config; the summary of a finished run is kept.

    A run that begins `anew`, since it has no checkpoint, keeps its old measurements and curves under other names.
    The status is written first: with the status `done` and a config of more epochs, a killed run would seem finished.
    """
    run.set_status("running")
    if anew:
        earlier_results.keep_attempt(run)
        with storage_errors(run.checkpoints, option=None):
            run.checkpoints.mkdir(exist_ok=True)
    if resumed.changed is not None:
        earlier_results.keep_summary(run)
        run.write_hydra_file("config", resumed.changed)


def is_complete(run: RunDirectory, composed: Composed) -> bool:
    """Whether the run is done, and no change asked for would train it further."""
    saved = saved_config.values(run)
    asked = _asked(run, composed, saved)
    return run.read_status().get("status") == "done" and _different(asked, saved).keys() <= HOW


def last_checkpoint(run: RunDirectory, resumed: Resumed) -> dict[str, Any] | None:
    """The content of the last good checkpoint; None when the run was cut off before its first one.

    Raises `InputError` if none is good, if they were removed from a finished run, if it is of another config, or if
    the run is past the end that it is to have now.
    """
    kept = [run.checkpoints / name for name in (checkpoint.LAST, checkpoint.PREVIOUS)]
    if not any(path.exists() for path in kept):
        if (run.path / "summary.json").exists():
            raise InputError(
                f"{run.path}: its checkpoints were removed (as `deepexp runs prune=true` does), so it cannot be "
                "resumed; start a new run with the config in its .hydra folder"
            )
        log.warning("%s has no checkpoint: it begins anew", run.path)
        return None
    path, content = checkpoint.load_latest(run.checkpoints)
    check_trained_with(resumed.config, path, content)
    _refuse_if_past_the_end(path, content, resumed.config)
    if path.name != checkpoint.LAST:
        checkpoint.set_aside(run.checkpoints / checkpoint.LAST)
    log.info("going on from %s", path)
    return content


def check_trained_with(config: TrainConfig, path: Path, content: dict[str, Any]) -> None:
    """Raise `InputError` if a checkpoint says that it was trained with another config."""
    try:
        before = Identity.from_checkpoint(content)
    except ValueError as error:
        raise InputError(f"{path}: is damaged ({error})") from None
    other = [] if before is None else before.other_config(config)
    if other:
        more = f", and {len(other) - _TOLD} more" if len(other) > _TOLD else ""
        raise InputError(
            f"{path}: was trained with another config than the one in .hydra/config.yaml: "
            f"{', '.join(other[:_TOLD])}{more}; put back what was changed there, or start a new run"
        )


_TOLD = 5  # keys in a message


def check_same_data(run: RunDirectory, data: Dataset, content: dict[str, Any]) -> None:
    """Refuse to go on with other pictures than the run began with, as far as these are still known."""
    is_same = lost_files.known_by_digest(run, data)
    why = "their digest is not the one in provenance.json"
    if is_same is None:
        is_same = lost_files.may_be_of(data, content)
        why = "their mean, deviation or classes are not those in the checkpoint"
    if not is_same:
        raise InputError(
            f"data: they are not those that {run.path} was trained on until now ({why}); "
            "put the same files back, or give their place with data.root=DIR"
        )


def _asked(run: RunDirectory, composed: Composed, saved: dict[str, Any]) -> dict[str, Any]:
    """The keys that are given anew, with their values; `InputError` names those that must not change, and would."""
    keys = [split(override)[1] for override in composed.overrides]
    check_changes(saved_config.changed_keys(run, saved, composed))
    if "output_dir" in keys:
        check_output_dir(Path(str(composed.config.resume)), str(composed.config.output_dir))
    asked = {key: OmegaConf.select(composed.config, key) for key in keys if key in MAY_CHANGE}
    if isinstance(asked.get("data.root"), str):
        asked["data.root"] = paths.absolute(asked["data.root"])
    return asked


def _different(asked: dict[str, Any], saved: dict[str, Any]) -> dict[str, Any]:
    """The keys asked for whose values differ from those in the saved config."""
    before = OmegaConf.create(saved)
    return {key: value for key, value in asked.items() if OmegaConf.select(before, key) != value}


def check_changes(keys: Sequence[str]) -> None:
    """`InputError` naming those of the keys that must stay as they were when the run began."""
    refused = [key for key in keys if key not in (*MAY_CHANGE, "resume", "output_dir")]
    if "dry_run" in refused:
        raise InputError("dry_run: shows a run before it begins; the config of this one is in its .hydra/config.yaml")
    if refused:
        raise InputError(
            f"{', '.join(refused)}: cannot be changed when a run is resumed (what was trained would not be what the "
            f"config says); may change: {', '.join(MAY_CHANGE)}"
        )


def check_output_dir(begun: Path, output_dir: str) -> None:
    """`InputError` if a resumed run or sweep is to be written elsewhere."""
    own = Path(paths.absolute(str(begun))).parent.parent
    if Path(paths.absolute(output_dir)).resolve() != own.resolve():
        raise InputError(
            f"output_dir: {output_dir} is not where {begun} is, and what is resumed is written where it is; "
            "leave output_dir out, or move that directory first and give its new place as resume="
        )


def _foreign_places(config: TrainConfig, composed: Composed, asked: dict[str, Any]) -> set[str]:
    """Which of `root` and `cache` come from the saved config only, and not from the user's words or defaults."""
    foreign = set() if "data.cache" in asked else {"cache"}
    own = Path(paths.absolute(composed.config.data.root))
    if "data.root" not in asked and Path(config.data.root).absolute() != own:
        foreign.add("root")
    return foreign


def _refuse_if_horizon_matters(config_before: TrainConfig, plan_before: Plan, config: TrainConfig, plan: Plan) -> None:
    """A longer run is the same run only if nothing in its first part depended on its length."""
    reasons = []
    if plan.total_steps != plan_before.total_steps and build.schedule(config).depends_on_horizon():
        reasons.append(f"the schedule {config.schedule.component.target} depends on the length of the run")
    if config.epochs != config_before.epochs:
        model = build.model(config, plan.shape, len(plan.info.classes), "meta")
        if any(rule.get("share") not in (None, 0.0, 1.0) for rule in build.freeze_rules(config, model)):
            reasons.append("parameters are frozen for a share of the run (give freeze in epochs instead)")
    if reasons:
        raise InputError(f"epochs, max_steps: cannot be changed, since {'; and '.join(reasons)}")


def _refuse_if_past_the_end(path: Path, content: dict[str, Any], config: TrainConfig) -> None:
    progress = content.get("progress")
    done = progress if isinstance(progress, dict) else {}
    epoch, update, step = (_whole_number(path, done, name) for name in ("epoch", "update", "step"))
    begun = epoch + (update > 0)
    if config.epochs < begun:
        raise InputError(f"epochs: {config.epochs} is too few, since epoch {begun} has begun; at least {begun}")
    if config.max_steps is not None and config.max_steps < step:
        raise InputError(
            f"max_steps: {config.max_steps} is less than the {step} that are trained already; at least {step}"
        )
    looked = (begun - 1) // config.evaluate_every * config.evaluate_every  # at the last look before training went on
    best = done.get("best_epoch")
    waited = looked - best if isinstance(best, int) else 0
    if config.early_stop is not None and config.early_stop <= waited:
        raise InputError(
            f"early_stop: {config.early_stop} is too few, since training went on after {counted(waited, 'epoch')} "
            f"without a better validation; at least {waited + 1}, or null"
        )


def _whole_number(path: Path, progress: dict[str, Any], name: str) -> int:
    value = progress.get(name)
    if not isinstance(value, int):
        raise InputError(f"{path}: does not say how far the run had got (progress.{name})")
    return value
