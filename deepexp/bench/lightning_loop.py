"""The same training written for Lightning, as its users write it: a module, a DataLoader in memory, a Trainer.

The model's class, its initial weights, the optimizer, the batch size and the precision are those of the config. The
pictures are float tensors in memory; Lightning's own logger and checkpoint are on, as they are by default.
"""

import contextlib
import logging
import tempfile
import time
import warnings
from collections.abc import Iterator
from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader, TensorDataset

from deepexp import build, runtime
from deepexp.bench import plain
from deepexp.bench.contender import EpochResult, check_plain_batches
from deepexp.bench.lightning_module import Module
from deepexp.check import Plan
from deepexp.schema import TrainConfig

_PRECISIONS = {"fp32": "32-true", "tf32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


@contextlib.contextmanager
def opened(config: TrainConfig, plan: Plan) -> Iterator["Lightning"]:
    """The trainer, ready to start, with as many threads as a run would have. Raises `Unsuited`."""
    check_plain_batches(config)
    torch.set_num_threads(runtime.number_of_threads(config.threads))
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="deepexp-bench-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice about workers, which pictures in memory do not need
        yield Lightning(config, plan, folder)


class Lightning:
    """A `Contender`."""

    name = f"Lightning {lightning.__version__}"

    def __init__(self, config: TrainConfig, plan: Plan, folder: str) -> None:
        data = build.dataset(config, plan)
        plain.check_memory(data, torch.device("cpu"))
        model = build.model(config, plan.shape, len(data.classes), "cpu")
        for parameter in model.parameters():
            parameter.data = plain.in_nchw(parameter.data)
        self._module = Module(model, build.optimizer(config, model))
        train, test = (
            TensorDataset(*plain.floats(split, data, torch.device("cpu"))) for split in (data.train, data.test)
        )
        assert isinstance(config.batch_size, int)
        self._train = DataLoader(train, config.batch_size, shuffle=True, drop_last=config.drop_last)
        self._test = DataLoader(test, config.batch_size)
        self._options: dict[str, Any] = {
            "accelerator": "gpu" if plan.device.type == "cuda" else "cpu",
            "devices": [plan.device.index or 0] if plan.device.type == "cuda" else 1,
            "precision": _PRECISIONS[config.precision],
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": folder,
        }

    def steps(self, count: int) -> float:
        """See `Contender`. The time between the first batch and the last: setting up the Trainer does not count."""
        clock = _Clock()
        self._trainer(max_steps=count + 1, max_epochs=-1, callbacks=[clock], enable_checkpointing=False).fit(
            self._module, self._train
        )
        return (clock.last - clock.first) / count

    def epoch(self) -> EpochResult:
        """See `Contender`; setting up the Trainer counts, and its checkpoint."""
        began = time.perf_counter()
        trainer = self._trainer(max_epochs=1)
        trainer.fit(self._module, self._train)
        result = trainer.test(self._module, self._test, verbose=False)
        return EpochResult(time.perf_counter() - began, float(result[0]["test_error_rate"]))

    def _trainer(self, **options: Any) -> lightning.Trainer:
        return lightning.Trainer(**{**self._options, **options})


class _Clock(lightning.Callback):  # type: ignore[misc]
    """When the first batch had been trained on, and the latest."""

    def __init__(self) -> None:
        self.first = self.last = 0.0

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        self.last = time.perf_counter()
        self.first = self.first or self.last
