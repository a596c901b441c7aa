"""The circumstances in which a run goes on: a result is bit for bit the same only with the same arithmetic and code."""

import datetime
import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch

from deepexp import runtime
from deepexp.run import lost_files, provenance
from deepexp.run.identity import Identity
from deepexp.run.rundir import RunDirectory

log = logging.getLogger(__name__)


def note(
    run: RunDirectory, device: torch.device, identity: Identity, content: dict[str, Any], lost: Sequence[str]
) -> None:
    """Write into `provenance.json` how the run goes on, and warn of what keeps it from being equal bit for bit.

    That is other arithmetic than at its first start, and code of the user's own, or of a package that a `_target_`
    names, other than that of its checkpoint. `lost`: the files that begin anew.
    """
    if lost:
        log.warning("%s", lost_files.in_words(lost, content["progress"]["step"]))
    began = run.read_json("provenance.json")
    of_cpu = runtime.cpu_arithmetic()
    now = {"device": runtime.describe_device(device), **of_cpu, **_versions(provenance.versions())}
    before = {
        "device": began.get("device"),
        **{name: _get(began.get("choices"), name) for name in of_cpu},
        **_versions(began.get("versions")),
    }
    other = _warn_of_other_arithmetic(now, before, of_cpu.keys())
    other += warn_of_other_code(identity, content, run.checkpoints)
    earlier = began.get("resumed")
    time = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    entry = {"time": time, **now, "code": identity.code, "differs": other, "lost": list(lost)}
    run.write_json("provenance.json", {**began, "resumed": [*(earlier if isinstance(earlier, list) else []), entry]})


def warn_of_other_code(now: Identity, content: dict[str, Any], path: Path) -> list[str]:
    """Warn of, and return, the modules and packages of a run's targets that have changed since its checkpoint."""
    before = Identity.from_checkpoint(content)
    other = [] if before is None else now.other_code(before)
    if other:
        has = "has" if len(other) == 1 else "have"
        log.warning("%s: was trained with other code: %s %s changed since then", path, " and ".join(other), has)
    return other


def _warn_of_other_arithmetic(now: dict[str, Any], before: dict[str, Any], of_cpu: Collection[str]) -> list[str]:
    """Warn of, and return, what is known to differ. On CPUs, what is `of_cpu` counts in place of the device's name."""
    left_out = {"device"} if all(str(at["device"]).startswith("cpu") for at in (now, before)) else of_cpu
    told = [name for name in now if name not in left_out and before[name] not in (None, now[name])]
    if told:
        differences = ", ".join(f"{name}: {now[name]} instead of {before[name]}" for name in told)
        threads = f"; OMP_NUM_THREADS={before['threads']} gives it as many threads" if "threads" in told else ""
        log.warning(
            "the run goes on with other arithmetic (%s): its result will not be bit for bit that of an uninterrupted "
            "run%s",
            differences,
            threads,
        )
    return told


def _versions(versions: Any) -> dict[str, Any]:
    """The versions that a run's arithmetic and the order of its samples depend on."""
    return {name: _get(versions, name) for name in ("torch", "deepexp")}


def _get(node: Any, name: str) -> Any:
    return node.get(name) if isinstance(node, dict) else None
