"""Checks of a data source of the user's own; what is wrong with it becomes an error of one line."""

import dataclasses
import numbers
from collections.abc import Callable, Collection
from typing import Any

from deepexp.data.source import DataInfo, Source, Splits, WritingSource
from deepexp.errors import DeepexpError, InputError
from deepexp.user_code import own_code


def guarded(source: Source) -> Source:
    """The source; one of the user's own is wrapped, so that any error in it becomes an `InputError` of one line."""
    if type(source).__module__.startswith("deepexp."):
        return source
    return _GuardedWriting(source) if isinstance(source, WritingSource) else _Guarded(source)


class _Guarded:
    """A `Source` that checks what another one gives."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._name = f"{type(source).__module__}.{type(source).__qualname__}"

    def info(self) -> DataInfo:
        """See `Source`."""
        info = self._called("info", lambda: self._source.info())
        if not isinstance(info, DataInfo):
            raise InputError(f"data: {self._name}.info gives {own_code.kind(info)}, and a DataInfo is needed")
        wrong = _wrong_in(info)
        if wrong:
            raise InputError(f"data: {self._name}.info: {wrong}")
        channels, height, width = map(int, info.shape)
        return dataclasses.replace(
            info,
            shape=(channels, height, width),
            classes=tuple(info.classes),
            train_samples=int(info.train_samples),
            test_samples=int(info.test_samples),
            val_samples=int(info.val_samples),
        )

    def load(self) -> Splits:
        """See `Source`."""
        loaded = self._called("load", lambda: self._source.load())
        if not isinstance(loaded, (tuple, list)) or len(loaded) not in (2, 3):
            found = f"{len(loaded)} things" if isinstance(loaded, (tuple, list)) else own_code.kind(loaded)
            raise InputError(
                f"data: {self._name}.load gives {found}, and two Splits are needed: training, test; or three, the last "
                "of them for validation"
            )
        if len(loaded) == 3 and not self.info().val_samples:
            raise InputError(
                f"data: {self._name}.load gives validation data, and its info has no val_samples; "
                "give their number there"
            )
        return loaded[0], loaded[1], *loaded[2:]

    def _called(self, method: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (DeepexpError, MemoryError):
            raise
        except (Exception, SystemExit) as error:
            raise InputError(f"data: {self._name}.{method} failed: {own_code.told(error)}") from error


class _GuardedWriting(_Guarded):
    """As `_Guarded`, of a `WritingSource`."""

    def __init__(self, source: WritingSource) -> None:
        super().__init__(source)
        self._writing = source

    def keep_out_of(self, places: Collection[str]) -> None:
        """See `WritingSource`."""
        self._called("keep_out_of", lambda: self._writing.keep_out_of(places))


def _wrong_in(info: DataInfo) -> str | None:
    if not isinstance(info.shape, (tuple, list)) or len(info.shape) != 3 or not all(map(_is_count, info.shape)):
        return f"shape: {info.shape!r} is not allowed; (channels, height, width)"
    if not isinstance(info.classes, (tuple, list)) or not all(isinstance(name, str) for name in info.classes):
        return f"classes: {info.classes!r} is not allowed; the names of the classes"
    for name in ("train_samples", "test_samples"):
        if not _is_count(getattr(info, name)):
            return f"{name}: {getattr(info, name)!r} is not allowed; a whole number of at least 1"
    if info.val_samples != 0 and not _is_count(info.val_samples):
        return f"val_samples: {info.val_samples!r} is not allowed; a whole number, 0 for none"
    return None


def _is_count(value: object) -> bool:
    return isinstance(value, numbers.Integral) and int(value) >= 1  # NumPy's too
