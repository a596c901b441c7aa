import importlib.util
import sys

import pytest
import torch

from deepexp.data.digits import Digits


def test_digits_are_those_of_scikit_learn() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    reference = datasets.load_digits()
    train, test = Digits().load()
    assert len(train) == 1438 and len(test) == 359  # 20 % of 1,797
    images = torch.cat([train.images, test.images]).flatten(1)
    expected = torch.from_numpy(reference.data * 255 / 16 + 0.5).to(torch.uint8)
    # The same pictures, whatever their order.
    assert sorted(map(bytes, images.numpy())) == sorted(map(bytes, expected.numpy()))
    counts = torch.cat([train.labels, test.labels]).bincount()
    assert torch.equal(counts, torch.from_numpy(reference.target).bincount())
    assert images.max() == 255 and images.min() == 0


def test_splits_do_not_overlap_and_are_stratified() -> None:
    train, test = Digits().load()
    keys = [{bytes(row) for row in split.images.flatten(1).numpy()} for split in (train, test)]
    assert len(keys[0]) == 1438 and len(keys[1]) == 359 and not keys[0] & keys[1]
    shares = test.labels.bincount() / (train.labels.bincount() + test.labels.bincount())
    assert ((shares - 0.2).abs() < 0.01).all()


def test_split_is_fixed() -> None:
    _, test = Digits().load()
    assert test.labels[:20].tolist() == [8, 7, 0, 3, 9, 3, 5, 2, 6, 7, 3, 6, 1, 9, 8, 0, 4, 3, 6, 3]


def test_info_is_what_load_gives() -> None:
    info = Digits().info()
    train, test = Digits().load()
    assert (info.train_samples, info.test_samples) == (len(train), len(test))
    assert info.shape == train.shape == test.shape == (1, 8, 8)
    assert info.classes == tuple("0123456789")


def test_scikit_learn_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)  # an import would fail
    assert len(Digits().load()[0]) == 1438


def test_digits_come_from_scikit_learns_loader_if_the_file_is_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn.datasets")
    expected = Digits().load()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for split, other in zip(expected, Digits().load(), strict=True):
        assert torch.equal(split.images, other.images) and torch.equal(split.labels, other.labels)
