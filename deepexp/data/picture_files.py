"""What sources of picture files of the user's own have in common, wherever they find them.

All pictures are decoded once, to one size, into a cache that later runs memory-map (see `picture_cache.py`).
"""

import abc
import functools
import logging
import os
from collections.abc import Collection
from pathlib import Path

from deepexp.data import picture_cache
from deepexp.data.decode import channels_and_size
from deepexp.data.folder_scan import Listing
from deepexp.data.source import DataInfo, Shape, Splits
from deepexp.text.units import counted, first_few

log = logging.getLogger(__name__)


class PictureFiles(abc.ABC):
    """A `Source` of picture files below `root`; which these are, a subclass says.

    `size`: a side in pixels or [height, width]; `channels`: 1 or 3; None: those of the first training picture.
    `cache`: the folder for decoded pictures. `test_fraction` and `split_seed` are for files without a split of their
    own. Raises `ValueError` for a value that is not allowed.
    """

    def __init__(
        self,
        root: Path,
        size: int | list[int] | None,
        channels: int | None,
        test_fraction: float,
        split_seed: int,
        cache: str | None,
    ) -> None:
        sides = [size, size] if isinstance(size, int) else size
        if sides is not None and not _are_sides(sides):
            raise ValueError(f"size: {size} is not allowed; a side in pixels, [height, width] or null")
        if channels not in (None, 1, 3):
            raise ValueError(f"channels: {channels} is not allowed; 1 (grey), 3 (colour) or null")
        if not 0 < test_fraction < 1:
            raise ValueError(f"test_fraction: {test_fraction} is not allowed; above 0 and below 1")
        if split_seed < 0:
            raise ValueError(f"split_seed: {split_seed} is not allowed; at least 0")
        self._root = Path(root).absolute()
        self._sides = sides
        self._channels = channels
        self._test_fraction = test_fraction
        self._split_seed = split_seed
        self._cache = None if cache is None else Path(os.path.expanduser(cache)).absolute()
        self._kept_out_of: Collection[str] = ()

    def keep_out_of(self, places: Collection[str]) -> None:
        """See `source.WritingSource`; decoded pictures then go to the user's own cache folder."""
        self._kept_out_of = places

    @abc.abstractmethod
    def _found(self) -> Listing:
        """Which files there are, and of which class and split each is."""

    @functools.cached_property
    def _listing(self) -> Listing:
        return self._found()

    @functools.cached_property
    def _shape(self) -> Shape:
        channels, height, width = channels_and_size(self._listing.train[0].path)
        if self._sides is not None:
            height, width = self._sides
        return self._channels or channels, height, width

    def info(self) -> DataInfo:
        """From the list of files and the first picture's header."""
        listing = self._listing
        sizes = len(listing.train), len(listing.test)
        return DataInfo(self._shape, listing.classes, *sizes, is_mapped=True, val_samples=len(listing.val))

    def test_files(self) -> list[str]:
        """See `source.FileSource`."""
        return [file.path for file in self._listing.test]

    def load(self) -> Splits:
        """All splits, memory-mapped, sorted by class and path."""
        listing = self._listing
        untested = set(range(len(listing.classes))) - {file.label for file in listing.test}
        if untested:
            names = first_few([listing.classes[label] for label in sorted(untested)], most=8)
            log.warning("%s: no test pictures of %s (%s)", self._root, counted(len(untested), "class"), names)
        return picture_cache.open_or_build(self._root, listing, self._shape, self._cache, self._kept_out_of)


def _are_sides(given: object) -> bool:
    return isinstance(given, list) and len(given) == 2 and all(isinstance(side, int) and side >= 1 for side in given)
