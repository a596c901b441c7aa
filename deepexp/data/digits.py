"""The 1,797 handwritten digits that come with scikit-learn: real data that need no network.

They are the test part of the UCI set "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998), 8×8 pixels
with values from 0 to 16.
"""

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import torch

from deepexp.data.source import DataInfo, Split
from deepexp.data.stratified import stratified_choice

_SAMPLES = 1797
_TEST_SAMPLES = 359  # 20 %


class Digits:
    """A fixed stratified fifth of the samples is the test set; pixel values are stretched to 0 … 255."""

    def info(self) -> DataInfo:
        """Constants."""
        classes = tuple(str(digit) for digit in range(10))
        return DataInfo((1, 8, 8), classes, _SAMPLES - _TEST_SAMPLES, _TEST_SAMPLES)

    def load(self) -> tuple[Split, Split]:
        """Both splits, each in scikit-learn's order."""
        table = _table()  # (samples, 64 pixels and a label)
        images = torch.from_numpy((table[:, :64] * 255 + 8) // 16).to(torch.uint8)
        labels = torch.from_numpy(table[:, 64])
        is_test = torch.zeros(_SAMPLES, dtype=torch.bool)
        is_test[stratified_choice(labels, _TEST_SAMPLES, seed=0)] = True
        train, test = (Split.of(images[part].view(-1, 1, 8, 8), labels[part]) for part in (~is_test, is_test))
        return train, test


def _table() -> np.ndarray:
    """scikit-learn's table as int64, read without importing it where possible: the import alone takes a second."""
    package = importlib.util.find_spec("sklearn")
    if package is not None and package.submodule_search_locations:
        file = Path(package.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
        if file.exists():
            with gzip.open(file, "rt", encoding="ascii") as lines:
                return np.loadtxt(lines, delimiter=",", dtype=np.int64)
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.column_stack([digits.data, digits.target]).astype(np.int64)
