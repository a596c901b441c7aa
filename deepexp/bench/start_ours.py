"""`deepexp train …` until its first update is made: `python -m deepexp.bench.start_ours BEGAN ANSWER WORD…`.

The command itself runs, unchanged; some of its imports and calls are timed, which costs next to nothing.
"""

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from deepexp import cli
from deepexp.bench import stopwatch
from deepexp.bench.stopwatch import Stopwatch

PYTHON = "Python and deepexp's own modules"
COMPOSING = "Hydra: composing and checking"
TORCH = "importing torch"
DATA = "loading data"
MODEL = "building the model"
WRITING = "run directory and TensorBoard"
STEP = "first step"
PARTS = (PYTHON, COMPOSING, TORCH, DATA, MODEL, WRITING, STEP)

_IMPORTS = {
    "torch": TORCH,
    "torchvision": TORCH,
    "hydra": COMPOSING,
    "omegaconf": COMPOSING,
    "deepexp.config.compose": COMPOSING,
    "deepexp.config.composer": COMPOSING,
    "tensorboard": WRITING,
    "deepexp.commands.train": PYTHON,
}


def main() -> None:
    """Run the command; ends when the first update is made, or as the command does if it makes none."""
    watch, answer, words = stopwatch.given(PYTHON)
    sys.meta_path.insert(0, _TimedImports(watch, lambda command: _time_calls(command, watch, answer)))
    sys.exit(cli.main(["train", *words]))


class _TimedImports(importlib.abc.MetaPathFinder):
    """Finds the modules of `_IMPORTS`, times their execution, and calls `ready` with the command's module."""

    def __init__(self, watch: Stopwatch, ready: Callable[[Any], None]) -> None:
        self._watch = watch
        self._ready = ready

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in _IMPORTS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def timed(module: types.ModuleType) -> None:
            with self._watch.during(_IMPORTS[name]):
                execute(module)
            if name == "deepexp.commands.train":
                self._ready(module)

        spec.loader.exec_module = timed  # type: ignore[method-assign]
        return spec


def _time_calls(command: Any, watch: Stopwatch, answer: Path) -> None:
    """Replace the main calls of a run by timed ones; the last of them is the first update."""
    from deepexp.step import Step

    check_config = command.check.typed_and_planned
    update = Step.__call__

    def checked(config: Any) -> Any:
        with watch.during(COMPOSING):
            result = check_config(config)
        watch.go_on_with(WRITING)
        for name, part in {"dataset": DATA, "model": MODEL, "parts": MODEL}.items():  # not before: the check calls some
            setattr(command.build, name, _timed(getattr(command.build, name), part, watch))
        return result

    def first_update(step: Step, *arguments: Any) -> None:
        from deepexp.runtime import synchronise

        began = watch.read()
        with watch.during(STEP):
            update(step, *arguments)
            synchronise(step.precision.device)
        stopwatch.report(answer, began, watch)

    command.compose = _timed(command.compose, COMPOSING, watch)
    command.check.typed_and_planned = checked
    Step.__call__ = first_update  # type: ignore[assignment,method-assign]


def _timed(call: Callable[..., Any], part: str, watch: Stopwatch) -> Callable[..., Any]:
    def timed(*arguments: Any, **options: Any) -> Any:
        with watch.during(part):
            return call(*arguments, **options)

    return timed


if __name__ == "__main__":
    main()
