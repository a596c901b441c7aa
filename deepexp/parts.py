"""What a run is made of once it is built: model, optimizer, data, and the objects that make updates and evaluate.

`build.parts` puts them together; `trainer.py` works with them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deepexp.data.augment import Augment
from deepexp.data.dataset import Pictures
from deepexp.data.loader import Loader
from deepexp.data.order import Bounds
from deepexp.data.source import Shape
from deepexp.optim.ema import Ema
from deepexp.optim.freeze import FreezePlan
from deepexp.optim.schedules import Schedule
from deepexp.run.identity import Identity
from deepexp.step import Step
from deepexp.training.evaluation import Scorer
from deepexp.training.frozen_features import FrozenFeatures
from deepexp.training.updates import UpdateMaker


@dataclass(frozen=True)
class Parts:
    """What a trainer works with, all of it on the device that it runs on."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    step: Step
    schedule: Schedule
    freeze: FreezePlan
    frozen_features: FrozenFeatures
    ema: Ema | None
    augment: Augment
    update_maker: UpdateMaker
    scorer: Scorer
    train: Loader
    val: Loader | None
    test: Loader
    updates: list[list[Bounds]]  # of an epoch: the batches of each update
    train_samples: int
    val_samples: int
    test_samples: int
    shape: Shape
    pictures: Pictures
    identity: Identity

    def example(self) -> Tensor:
        """Two test pictures as the model takes them (2, channels, height, width)."""
        images, _ = next(self.test.batches(torch.arange(self.test_samples), [(0, min(2, self.test_samples))]))
        return images

    def close(self) -> None:
        """End the processes that read data ahead, if there are any."""
        for loader in (self.train, self.val, self.test):
            if loader is not None:
                loader.close()
