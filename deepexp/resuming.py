"""Going on with a run: which config it then has, and what may differ from the one that it was started with.

Whatever could change the result of what was trained already is refused by name. A saved config is data from a file:
it is read as plain YAML, and its targets must be known here (`trust.check_targets`).
"""

import logging
import os
from typing import Any

import yaml
from omegaconf import OmegaConf

from deepexp import build, check, checkpoint, trust
from deepexp.check import Plan
from deepexp.compose import Composed
from deepexp.errors import InputError
from deepexp.rundir import RunDirectory
from deepexp.schema import TrainConfig
from deepexp.storage import write_atomically

log = logging.getLogger(__name__)

MAY_CHANGE = ("epochs", "max_steps", "max_minutes", "checkpoint.every_minutes", "early_stop", "data.root")


def resumed_config(run: RunDirectory, composed: Composed) -> tuple[TrainConfig, Plan, dict[str, Any]]:
    """The saved config with the changes asked for, its plan, and the names of the options that were chosen.

    Raises `InputError` naming each change that is refused, and why.
    """
    saved = read_yaml(run, "config")
    trust.check_targets(saved)
    changes = _changes(composed)
    _, plan_before = check.typed_and_planned(saved)
    changed = OmegaConf.create(saved)
    for key, value in changes.items():
        OmegaConf.update(changed, key, value)
    container = OmegaConf.to_container(changed)
    config, plan = check.typed_and_planned(container)
    if plan.total_steps != plan_before.total_steps:
        _refuse_if_horizon_matters(config, plan)
    if changes:
        text = OmegaConf.to_yaml(changed)
        write_atomically(run.path / ".hydra" / "config.yaml", f"# format: 1\n{text}".encode())
    names = read_yaml(run, "hydra").get("runtime", {}).get("choices", {})
    return config, plan, names


def is_complete(run: RunDirectory, composed: Composed) -> bool:
    """Whether the run has ended by itself and nothing is asked of it beyond that."""
    return run.read_json("status.json").get("status") == "done" and not _changes(composed)


def keep_old_summary(run: RunDirectory) -> None:
    """A finished run that is trained further keeps what it had come to, as `summary.epoch<N>.json`."""
    summary = run.path / "summary.json"
    if summary.exists():
        epochs = run.read_json("summary.json").get("epochs")
        os.replace(summary, run.path / f"summary.epoch{epochs}.json")


def last_checkpoint(run: RunDirectory) -> dict[str, Any] | None:
    """The content of the last good checkpoint; None when the run was cut off before its first one."""
    if not any(run.checkpoints.glob("*.pt")):
        log.warning("%s has no checkpoint yet: it begins anew", run.path)
        return None
    path, content = checkpoint.load_latest(run.checkpoints)
    log.info("going on from %s", path)
    return content


def read_yaml(run: RunDirectory, name: str) -> dict[str, Any]:
    """A file of `.hydra` as plain values; `InputError` names it if it is damaged."""
    path = run.path / ".hydra" / f"{name}.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: is no mapping of keys to values")
    return content


def _changes(composed: Composed) -> dict[str, Any]:
    """The keys that are to change, with their values; `InputError` names those that must not."""
    keys = [override.partition("=")[0].lstrip("+~") for override in composed.overrides]
    refused = [key for key in keys if key not in (*MAY_CHANGE, "resume", "output_dir")]
    if refused:
        raise InputError(
            f"{', '.join(refused)}: cannot be changed when a run is resumed (what was trained would not be what the "
            f"config says); may change: {', '.join(MAY_CHANGE)}"
        )
    return {key: OmegaConf.select(composed.config, key) for key in keys if key in MAY_CHANGE}


def _refuse_if_horizon_matters(config: TrainConfig, plan: Plan) -> None:
    """A longer run is the same run only if nothing in its first part depended on its length."""
    reasons = []
    if build.schedule(config).depends_on_horizon():
        reasons.append(f"the schedule {config.schedule.component.target} depends on the length of the run")
    model = build.model(config, plan.shape, len(plan.info.classes), "meta")
    if any(rule.get("share") not in (None, 0.0, 1.0) for rule in build.freeze_rules(config, model)):
        reasons.append("parameters are frozen for a share of the run (give freeze in epochs instead)")
    if reasons:
        raise InputError(f"epochs, max_steps: cannot be changed, since {'; and '.join(reasons)}")
