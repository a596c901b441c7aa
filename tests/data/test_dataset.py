import dataclasses

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import functional as TF

from deepexp.data.dataset import Dataset, assemble, training_samples
from deepexp.data.source import DataInfo, Split
from deepexp.errors import InputError

from .samples import FixedSource, random_source, random_split

SHAPE = (3, 6, 5)


def made(source: FixedSource | None = None, **options: object) -> Dataset:
    return assemble(source or random_source(), shape=SHAPE, **options)  # type: ignore[arg-type]


def rows(split: Split) -> list[bytes]:
    return [picture.numpy().tobytes() for picture in split.pictures(torch.arange(len(split)))]


def test_everything_is_used_by_default() -> None:
    source = random_source()
    dataset = made(source)
    assert rows(dataset.train) == rows(source.train) and rows(dataset.test) == rows(source.test)
    assert dataset.val is None and dataset.classes == source.classes and dataset.shape == SHAPE


@pytest.mark.parametrize("normalise", ["channel", "scalar"])
def test_mean_and_std_are_exact(normalise: str) -> None:
    source = random_source(train=200)
    dataset = made(source, normalise=normalise)
    pixels = source.train.images.numpy().astype(np.float64)  # (samples, channels, height, width)
    axes = (0, 2, 3) if normalise == "channel" else None
    assert dataset.mean.tolist() == np.float32(np.broadcast_to(pixels.mean(axes), 3)).tolist()
    assert np.allclose(dataset.std.numpy(), np.float32(np.broadcast_to(pixels.std(axes), 3)), rtol=2e-7, atol=0)
    assert dataset.mean.dtype == dataset.std.dtype == torch.float32


def test_std_is_exact_where_sums_of_squares_are_large() -> None:
    # Nearly white pictures: a sum of 3000 squares in float32 is off by more than their variance.
    values = 254 + torch.arange(3000).remainder(3).clamp(max=1).to(torch.uint8)
    split = Split.of(values.view(-1, 1, 1, 1), torch.arange(3000) % 2)
    dataset = assemble(FixedSource(split, split, ("a", "b")), shape=(1, 1, 1))
    assert dataset.mean.item() == np.float32(254 + 2 / 3)
    assert dataset.std.item() == np.float32((2 / 9) ** 0.5)


