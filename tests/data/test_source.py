from pathlib import Path

import numpy as np
import torch

from deepexp.data.source import Split


def make(samples: int = 10, shape: tuple[int, int, int] = (3, 4, 5)) -> tuple[Split, torch.Tensor]:
    images = torch.randint(256, (samples, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Split.of(images, torch.arange(samples)), images


def test_pictures_are_gathered_in_channels_last() -> None:
    split, images = make()
    samples = torch.tensor([3, 0, 3, 9])
    pictures = split.pictures(samples)
    assert torch.equal(pictures, images[samples])
    assert pictures.is_contiguous(memory_format=torch.channels_last)


def test_memory_order_is_that_of_nhwc() -> None:
    split, images = make()
    assert torch.equal(split.images, images)
    assert split.images.permute(0, 2, 3, 1).is_contiguous()
    assert split.pixels.data_ptr() == split.images.data_ptr()  # so that no batch copies the whole set


def test_take_twice_and_repeat() -> None:
    split, images = make()
    part = split.take(torch.tensor([8, 6, 4, 2])).take(torch.tensor([1, 1, 3]))
    assert len(part) == 3 and part.labels.tolist() == [6, 6, 2]
    assert torch.equal(part.pictures(torch.arange(3)), images[[6, 6, 2]])
    assert part.images.data_ptr() == split.images.data_ptr()  # nothing is copied


def test_compact_leaves_out_what_is_not_needed() -> None:
    split, _ = make()
    part = split.take(torch.tensor([8, 2, 8]))
    small = part.compact()
    assert len(small.images) == 2 and small.labels.tolist() == [8, 2, 8]
    assert torch.equal(small.pictures(torch.arange(3)), part.pictures(torch.arange(3)))
    assert split.compact() is split


def test_mapped_split_reads_the_file_and_never_writes_it(tmp_path: Path) -> None:
    array = np.random.RandomState(0).randint(0, 256, (6, 4, 5, 3)).astype(np.uint8)
    np.save(tmp_path / "x.npy", array)
    split = Split.mapped(tmp_path / "x.npy", torch.zeros(6, dtype=torch.int64))
    assert split.shape == (3, 4, 5) and split.file == tmp_path / "x.npy"
    assert np.array_equal(split.pictures(torch.arange(6)).permute(0, 2, 3, 1).numpy(), array)
    split.images.zero_()
    assert np.array_equal(np.load(tmp_path / "x.npy"), array)
