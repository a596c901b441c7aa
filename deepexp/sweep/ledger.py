"""`ledger.jsonl`: what became of each job of a sweep, one line for each change, never rewritten.

A line that a crash has torn is left out when reading and cut off before the next is written.
"""

import dataclasses
import datetime
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal, get_args

from deepexp.disk.json_file import FORMAT
from deepexp.disk.storage import AppendFile
from deepexp.errors import InputError

State = Literal["queued", "running", "done", "failed", "killed", "interrupted", "paused"]
"""`interrupted`: its sweep was told to stop, and it goes on from what it has saved. `paused`: it was saved before its
end, to be compared with the others, and goes on if it is among the best."""


@dataclass(frozen=True)
class Entry:
    """Where one job stands."""

    job: str
    """Its name: what varies."""
    config_hash: str
    overrides: list[str]
    state: State
    tries: int = 0
    """How often it was started; what goes on after a pause is the same try."""
    directory: str | None = None
    """Its run directory, below the sweep's."""
    reason: str | None = None
    """Why it failed or was killed, or how far it came."""
    log: str | None = None
    """Where to read more about that, below the sweep's directory."""
    seconds: float = 0.0
    """Wall time of the latest try."""


class Ledger:
    """The ledger of a sweep whose lock this process holds; `entries` has the latest of each job, by its hash."""

    def __init__(self, path: Path) -> None:
        whole = _whole_lines(path)
        self._file = AppendFile(path)
        self._file.cut_back(len(whole))
        self.entries = {entry.config_hash: entry for entry in _entries(path, whole)}

    def record(self, *entries: Entry) -> None:
        """Append entries durably, in one write; `RunFailed` if the disk refuses, and then nothing has changed."""
        now = datetime.datetime.now().astimezone().isoformat(timespec="milliseconds")
        lines = [{"format": FORMAT, "time": now, **dataclasses.asdict(entry)} for entry in entries]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        self._file.write(text.encode(errors="backslashreplace"))
        self._file.sync()
        self.entries.update({entry.config_hash: entry for entry in entries})

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read(path: Path) -> dict[str, Entry]:
    """The latest entry of each job, by its config's hash, without writing anything."""
    return {entry.config_hash: entry for entry in _entries(path, _whole_lines(path))}


def path_within(path: PurePath, directory: PurePath) -> str:
    """`path` relative to `directory`, with `/` on every system; as it is if it lies elsewhere."""
    return path.relative_to(directory).as_posix() if path.is_relative_to(directory) else str(path)


def _whole_lines(path: Path) -> bytes:
    """What is in the file up to its last newline."""
    content = path.read_bytes() if path.is_file() else b""
    return content[: content.rfind(b"\n") + 1]


def _entries(path: Path, content: bytes) -> Iterator[Entry]:
    fields = {field.name for field in dataclasses.fields(Entry)}
    for number, line in enumerate(content.splitlines(), 1):
        try:
            values: dict[str, Any] = json.loads(line)
            if values["format"] > FORMAT:
                raise InputError(f"{path}:{number}: has format {values['format']}; a newer deepexp wrote it")
            entry = Entry(**{name: value for name, value in values.items() if name in fields})
            if not _is_possible(entry):
                raise ValueError
            yield entry
        except (ValueError, TypeError, KeyError):
            raise InputError(f"{path}:{number}: is damaged; remove that line to go on without it") from None


def _is_possible(entry: Entry) -> bool:
    """Whether the values are of the types that `record` writes."""
    return (
        all(isinstance(text, str) for text in (entry.job, entry.config_hash))
        and entry.state in get_args(State)
        and isinstance(entry.tries, int)
        and isinstance(entry.seconds, (int, float))
        and all(isinstance(text, (type(None), str)) for text in (entry.directory, entry.reason, entry.log))
    )
