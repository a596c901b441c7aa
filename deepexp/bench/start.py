"""`bench start`: from the command to the first update of a run, against scripts that do no more than that.

Every start is a process of its own. The scripts find their pictures in one NumPy file, in the shape that the net takes,
and are given mean and deviation; deepexp reads the data as it always does.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepexp import build, check, runtime, weights
from deepexp.bench import compare, contest, keras_loop, plain
from deepexp.bench.contender import Unsuited
from deepexp.bench.options import StartOptions, check_own_runs
from deepexp.bench.report import OURS, PLAIN
from deepexp.bench.start_report import Start, StartReport
from deepexp.config import hydra_keys
from deepexp.config.compose import compose
from deepexp.config.composer import Composed
from deepexp.config.overrides import quote, quote_paths
from deepexp.data.dataset import Dataset
from deepexp.errors import USAGE_ERROR, InputError, RunFailed
from deepexp.process import startup
from deepexp.schema import Component, TrainConfig
from deepexp.text.console import progress

_SCRIPTS = {
    OURS: "deepexp.bench.start_ours",
    PLAIN: "deepexp.bench.start_plain",
    "lightning": "deepexp.bench.start_lightning",
    "keras": "deepexp.bench.start_keras",
}


@dataclass(frozen=True)
class _Command:
    """A process that trains until its first update."""

    name: str
    words: Sequence[str]
    environment: Mapping[str, str]
    folder: Path

    def __call__(self) -> Start:
        """Start it and wait for it. Raises `InputError` or `RunFailed` with its own message if it fails."""
        answer = self.folder / "answer.json"
        answer.unlink(missing_ok=True)
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", _SCRIPTS[self.name], repr(began), str(answer), *self.words],
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
        if answer.exists():
            return Start(**json.loads(answer.read_text(encoding="utf-8")))
        said = done.stderr.strip().splitlines() or [f"it made no update, and ended with status {done.returncode}"]
        lines = said if self.name == OURS else said[-1:]
        error = InputError if done.returncode == USAGE_ERROR and self.name == OURS else RunFailed
        raise error("\n".join(f"bench: {self.name}: {line.removeprefix('deepexp: ')}" for line in lines))


def run(options: StartOptions, overrides: Sequence[str]) -> StartReport:
    """Compose, check, and compare. Raises `InputError` as `deepexp train` would for the same overrides."""
    check_own_runs("start", overrides)
    rivals, left_out = _rivals(options.against)
    with tempfile.TemporaryDirectory(prefix="deepexp-bench-") as name:
        folder = Path(name)
        words, composed, config, plan = _prepared(overrides, folder)
        ours = _Command(OURS, [*words, f"output_dir={quote(str(folder / 'runs'))}"], os.environ, folder)
        with progress("measuring starts", (1 + options.rounds) * (1 + len(rivals)), "starts") as shown:
            first = ours()  # decodes or downloads data if needed; from here on the system has files in its cache
            shown.advance(1)
            commands = {OURS: ours}
            for rival, task in _tasks(rivals, config, plan, folder, left_out).items():
                commands[rival] = _Command(rival, [str(task)], startup.users_environment(), folder)
                commands[rival]()
                shown.advance(1)
            starts = _in_turns(commands, options.rounds, lambda: shown.advance(1))
    return StartReport(
        model=str(composed.choices["model"]),
        data=str(composed.choices["data"]),
        overrides=list(overrides),
        device=runtime.describe_device(plan.device),
        names={name: _title(name) for name in commands},
        starts=starts,
        first=first if _has_cache(config) else None,
        notes=left_out,
    )


def _rivals(against: str) -> tuple[list[str], list[str]]:
    """(the contenders beside deepexp, a line for each that is not installed). Raises `InputError`."""
    rivals, left_out = contest.rivals(against)
    scripts = [name for name in rivals if name in _SCRIPTS]
    if against != "all" and (others := set(rivals) - set(scripts)):
        allowed = ", ".join(name for name in _SCRIPTS if name != OURS)
        raise InputError(f"against: {', '.join(sorted(others))} has no start of its own; {allowed}, all")
    return scripts, left_out


def _prepared(overrides: Sequence[str], folder: Path) -> tuple[list[str], Composed, TrainConfig, check.Plan]:
    """(the run's overrides, the composed config, the typed one, the plan); decoded pictures are cached in `folder`."""
    hydra_keys.check_effect(overrides)
    words = quote_paths(overrides)
    composed = compose(words)
    if _has_cache(_planned(composed)[0]):
        words = [*words, f"data.cache={quote(str(folder / 'cache'))}"]
        composed = compose(words)
    config, plan = _planned(composed)
    weights.resolve(config, plan)
    return words, composed, config, plan


def _planned(composed: Composed) -> tuple[TrainConfig, check.Plan]:
    return check.typed_and_planned(composed.resolved())


def _has_cache(config: TrainConfig) -> bool:
    """Whether the data are decoded once, and read from a cache by later runs."""
    return "cache" in config.data.component.arguments


def _tasks(
    rivals: Sequence[str], config: TrainConfig, plan: check.Plan, folder: Path, left_out: list[str]
) -> dict[str, Path]:
    """A file for each rival that says what to do; one that cannot do it has none, but a line in `left_out`."""
    if not rivals:
        return {}
    data = build.dataset(config, plan)
    content = _content(config, plan, data, folder)
    tasks = {}
    for name in rivals:
        try:
            own = _for_keras(config, plan, len(data.classes)) if name == "keras" else {}
        except Unsuited as error:
            left_out.append(f"keras is left out: {error}")
            continue
        tasks[name] = folder / f"{name}.json"
        tasks[name].write_text(json.dumps({**content, **own}), encoding="utf-8")
    return tasks


def _content(config: TrainConfig, plan: check.Plan, data: Dataset, folder: Path) -> dict[str, Any]:
    """What a script needs to know; the training pictures are written beside it, as they come out of a data set."""
    plain.check_memory(data, torch.device("cpu"))
    pictures = data.train.pictures(torch.arange(len(data.train)))
    np.save(folder / "images.npy", np.ascontiguousarray(pictures.numpy()))  # (samples, channels, height, width), uint8
    np.save(folder / "labels.npy", data.train.labels.numpy())
    start, stop = plan.updates[0][0]
    return {
        "images": str(folder / "images.npy"),
        "labels": str(folder / "labels.npy"),
        "mean": data.mean.tolist(),
        "std": data.std.tolist(),
        "model": _called(config.model.component),
        "optim": _called(config.optim.component),
        "shape": plan.shape,
        "classes": len(data.classes),
        "batch_size": stop - start,
        "threads": runtime.number_of_threads(config.threads),
        "device": str(plan.device),
        "seed": config.seed,
    }


def _called(component: Component) -> dict[str, Any]:
    arguments = {name: value for name, value in component.arguments.items() if not name.startswith("_")}
    return {"target": component.target, "arguments": arguments}


def _for_keras(config: TrainConfig, plan: check.Plan, classes: int) -> dict[str, Any]:
    """What Keras's script needs to know beyond the others. Raises `Unsuited`."""
    keras_loop.check_device(plan.device)
    net = keras_loop.checked(build.model(config, plan.shape, classes, "meta"))
    return {"hidden": net.fc1.out_features, "optim": keras_loop.optimizer_named(build.optimizer(config, net))}


def _in_turns(commands: Mapping[str, _Command], rounds: int, tell: Callable[[], None]) -> dict[str, list[Start]]:
    """The starts of each command, made in rounds."""
    starts: dict[str, list[Start]] = {name: [] for name in commands}

    def seconds(command: _Command) -> float:
        starts[command.name].append(command())
        return starts[command.name][-1].began_seconds

    compare.rounds(dict(commands), seconds, rounds, tell)
    return starts


def _title(name: str) -> str:
    if name in contest.PACKAGES:
        return f"{name.capitalize()} {importlib.metadata.version(contest.PACKAGES[name])}"
    return {OURS: "deepexp", PLAIN: "plain loop"}[name]
