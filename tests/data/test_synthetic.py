import hashlib
from typing import Any

import pytest
import torch

from deepexp.data.synthetic import Synthetic

ARGUMENTS: dict[str, Any] = {
    "channels": 3,
    "height": 12,
    "width": 9,
    "classes": 4,
    "train_samples": 40,
    "test_samples": 20,
    "noise": 64,
    "seed": 0,
}


def test_shapes_and_sizes_are_as_asked() -> None:
    source = Synthetic(**ARGUMENTS)
    train, test = source.load()
    info = source.info()
    assert train.images.shape == (40, 3, 12, 9) and test.images.shape == (20, 3, 12, 9)
    assert info.shape == (3, 12, 9) and info.classes == ("0", "1", "2", "3")
    assert (info.train_samples, info.test_samples) == (40, 20)
    assert train.labels.bincount().tolist() == [10] * 4


def test_bytes_are_the_same_on_every_machine() -> None:
    train, test = Synthetic(**ARGUMENTS).load()
    digest = hashlib.sha256(train.images.contiguous().numpy().tobytes() + test.images.contiguous().numpy().tobytes())
    assert digest.hexdigest()[:16] == "d6d4b14459398c3f"


def test_the_seed_decides_the_pictures() -> None:
    first, again, other = (Synthetic(**ARGUMENTS | {"seed": seed}).load()[0].images for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_noise_is_bounded_and_uniform() -> None:
    size = {"height": 64, "width": 64, "train_samples": 8}
    clean = Synthetic(**ARGUMENTS | size | {"noise": 0}).load()[0].images.long()
    noisy = Synthetic(**ARGUMENTS | size | {"noise": 20}).load()[0].images.long()
    difference = noisy - clean
    assert difference.min() == -20 and difference.max() == 20
    inner = difference[(clean >= 20) & (clean <= 235)].double()  # where nothing is clipped
    assert abs(inner.mean()) < 0.5
    assert abs(inner.var() - (41**2 - 1) / 12) < 5  # of a uniform distribution on -20 … 20


def test_training_and_test_noise_differ() -> None:
    train, test = Synthetic(**ARGUMENTS).load()
    assert not torch.equal(train.images[:20], test.images)


def test_classes_can_be_told_apart() -> None:
    train, test = Synthetic(**ARGUMENTS | {"noise": 128, "train_samples": 400, "test_samples": 200}).load()
    means = torch.stack([train.images[train.labels == label].double().mean(0) for label in range(4)])
    distances = torch.cdist(test.images.double().flatten(1), means.flatten(1))
    assert (distances.argmin(1) == test.labels).double().mean() > 0.95


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 0}, "^channels: 0 is not allowed; at least 1"),
        ({"test_samples": 0}, "^test_samples: 0"),
        ({"train_samples": 3}, "^train_samples: 3 are fewer than the 4 classes"),
        ({"noise": 256}, "^noise: 256 is not allowed; from 0 to 255"),
        ({"seed": -1}, "^seed: -1"),
    ],
)
def test_impossible_arguments_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Synthetic(**ARGUMENTS | change)
