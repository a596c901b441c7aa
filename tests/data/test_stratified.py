import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deepexp.data.stratified import frozen_random, stratified_choice


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=6),
    st.floats(0, 1),
    st.integers(0, 2**63 - 1),
)
def test_shares_are_as_near_as_whole_numbers_allow(sizes: list[int], fraction: float, seed: int) -> None:
    labels = torch.tensor([label for label, size in enumerate(sizes) for _ in range(size)])
    count = round(fraction * len(labels))
    chosen = stratified_choice(labels, count, seed)
    assert len(chosen) == count == len(chosen.unique())
    assert torch.equal(chosen, chosen.sort().values)
    for label, size in enumerate(sizes):
        assert abs(int((labels[chosen] == label).sum()) - count * size / len(labels)) < 1


def test_fewer_samples_than_classes_come_from_different_classes() -> None:
    labels = torch.arange(100) % 10
    assert len(labels[stratified_choice(labels, 4, seed=0)].unique()) == 4


def test_leave_keeps_samples_of_each_class() -> None:
    labels = torch.tensor([0] * 10 + [1] * 10 + [2] * 2 + [3])
    chosen = stratified_choice(labels, 19, seed=0, leave=1)
    left = torch.ones(len(labels), dtype=torch.bool)
    left[chosen] = False
    assert labels[left].tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="20 of 23 samples are asked for, and at most 19 can be taken"):
        stratified_choice(labels, 20, seed=0, leave=1)


def test_choice_depends_on_the_seed_alone() -> None:
    labels = torch.arange(1000) % 10
    first = stratified_choice(labels, 100, seed=7)
    np.random.seed(1)
    assert torch.equal(stratified_choice(labels, 100, seed=7), first)
    assert not torch.equal(stratified_choice(labels, 100, seed=8), first)


def test_choice_never_changes_between_versions() -> None:
    # A test set that changed would make old results incomparable.
    chosen = stratified_choice(torch.arange(1000) % 10, 200, seed=2**40 + 3)
    digest = hashlib.sha256(chosen.numpy().astype("<i8").tobytes()).hexdigest()
    assert digest[:16] == "3c3cf8da7fab485d"
    assert frozen_random(5).bytes(4).hex() == "f0f0118c"
