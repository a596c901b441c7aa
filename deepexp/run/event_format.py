"""The format of TensorBoard's event file: TFRecords that hold `Event` messages in the wire format of protocol buffers.

Only what there is for scalars: the rest goes through the protobuf library, which is slow and heavy to import.
"""

import ctypes
import functools
import re
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

try:
    from google_crc32c import value as crc32c
except ImportError:  # run without being installed: TensorBoard has it in Python, 20 µs slower an update
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import crc32c  # type: ignore[no-redef]

NAME = "events.out.tfevents."
"""How the name of every event file begins."""


def present(directory: Path) -> Path | None:
    """The event file in `directory` that a resumed run appends to, if there is one."""
    return min(directory.glob(f"{NAME}*"), default=None)


def curve(path: Path, tag: str) -> tuple[np.ndarray, np.ndarray]:
    """(steps, values), each (points,), of a tag whose points were written one an event, by rising steps.

    Of several points at a step the last counts. What is damaged is passed over; checksums are not looked at.
    """
    before_value = re.escape(_field(5, _field(1, _point(tag, 0.0)))[:-4])
    pattern = rb"\x09.{8}(?:\x10([\x80-\xff]{0,9}[\x00-\x7f]))?" + before_value + rb"(.{4})"
    found = {
        _whole_number(match[1] or b"\0"): struct.unpack("<f", match[2])[0]
        for match in re.finditer(pattern, path.read_bytes(), re.DOTALL)
    }
    steps = sorted(found)
    return np.array(steps, dtype=np.int64), np.array([found[step] for step in steps], dtype=np.float64)


def record(content: bytes) -> bytes:
    """A record of a TFRecord file: the length, the content, and a checksum of each."""
    return _length_and_checksum(len(content)) + content + struct.pack("<I", _masked(crc32c(content)))


@functools.lru_cache(maxsize=1000)
def _length_and_checksum(length: int) -> bytes:
    encoded = struct.pack("<Q", length)
    return encoded + struct.pack("<I", _masked(crc32c(encoded)))


def _masked(checksum: int) -> int:
    """A CRC-32C as the format stores it: masked, since CRCs of data that contain CRCs are less reliable."""
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def scalars(values: Mapping[str, float], step: int, wall_time: float) -> bytes:
    """A serialised `Event` with one point for each tag, in the wire format of protocol buffers.

    The bytes are those of the protobuf library. It returns the whole heap to the system after freeing some thousand
    messages (`malloc_trim`), and a run writes a message for each update, so its memory would go up and down.
    """
    points = b"".join(_field(1, _point(tag, value)) for tag, value in values.items())
    at_step = b"\x10" + _varint(step) if step else b""  # a field that is left out is zero
    return b"\x09" + struct.pack("<d", wall_time) + at_step + _field(5, points)


def _point(tag: str, value: float) -> bytes:
    return _tag(tag) + b"\x15" + struct.pack("<f", ctypes.c_float(value).value)


@functools.lru_cache(maxsize=1000)
def _tag(tag: str) -> bytes:
    return _field(1, tag.encode())


def _field(number: int, content: bytes) -> bytes:
    """A field that has a length: a string or a message."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    """A whole number ≥ 0 in groups of seven bits, the lowest first."""
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def _whole_number(groups: bytes) -> int:
    """The number whose `_varint` this is."""
    return sum((group & 0x7F) << 7 * place for place, group in enumerate(groups))
