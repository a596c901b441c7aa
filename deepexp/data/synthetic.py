"""Pictures made up on the spot, of any shape and number, that a model can learn to tell apart.

Each class has a coarse random pattern; a sample is its class's pattern with noise. All arithmetic is on whole numbers,
so that the same arguments give the same bytes on every machine.
"""

import numpy as np
import torch

from deepexp.data.source import DataInfo, Split
from deepexp.data.stratified import frozen_random
from deepexp.runtime import derive_seed

_PATTERN_CELLS = 4  # along each side of a pattern: cells large enough to survive pooling and resizing
_CHUNK_BYTES = 1 << 24


class Synthetic:
    """`noise`: the largest change of a pixel, in grey levels (0 … 255); 0 gives copies of the patterns."""

    def __init__(
        self,
        *,
        channels: int,
        height: int,
        width: int,
        classes: int,
        train_samples: int,
        test_samples: int,
        noise: int,
        seed: int,
    ) -> None:
        counts = {"channels": channels, "height": height, "width": width, "classes": classes}
        counts |= {"train_samples": train_samples, "test_samples": test_samples}
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"{name}: {value} is not allowed; at least 1")
        if train_samples < classes:
            raise ValueError(f"train_samples: {train_samples} are fewer than the {classes} classes; at least one each")
        if not 0 <= noise <= 255:
            raise ValueError(f"noise: {noise} is not allowed; from 0 to 255 grey levels")
        if seed < 0:
            raise ValueError(f"seed: {seed} is not allowed; at least 0")
        self._shape = (channels, height, width)
        self._classes = classes
        self._train_samples = train_samples
        self._test_samples = test_samples
        self._noise = noise
        self._seed = seed

    def info(self) -> DataInfo:
        """What the arguments say."""
        classes = tuple(str(index) for index in range(self._classes))
        return DataInfo(self._shape, classes, self._train_samples, self._test_samples)

    def load(self) -> tuple[Split, Split]:
        """Both splits; the classes take turns."""
        return self._split("train", self._train_samples), self._split("test", self._test_samples)

    def _split(self, name: str, samples: int) -> Split:
        channels, height, width = self._shape
        random = frozen_random(derive_seed(self._seed, "synthetic", name))
        patterns = self._patterns()  # (classes, height, width, channels)
        labels = np.arange(samples) % self._classes
        images = np.empty((samples, height, width, channels), np.uint8)
        chunk = max(1, _CHUNK_BYTES // images[0].size)
        for start in range(0, samples, chunk):
            part = images[start : start + chunk]
            draws = np.frombuffer(random.bytes(part.size), np.uint8).reshape(part.shape).astype(np.int32)
            noise = (draws * (2 * self._noise + 1) >> 8) - self._noise  # uniform in -noise … noise
            part[:] = np.clip(patterns[labels[start : start + chunk]] + noise, 0, 255)
        return Split(torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels.astype(np.int64)))

    def _patterns(self) -> np.ndarray:
        channels, height, width = self._shape
        random = frozen_random(derive_seed(self._seed, "synthetic", "patterns"))
        size = (self._classes, _PATTERN_CELLS, _PATTERN_CELLS, channels)
        cells = np.frombuffer(random.bytes(int(np.prod(size))), np.uint8).reshape(size)
        rows = np.arange(height) * _PATTERN_CELLS // height
        columns = np.arange(width) * _PATTERN_CELLS // width
        return cells[:, rows][:, :, columns].astype(np.int32)
