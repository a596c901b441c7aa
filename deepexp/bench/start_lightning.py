"""The net with Lightning, until its first update: `python -m deepexp.bench.start_lightning BEGAN ANSWER TASK`."""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import lightning
from torch.utils.data import DataLoader, TensorDataset

from deepexp.bench import stopwatch
from deepexp.bench.lightning_module import Module
from deepexp.bench.start_plain import net_and_optimizer, pictures
from deepexp.bench.stopwatch import Stopwatch


def main() -> None:
    """Train until the first update is made."""
    watch, answer, (task,) = stopwatch.given()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # advice about workers, which pictures in memory do not need
    content = json.loads(Path(task).read_text(encoding="utf-8"))
    loader = DataLoader(TensorDataset(*pictures(content)), content["batch_size"], shuffle=True)
    trainer = lightning.Trainer(
        accelerator="gpu" if content["device"].startswith("cuda") else "cpu",
        devices=1,
        max_steps=1,
        callbacks=[_FirstUpdate(watch, answer)],
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=answer.parent,
    )
    trainer.fit(Module(*net_and_optimizer(content)), loader)


class _FirstUpdate(lightning.Callback):  # type: ignore[misc]
    def __init__(self, watch: Stopwatch, answer: Path) -> None:
        self._watch = watch
        self._answer = answer
        self._began = 0.0

    def on_train_batch_start(self, *_: Any, **__: Any) -> None:
        self._began = self._watch.read()

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        stopwatch.report(self._answer, self._began, self._watch)


if __name__ == "__main__":
    main()