def test_normalised_training_data_have_mean_0_and_std_1() -> None:
    dataset = made(random_source(train=500))
    values = (dataset.train.images.double() - dataset.mean.view(3, 1, 1)) / dataset.std.view(3, 1, 1)
    assert values.mean((0, 2, 3)).abs().max() < 1e-6
    assert (values.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-6


def test_without_normalisation_pixels_are_in_0_to_1() -> None:
    dataset = made(normalise="none")
    assert dataset.mean.tolist() == [0, 0, 0] and dataset.std.tolist() == [255, 255, 255]


def test_imagenet_takes_what_torchvisions_weights_were_trained_with() -> None:
    transforms = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    source = random_source()
    dataset = made(source, normalise="imagenet")
    expected = TF.normalize(source.test.images.float() / 255, transforms.mean, transforms.std)
    found = (source.test.images.float() - dataset.mean.view(3, 1, 1)) / dataset.std.view(3, 1, 1)
    torch.testing.assert_close(found, expected)
    split = Split.of(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.arange(4) % 2)
    with pytest.raises(
        InputError, match=r"^data\.normalise: imagenet is for pictures of 3 channels, and these have 1$"
    ):
        assemble(FixedSource(split, split, ("a", "b")), shape=(1, 2, 2), normalise="imagenet")


def test_constant_channel_gets_std_1() -> None:
    source = random_source()
    source.train.images[:, 1] = 7
    dataset = made(source)
    assert dataset.mean[1] == 7 and dataset.std[1] == 1 and dataset.std[0] != 1


def test_mean_is_that_of_the_training_samples_used() -> None:
    source = random_source()
    dataset = made(source, subset=10, val_fraction=0.2, replicate=3)
    pictures = dataset.train.pictures(torch.arange(10)).double()
    assert torch.allclose(dataset.mean.double(), pictures.mean((0, 2, 3)), rtol=1e-6)
    assert not torch.allclose(dataset.mean.double(), source.train.images.double().mean((0, 2, 3)), rtol=1e-6)


def test_subset_is_stratified_seeded_and_nothing_else_changes() -> None:
    source = random_source()
    first, again, other = made(source, subset=20), made(source, subset=20), made(source, subset=20, seed=1)
    assert first.train.labels.bincount().tolist() == [4] * 5
    assert rows(first.train) == rows(again.train) != rows(other.train)
    assert set(rows(first.train)) <= set(rows(source.train)) and len(set(rows(first.train))) == 20
    assert rows(first.test) == rows(source.test)


def test_subset_of_all_is_all() -> None:
    assert rows(made(subset=50).train) == rows(made().train)


def test_validation_is_stratified_disjoint_and_does_not_depend_on_the_subset() -> None:
    source = random_source()
    dataset = made(source, val_fraction=0.2)
    assert dataset.val is not None
    assert len(dataset.val) == 10 and dataset.val.labels.bincount().tolist() == [2] * 5
    assert sorted(rows(dataset.train) + rows(dataset.val)) == sorted(rows(source.train))
    smaller = made(source, val_fraction=0.2, subset=15)
    assert smaller.val is not None
    assert rows(smaller.val) == rows(dataset.val) and set(rows(smaller.train)) < set(rows(dataset.train))
    assert rows(made(source, val_fraction=0.2, seed=1).train) != rows(dataset.train)


def test_subset_and_validation_are_drawn_independently() -> None:
    """Drawn with the same seed, both would take the same positions among their candidates."""
    source = random_source(train=1000)
    places = {row: place for place, row in enumerate(rows(source.train))}
    held_out = made(source, val_fraction=0.1).val
    assert held_out is not None
    chosen = made(source, subset=100).train
    common = {places[row] for row in rows(chosen)} & {places[row] for row in rows(held_out)}
    assert len(common) < 30  # 10 by chance


def test_replicate_repeats_without_copying() -> None:
    source = random_source()
    dataset = made(source, subset=7, replicate=3)
    once = rows(made(source, subset=7).train)
    assert rows(dataset.train) == once * 3
    assert dataset.train.images.data_ptr() == source.train.images.data_ptr()
    assert torch.equal(dataset.mean, made(source, subset=7).mean)


@settings(max_examples=50)
@given(
    st.integers(5, 60),
    st.one_of(st.none(), st.integers(1, 60)),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.1, 0.35, 0.5]),
)
def test_training_samples_predicts_the_size_of_the_assembled_set(
    samples: int, subset: int | None, replicate: int, val: float
) -> None:
    source = random_source(train=2 * samples, classes=2)
    arguments = {"subset": subset, "replicate": replicate, "val_fraction": val}
    try:
        expected = training_samples(source.info(), **arguments)  # type: ignore[arg-type]
    except InputError as foretold:
        with pytest.raises(InputError) as caught:
            made(source, **arguments)
        assert str(caught.value) == str(foretold)
    else:
        assert len(made(source, **arguments).train) == expected


def test_a_subset_larger_than_the_data_is_refused() -> None:
    info = DataInfo(SHAPE, ("a", "b"), 50, 20)
    with pytest.raises(
        InputError, match=r"^data\.subset: 41 is more than the 40 training samples; at most 40, or null"
    ):
        training_samples(info, 41, 1, 0.2)
    with pytest.raises(InputError, match=r"^val_fraction: 0\.001 of 50 samples is 0; at least 1"):
        training_samples(info, None, 1, 0.001)
    with pytest.raises(InputError, match=r"^val_fraction: 0\.999 of 50 samples is 50"):
        training_samples(info, None, 1, 0.999)
    with pytest.raises(InputError, match=r"^val_fraction: 48 of 50 samples are asked for, and at most 45 can be taken"):
        made(val_fraction=0.96)


def test_a_source_may_have_validation_data_of_its_own() -> None:
    source, own = random_source(), random_split(12, SHAPE, 5, seed=7)
    source.val = own
    whole, without = made(source, subset=20), made(random_source(), subset=20)
    assert whole.val is not None and rows(whole.val) == rows(own) and torch.equal(whole.val.labels, own.labels)
    assert torch.equal(whole.train.labels, without.train.labels) and torch.equal(whole.mean, without.mean)
    assert whole.fingerprint != without.fingerprint and whole.test_fingerprint == without.test_fingerprint
    with pytest.raises(InputError, match=r"^val_fraction: the data have 12 validation pictures of their own; leave it"):
        made(source, val_fraction=0.1)


def test_wrong_validation_data_of_a_source_are_refused() -> None:
    source = random_source()
    source.val, source.announced = random_split(12, SHAPE, 5), dataclasses.replace(source.info(), val_samples=13)
    with pytest.raises(InputError, match=r"^validation data: 12 pictures of shape .* announced were 13"):
        made(source)
    source.val = None
    with pytest.raises(InputError, match=r"^validation data: the source gives none; announced were 13$"):
        made(source)
    source.train, source.val, source.announced = random_split(50, SHAPE, 4), random_split(12, SHAPE, 5), None
    source.test = random_split(20, SHAPE, 4)
    with pytest.raises(InputError, match=r"^validation data: no training samples of 1 class \(e\)$"):
        made(source)


