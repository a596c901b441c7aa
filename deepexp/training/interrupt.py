"""Signals that ask a run to stop: it finishes its step, saves, and then ends. Nothing else is done in a handler."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

# SIGUSR1: how clusters announce that a job will be pre-empted; SIGHUP: the terminal or the connection is gone
_NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")


class StopRequest:
    """Context in which SIGINT, SIGTERM, SIGUSR1 and SIGHUP only set `signal_number`.

    A second Ctrl-C raises `KeyboardInterrupt`. A SIGHUP that is ignored, as under `nohup`, stays ignored. Outside the
    main thread, where Python allows no handlers, nothing is caught.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for name in _NAMES:
                number = getattr(signal, name, None)  # Windows has neither SIGUSR1 nor SIGHUP
                if number is not None and not (name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal_number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal_number = number
