from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deepexp.data import resize
from deepexp.data.resize import fit
from deepexp.data.source import Split
from deepexp.errors import InputError

from .samples import random_split


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(28, 28), (5, 9), (3, 40)])
def test_bilinear_with_antialiasing_as_pillow_does_it(channels: int, size: tuple[int, int]) -> None:
    split = random_split(4, (channels, 12, 17), 2)
    resized = fit(split, (channels, *size))
    assert resized.images.dtype == torch.uint8 and resized.shape == (channels, *size)
    for picture, ours in zip(split.images, resized.images, strict=True):
        values = picture.permute(1, 2, 0).numpy()
        image = Image.fromarray(values[:, :, 0] if channels == 1 else values)
        reference = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR)).reshape(*size, channels)
        assert np.abs(reference.astype(int) - ours.permute(1, 2, 0).numpy()).max() <= 1


def test_one_channel_is_repeated() -> None:
    split = random_split(4, (1, 6, 5), 2)
    fitted = fit(split, (3, 6, 5))
    assert torch.equal(fitted.images, split.images.expand(4, 3, 6, 5))
    assert fitted.images.permute(0, 2, 3, 1).is_contiguous()


def test_pictures_of_the_right_shape_are_not_copied() -> None:
    split = random_split(4, (3, 6, 5), 2)
    assert fit(split, (3, 6, 5)) is split


def test_other_numbers_of_channels_are_refused() -> None:
    with pytest.raises(InputError, match=r"the model takes 1 channel, the data have 3"):
        fit(random_split(4, (3, 6, 5), 2), (1, 6, 5))


def test_only_the_samples_that_are_needed_are_resized() -> None:
    split = random_split(10, (3, 8, 8), 2)
    part = fit(split.take(torch.tensor([7, 2])), (3, 4, 4))
    assert len(part.images) == 2
    assert torch.equal(part.images, fit(split, (3, 4, 4)).images[[7, 2]])
    assert part.labels.tolist() == [1, 0]


def test_resizing_in_chunks_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    split = random_split(10, (3, 8, 8), 2)
    whole = fit(split, (3, 12, 5))
    monkeypatch.setattr(resize, "_CHUNK_BYTES", 400)
    assert torch.equal(fit(split, (3, 12, 5)).images, whole.images)


def test_resized_pictures_larger_than_memory_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 2, 2, 1), np.uint8))
    split = Split.mapped(tmp_path / "x.npy", torch.zeros(2, dtype=torch.int64))
    with pytest.raises(
        InputError, match=r"2 pictures resized to 9000000×9000000 need 162.0 TB and .*data\.subset.*data\.size"
    ):
        fit(split, (1, 9_000_000, 9_000_000))
