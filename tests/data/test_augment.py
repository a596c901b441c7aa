"""Augmentations against NumPy loops over single pictures, and the distributions of their random draws."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from deepexp.data.augment import (
    Augment,
    CropFlip,
    CropFlipCutMix,
    CropFlipCutout,
    CropFlipMixup,
    CutMix,
    Cutout,
    Draws,
    Mixup,
    Nothing,
)

ALL: dict[str, Augment] = {
    "none": Nothing(),
    "crop_flip": CropFlip(padding=2, flip_probability=0.5),
    "cutout": Cutout(size=3),
    "mixup": Mixup(alpha=0.2),
    "cutmix": CutMix(alpha=1.0),
    "crop_flip_cutout": CropFlipCutout(padding=2, flip_probability=0.5, size=3),
    "crop_flip_mixup": CropFlipMixup(padding=2, flip_probability=0.5, alpha=0.2),
    "crop_flip_cutmix": CropFlipCutMix(padding=2, flip_probability=0.5, alpha=1.0),
}
SHAPES = [(1, 8, 8), (3, 8, 8), (3, 9, 6), (1, 5, 11)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(shape: tuple[int, int, int], batch: int = 7) -> Tensor:
    images = torch.randn(batch, *shape, generator=generator(99))
    return images.contiguous(memory_format=torch.channels_last)


def numpy_of(draws: Draws) -> dict[str, Any]:
    return {name: values.numpy() for name, values in draws.items()}


def crop_flip(images: np.ndarray, draws: dict[str, Any], padding: int) -> np.ndarray:
    _, _, height, width = images.shape
    result = np.zeros_like(images)
    for index, image in enumerate(images):
        padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
        top, left = draws["crop_top"][index], draws["crop_left"][index]
        cut = padded[:, top : top + height, left : left + width]
        result[index] = cut[:, :, ::-1] if draws["flip"][index] else cut
    return result


def cutout(images: np.ndarray, draws: dict[str, Any], size: int) -> np.ndarray:
    result = images.copy()
    for index in range(len(images)):
        top, left = draws["hole_row"][index] - size // 2, draws["hole_column"][index] - size // 2
        result[index, :, max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)] = 0
    return result


@pytest.mark.parametrize("shape", SHAPES)
def test_none_changes_nothing(shape: tuple[int, int, int]) -> None:
    images = pictures(shape)
    result, mix = Nothing().apply(images, Nothing().draw(7, shape, generator()))
    assert torch.equal(result, images) and mix is None


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("padding", [0, 2, 4])
def test_crop_flip_equals_numpy(shape: tuple[int, int, int], padding: int) -> None:
    augment = CropFlip(padding, 0.5)
    draws = augment.draw(7, shape, generator())
    result, mix = augment.apply(pictures(shape), draws)
    assert np.array_equal(result.numpy(), crop_flip(pictures(shape).numpy(), numpy_of(draws), padding))
    assert mix is None


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1, 2, 3, 20])
def test_cutout_equals_numpy(shape: tuple[int, int, int], size: int) -> None:
    augment = Cutout(size)
    draws = augment.draw(7, shape, generator())
    result, mix = augment.apply(pictures(shape), draws)
    assert np.array_equal(result.numpy(), cutout(pictures(shape).numpy(), numpy_of(draws), size))
    assert mix is None


@pytest.mark.parametrize("shape", SHAPES)
def test_crop_flip_cutout_is_one_after_the_other(shape: tuple[int, int, int]) -> None:
    augment = CropFlipCutout(2, 0.5, 3)
    draws = augment.draw(7, shape, generator())
    result, _ = augment.apply(pictures(shape), draws)
    expected = cutout(crop_flip(pictures(shape).numpy(), numpy_of(draws), 2), numpy_of(draws), 3)
    assert np.array_equal(result.numpy(), expected)


@pytest.mark.parametrize(("both", "second"), [(CropFlipMixup, Mixup), (CropFlipCutMix, CutMix)])
def test_pictures_are_mixed_after_they_were_cropped_and_flipped(both: type[Any], second: type[Any]) -> None:
    augment, shape = both(2, 0.5, 0.7), (3, 9, 6)
    draws = augment.draw(7, shape, generator())
    result, mix = augment.apply(pictures(shape), draws)
    cropped = torch.from_numpy(crop_flip(pictures(shape).numpy(), numpy_of(draws), 2))
    expected, expected_mix = second(0.7).apply(cropped, draws)
    assert torch.equal(result, expected)
    assert mix is not None and all(map(torch.equal, mix, expected_mix))
    assert not torch.equal(mix.partner, torch.arange(7))


@pytest.mark.parametrize("shape", SHAPES)
def test_mixup_equals_numpy(shape: tuple[int, int, int]) -> None:
    draws = Mixup(0.4).draw(7, shape, generator())
    result, mix = Mixup(0.4).apply(pictures(shape), draws)
    assert mix is not None and mix.share.dtype == torch.float32 and mix.partner.dtype == torch.int64
    images = pictures(shape).double().numpy()
    for index in range(7):
        share = float(mix.share[index])
        expected = share * images[index] + (1 - share) * images[mix.partner[index]]
        assert np.allclose(result[index].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_cutmix_equals_numpy(shape: tuple[int, int, int]) -> None:
    draws = CutMix(1.0).draw(7, shape, generator())
    result, mix = CutMix(1.0).apply(pictures(shape), draws)
    assert mix is not None
    images, (_, height, width) = pictures(shape).numpy(), shape
    for index in range(7):
        top, bottom, left, right = (int(draws[f"box_{side}"][index]) for side in ("top", "bottom", "left", "right"))
        expected = images[index].copy()
        expected[:, top:bottom, left:right] = images[mix.partner[index]][:, top:bottom, left:right]
        assert np.array_equal(result[index].numpy(), expected)
        assert 0 <= top <= bottom <= height and 0 <= left <= right <= width
        own = height * width - (bottom - top) * (right - left)
        assert float(mix.share[index]) == pytest.approx(own / (height * width), abs=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_draw_is_a_pure_function_of_its_generator(name: str) -> None:
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    first, again, other = (ALL[name].draw(100, (3, 8, 8), generator(seed)) for seed in (0, 0, 1))
    assert first.keys() == again.keys() == other.keys()
    for key, values in first.items():
        assert torch.equal(values, again[key]) and not torch.equal(values, other[key])
        assert len(values) == 100 and values.device.type == "cpu"
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # type: ignore[index]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", SHAPES)
def test_apply_is_deterministic_and_leaves_its_input(name: str, shape: tuple[int, int, int]) -> None:
    images = pictures(shape)
    draws = ALL[name].draw(20, shape, generator())
    part = {key: values[10:17] for key, values in draws.items()}
    one, other = (ALL[name].apply(images, part)[0] for _ in range(2))
    assert torch.equal(one, other)
    assert torch.equal(images, pictures(shape))
    assert one.shape == images.shape and one.dtype == torch.float32
    assert one.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", ["crop_flip", "cutout", "crop_flip_cutout"])
def test_a_sample_does_not_depend_on_its_batch(name: str) -> None:
    draws = ALL[name].draw(7, (3, 8, 8), generator())
    whole, _ = ALL[name].apply(pictures((3, 8, 8)), draws)
    half, _ = ALL[name].apply(pictures((3, 8, 8))[4:], {key: values[4:] for key, values in draws.items()})
    assert torch.equal(whole[4:], half)


def test_crops_and_flips_are_uniform_and_independent() -> None:
    samples, padding = 20_000, 4
    draws = CropFlip(padding, 0.3).draw(samples, (3, 8, 8), generator())
    together = np.corrcoef([values.numpy() for values in draws.values()])
    assert np.abs(together - np.eye(3)).max() < 4 / samples**0.5
    for key in ("crop_top", "crop_left"):
        counts = draws[key].bincount(minlength=9).double()
        expected = samples / (2 * padding + 1)
        assert len(counts) == 9
        assert ((counts - expected) ** 2 / expected).sum() < 26  # chi-square with 8 degrees of freedom, p = 0.001
    assert abs(draws["flip"].double().mean() - 0.3) < 4 * (0.3 * 0.7 / samples) ** 0.5


def test_holes_are_uniform_over_a_picture_that_is_not_square() -> None:
    draws = Cutout(3).draw(20_000, (1, 5, 11), generator())
    assert abs(np.corrcoef(draws["hole_row"], draws["hole_column"])[0, 1]) < 4 / 20_000**0.5
    for key, length in (("hole_row", 5), ("hole_column", 11)):
        counts = draws[key].bincount().double()
        expected = 20_000 / length
        assert len(counts) == length
        assert ((counts - expected) ** 2 / expected).sum() < 30


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 8.0])
def test_shares_of_mixup_have_the_moments_of_a_beta_distribution(alpha: float) -> None:
    share = Mixup(alpha).draw(50_000, (1, 2, 2), generator())["share"].double()
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(share.mean() - 0.5) < 4 * (variance / 50_000) ** 0.5
    assert abs(share.var() - variance) < 0.03 * variance + 1e-4
    assert share.isfinite().all() and share.min() >= 0 and share.max() <= 1


def test_cutmix_without_clipping_has_the_papers_share() -> None:
    # With alpha = 1 the area is uniform; boxes inside a large picture keep theirs.
    draws = CutMix(1.0).draw(20_000, (1, 1000, 1000), generator())
    inside = (
        (draws["box_top"] > 0) & (draws["box_left"] > 0) & (draws["box_bottom"] < 1000) & (draws["box_right"] < 1000)
    )
    heights, widths = draws["box_bottom"] - draws["box_top"], draws["box_right"] - draws["box_left"]
    assert ((heights - widths).abs()[inside] <= 1).all()
    assert draws["share"].double().mean() > 0.5  # clipping only makes boxes smaller


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_partners_are_a_uniform_permutation(name: str) -> None:
    draws = ALL[name].draw(4 * 5000, (1, 2, 2), generator())
    images = torch.zeros(4, 1, 2, 2)
    counts = torch.zeros(4, 4)
    for start in range(0, 4 * 5000, 4):
        part = {key: values[start : start + 4] for key, values in draws.items()}
        _, mix = ALL[name].apply(images, part)
        assert mix is not None and mix.partner.sort().values.tolist() == [0, 1, 2, 3]
        counts[torch.arange(4), mix.partner] += 1
    assert (counts / 5000 - 0.25).abs().max() < 0.03


@pytest.mark.parametrize("name", ALL)
def test_a_batch_of_one_is_mixed_with_itself(name: str) -> None:
    images = pictures((3, 8, 8), batch=1)
    result, mix = ALL[name].apply(images, ALL[name].draw(1, (3, 8, 8), generator()))
    assert result.shape == (1, 3, 8, 8)
    if mix is not None:  # there is no other sample to mix with
        assert mix.partner.tolist() == [0]
        assert "crop" in name or torch.allclose(result, images, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CropFlip(-1, 0.5), "^padding: -1 is not allowed; at least 0"),
        (lambda: CropFlip(4, 1.5), "^flip_probability: 1.5 is not allowed; from 0 to 1"),
        (lambda: Cutout(0), "^size: 0 is not allowed; at least 1"),
        (lambda: Mixup(0.0), "^alpha: 0.0 is not allowed; above 0"),
        (lambda: CutMix(float("nan")), "^alpha: nan is not allowed"),
        (lambda: CropFlipCutout(4, 0.5, 0), "^size: 0"),
        (lambda: CropFlipCutout(-4, 0.5, 3), "^padding: -4"),
        (lambda: CropFlipMixup(4, 0.5, 0.0), "^alpha: 0"),
        (lambda: CropFlipCutMix(4, 1.5, 1.0), "^flip_probability: 1.5"),
    ],
)
def test_impossible_arguments_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.gpu
@pytest.mark.parametrize("name", ALL)
def test_cuda_gives_the_same(name: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    images, draws = pictures((3, 8, 8)), ALL[name].draw(7, (3, 8, 8), generator())
    expected, mix = ALL[name].apply(images, draws)
    result, cuda_mix = ALL[name].apply(images.cuda(), {key: values.cuda() for key, values in draws.items()})
    assert torch.allclose(result.cpu(), expected, atol=1e-6)
    assert (mix is None) == (cuda_mix is None)
    if mix is not None and cuda_mix is not None:
        assert torch.equal(cuda_mix.partner.cpu(), mix.partner)
