"""Pictures of one's own that a table names: a CSV file with a row for each, its path and its class."""

from pathlib import Path

from deepexp.data.folder_scan import Listing
from deepexp.data.picture_files import PictureFiles
from deepexp.data.table_scan import Columns, scan


class ImageTable(PictureFiles):
    """Picture files that a table names; see `PictureFiles` for `size`, `channels` and `cache`.

    `table`: below `root`, as are the pictures. `path_column`, `label_column`: names of columns; None: the first and the
    second. `split_column`: which has `train`, `test` and perhaps `val`; None: `split`, where there is one of that name;
    else `test_fraction` and `split_seed` split each class. `files`: how a picture's path follows from its column, with
    `{}` in the column's place.
    """

    def __init__(
        self,
        *,
        root: Path,
        table: str,
        files: str,
        path_column: str | None,
        label_column: str | None,
        split_column: str | None,
        size: int | list[int] | None,
        channels: int | None,
        test_fraction: float,
        split_seed: int,
        cache: str | None,
    ) -> None:
        super().__init__(root, size, channels, test_fraction, split_seed, cache)
        if files.count("{}") != 1:
            raise ValueError(f"files: {files!r} is not allowed; a path with one {{}} in it, such as train/{{}}.jpg")
        self._table = table
        self._files = files
        self._columns = Columns(path_column, label_column, split_column)

    def _found(self) -> Listing:
        return scan(self._root, self._table, self._columns, self._files, self._test_fraction, self._split_seed)