def test_fingerprint_sees_every_change() -> None:
    source = random_source()
    seen = [
        made(source, **options).fingerprint for options in ({}, {"subset": 20}, {"val_fraction": 0.2}, {"replicate": 2})
    ]
    source.train.images[3, 2, 5, 4] ^= 1
    seen.append(made(source).fingerprint)
    source.test.images[3, 2, 5, 4] ^= 1
    seen.append(made(source).fingerprint)
    source.test.labels[0] = 1
    seen.append(made(source).fingerprint)
    seen.append(assemble(source, shape=(3, 5, 6)).fingerprint)
    assert len(set(seen)) == len(seen)


def test_fingerprint_sees_a_change_of_a_held_out_picture() -> None:
    source = random_source()
    before = made(source, val_fraction=0.2)
    assert before.val is not None
    held_out = (source.train.images == before.val.pictures(torch.arange(1))).flatten(1).all(1)
    source.train.images[held_out] ^= 1
    after = made(source, val_fraction=0.2)
    assert after.fingerprint != before.fingerprint and torch.equal(after.mean, before.mean)


def test_the_test_fingerprint_is_of_the_test_samples_alone() -> None:
    source = random_source()
    before = made(source).test_fingerprint
    source.train.images[3] ^= 1
    assert made(source, subset=20, val_fraction=0.2, replicate=2).test_fingerprint == before
    source.test.labels[0] = 1 - source.test.labels[0]
    relabelled = made(source).test_fingerprint
    source.test.images[0] ^= 1
    assert len({before, relabelled, made(source).test_fingerprint}) == 3


def test_fingerprint_does_not_depend_on_memory_order_or_normalisation() -> None:
    source = random_source()
    expected = made(source).fingerprint
    assert made(source, normalise="scalar").fingerprint == expected
    contiguous = Split(source.train.images.contiguous(), source.train.labels)
    dataset = made(dataclasses.replace(source, train=contiguous))
    assert dataset.fingerprint == expected
    assert dataset.train.images.permute(0, 2, 3, 1).is_contiguous()


def bad(**changes: object) -> FixedSource:
    source = random_source()
    train = dataclasses.replace(source.train, **changes)  # type: ignore[arg-type]
    return dataclasses.replace(source, train=train, announced=source.info())


def announcing(**changes: object) -> FixedSource:
    source = random_source()
    return dataclasses.replace(source, announced=dataclasses.replace(source.info(), **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (bad(labels=torch.full((50,), 5)), r"training data: labels from 5 to 5; for 5 classes 0 to 4 are allowed"),
        (bad(labels=torch.full((50,), -1)), r"labels from -1 to -1"),
        (bad(labels=torch.zeros(50)), r"labels torch\.float32"),
        (bad(labels=torch.zeros(49, dtype=torch.int64)), r"50 pictures of shape \(3, 6, 5\) with 49 labels"),
        (
            bad(images=torch.full((50, 3, 6, 5), torch.nan)),
            r"training data: pictures torch\.float32 .*needed are uint8",
        ),
        (bad(images=torch.zeros(50, 6, 5, dtype=torch.uint8)), r"pictures torch\.uint8 \(50, 6, 5\)"),
        (announcing(train_samples=51), r"training data: 50 pictures .*announced were 51 of shape \(3, 6, 5\)"),
        (announcing(shape=(3, 5, 6)), r"of shape \(3, 6, 5\) .*announced were 50 of shape \(3, 5, 6\)"),
        (FixedSource(random_split(0, SHAPE, 5), random_split(5, SHAPE, 5), tuple("abcde")), "0 pictures.*at least one"),
        (FixedSource(random_split(5, SHAPE, 5), random_split(0, SHAPE, 5), tuple("abcde")), "test data: 0 pictures"),
        (
            FixedSource(random_split(8, SHAPE, 4), random_split(5, SHAPE, 5), tuple("abcde")),
            r"test data: no training samples of 1 class \(e\)",
        ),
        (
            FixedSource(random_split(8, SHAPE, 4), random_split(28, SHAPE, 14), tuple("abcdefghijklmn")),
            r"no training samples of 10 classes \(e, f, g, h, i, j, k, l and 2 more\)",
        ),
    ],
)
def test_sources_with_wrong_data_are_refused(source: FixedSource, message: str) -> None:
    with pytest.raises(InputError, match=message):
        made(source)
