"""Pictures of one's own in class folders: `train/CLASS/…` and `test/CLASS/…`, or `CLASS/…` with a split made here.

Validation pictures may be in `val/CLASS/…` beside `train/` and `test/`.
"""

import logging
from pathlib import Path

from deepexp.data.folder_scan import Listing, scan, validation_folders
from deepexp.data.picture_files import PictureFiles
from deepexp.data.source import Splits

log = logging.getLogger(__name__)


class ImageFolder(PictureFiles):
    """Picture files in class folders below `root`; see `PictureFiles` for `size`, `channels` and `cache`.

    `test_fraction` and `split_seed` matter for class folders without `train/` and `test/`. `own_validation`: use a
    folder `val/` beside these, if there is one.
    """

    def __init__(
        self,
        *,
        root: Path,
        size: int | list[int] | None,
        channels: int | None,
        test_fraction: float,
        split_seed: int,
        cache: str | None,
        own_validation: bool = False,  # as all runs had it that do not say it
    ) -> None:
        super().__init__(root, size, channels, test_fraction, split_seed, cache)
        self._own_validation = own_validation

    def _found(self) -> Listing:
        return scan(self._root, self._test_fraction, self._split_seed, self._own_validation)

    def load(self) -> Splits:
        """See `PictureFiles`; warns of a folder of validation pictures that is not used."""
        listing = self._listing
        if listing.split is None and not listing.val and (further := validation_folders(self._root)):
            names = "/, ".join(further)
            log.warning("%s: %s/ is not read, as data.own_validation is false", self._root, names)
        return super().load()
