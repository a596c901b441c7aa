"""A folder `val/` beside `train/` and `test/`, whose pictures are for validation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from deepexp.data.image_folder import ImageFolder
from deepexp.errors import InputError


def source(root: Path, **changes: Any) -> ImageFolder:
    return ImageFolder(root=root, size=None, channels=None, test_fraction=0.2, split_seed=0, cache=None, **changes)


def test_validation_pictures_come_from_a_folder_of_their_own(
    picture_root: Path, save_picture: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    without = source(picture_root, own_validation=True)
    assert without.info().val_samples == 0 and len(without.load()) == 2
    for name in ("1.png", "2.png", "3.png"):
        save_picture(picture_root / "valid" / "bee" / name)
    for _ in range(2):  # decoded, and then read from the cache
        own = source(picture_root, own_validation=True)
        train, test, val = own.load()
        assert (own.info().val_samples, len(train), len(test), val.labels.tolist()) == (3, 12, 6, [1, 1, 1])
    assert "is not read" not in caplog.text
    pixels = torch.from_numpy(np.array(Image.open(picture_root / "valid" / "bee" / "2.png"))).permute(2, 0, 1)
    assert torch.equal(val.pictures(torch.tensor([1]))[0], pixels)
    assert [len(split) for split in source(picture_root).load()] == [12, 6], "runs that do not say it have none"
    caplog.clear()
    with caplog.at_level("INFO"):
        assert len(source(picture_root).load()) == 2 and len(source(picture_root, own_validation=True).load()) == 3
    assert "decoded, once" not in caplog.text, "each has its cache"


def test_wrong_folders_of_validation_pictures_are_told(picture_root: Path, save_picture: Callable[..., None]) -> None:
    def refused(message: str) -> None:
        with pytest.raises(InputError, match=message):
            source(picture_root, own_validation=True).info()
        assert source(picture_root).info().train_samples == 12

    (picture_root / "val" / "bee").mkdir(parents=True)
    refused("val: holds no pictures")
    save_picture(picture_root / "val" / "wasp" / "1.png")
    refused(r"val/wasp: training has no such class \(ant, bee\)")
    save_picture(picture_root / "eval" / "bee" / "1.png")
    refused("has val, eval, and validation data are in one folder; move the others elsewhere, or set data.own_validat")
