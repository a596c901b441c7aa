"""A preset of the lecture's page: trained in a process of its own, kept, and not trained again once it is there."""

import contextlib
import hashlib
import json
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from omegaconf import OmegaConf

from deepexp import __version__
from deepexp.config.compose import compose
from deepexp.errors import Interrupted, RunFailed
from deepexp.lecture.demonstration import make_folder
from deepexp.sweep import ledger
from deepexp.sweep.directory import LEDGER, SWEEP_FILE

LOG = "output.txt"
"""What the sweep printed, beside its directory."""

_SHOWN_LINES = 4  # the last ones of it, shown if it fails


@dataclass(frozen=True)
class Training:
    """A preset at one scale, and where its runs are kept."""

    preset: str
    scale: str
    folder: Path

    @classmethod
    def below(cls, folder: Path, preset: str, scale: str) -> "Training":
        """In a folder named by a digest of the preset's config, so that another config is trained anew."""
        return cls(preset, scale, folder / "training" / scale / f"{preset}-{_digest(preset, scale)}")

    @property
    def words(self) -> list[str]:
        """The words after `deepexp train` that begin it, without its folder."""
        return ["-m", f"experiment={self.preset}", f"scale={self.scale}"]

    @property
    def command(self) -> str:
        """The command as one would type it."""
        return shlex.join(["deepexp", "train", *self.words])

    def sweep(self) -> Path | None:
        """The directory of its latest sweep, finished or not."""
        found = sorted(path.parent for path in self.folder.glob(f"*/*/{SWEEP_FILE}"))
        return found[-1] if found else None

    def is_finished(self) -> bool:
        """Whether every job came to its end."""
        sweep = self.sweep()
        jobs = ledger.read(sweep / LEDGER).values() if sweep is not None else ()
        return bool(jobs) and all(job.state == "done" for job in jobs)


def train(training: Training, say: Callable[[str], None]) -> None:
    """Begin the sweep, or resume it; each line that it prints is passed to `say`, and kept in a file.

    Raises `RunFailed` if it ends with jobs that failed, `Interrupted` if a signal ended it: then it can be resumed.
    """
    make_folder(training.folder)
    begun = training.sweep()
    words = [f"resume={begun}"] if begun is not None else [*training.words, f"output_dir={training.folder}"]
    child = subprocess.Popen(
        [sys.executable, "-m", "deepexp", "train", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # the terminal's signals reach this process only, and are passed on
    )
    assert child.stdout is not None
    lines = []
    with _handing_signals_on(child) as received, (training.folder / LOG).open("w", encoding="utf-8") as log:
        for line in child.stdout:
            log.write(line)
            lines.append(line.rstrip())
            say(line.rstrip())
        status = child.wait()
    if received:
        raise Interrupted(received[0], "stopped; the same command goes on from here")
    if status:
        raise RunFailed("\n".join(lines[-_SHOWN_LINES:]) or f"it ended with status {status}")


@contextlib.contextmanager
def _handing_signals_on(child: subprocess.Popen[str]) -> Iterator[list[int]]:
    """Context in which the signals below go to the child, which saves and ends; yields those that came."""
    received: list[int] = []

    def hand_on(number: int, _: FrameType | None) -> None:
        received.append(number)
        with contextlib.suppress(ValueError):  # Windows hands on no Ctrl-C; its terminal has sent it to the child too
            child.send_signal(number)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    caught = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]  # as under `nohup`
    before = {number: signal.signal(number, hand_on) for number in caught}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _digest(preset: str, scale: str) -> str:
    """Eight hex digits that change with the preset's config, except for `data.root`, and with deepexp's version."""
    composed = compose([f"experiment={preset}", f"scale={scale}"])
    config = composed.resolved()
    del config["data"]["root"]
    sweeper: Any = OmegaConf.to_container(composed.hydra.sweeper)
    content = json.dumps([__version__, config, sweeper], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:8]
