"""A contender as the benchmark sees it: the process that it runs in, and the questions to it."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from deepexp.bench.breakdown import Breakdown, Operation
from deepexp.errors import InputError, RunFailed


class ContenderProcess:
    """Asks one contender, which works only while it is asked.

    `facts`: its `name`, its `device` in words and its `threads`; or `left_out` alone, why it cannot take part.
    """

    def __init__(self, name: str, config: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        """Starts it, and tells it the config."""
        self._name = name
        self.facts: dict[str, Any] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "deepexp.bench.worker", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=dict(environment),
        )
        self._send(config)

    def wait_until_ready(self) -> None:
        """Wait for `facts`; raises the error of a contender that could not be set up."""
        self.facts = self._receive()

    def step_seconds(self, count: int) -> float:
        """Mean seconds of one of `count` updates."""
        return float(self._ask("steps", count)["step_seconds"])

    def kernel_share(self, count: int) -> float | None:
        """The part of a step's time in which the GPU is at work, over `count` updates; None on other devices."""
        share: float | None = self._ask("kernels", count)["share"]
        return share

    def breakdown(self, count: int) -> Breakdown:
        """Where a step spends its time, over at most `count` updates."""
        answer = self._ask("breakdown", count)
        return Breakdown(answer["seconds"], [Operation(**operation) for operation in answer["operations"]])

    def epoch(self) -> dict[str, float]:
        """`seconds` of an epoch with its test, and the `test_error_rate` after it."""
        return self._ask("epoch")

    def peak_memory_bytes(self) -> dict[str, int | None]:
        """The most memory that the process has had so far: `main`, and `device` on a GPU."""
        return self._ask("peak_memory")

    def limit(self) -> dict[str, Any]:
        """The machine's limit; see `limit.Limit.measure`."""
        return self._ask("limit")

    def end(self) -> None:
        """Let the process end, without waiting for it."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def close(self) -> None:
        """Let the process end, or kill it if it is busy."""
        self.end()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def interrupt(self) -> None:
        """Let the process end at once and remove its files, without waiting for it."""
        self._process.terminate()

    def _ask(self, *request: Any) -> dict[str, Any]:
        self._send(request)
        return self._receive()

    def _send(self, content: Any) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, and `_receive` says why
            print(json.dumps(content), file=self._process.stdin, flush=True)

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            raise RunFailed(f"bench: the process of {self._name} ended with status {status} (out of memory?)")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise (InputError if answer["is_input"] else RunFailed)(answer["error"])
        return answer


@contextlib.contextmanager
def running(
    environments: Mapping[str, Mapping[str, str]], config: Mapping[str, Any]
) -> Iterator[dict[str, ContenderProcess]]:
    """One process for each named contender, in its environment; they get ready, and end, at the same time."""
    processes: dict[str, ContenderProcess] = {}
    try:
        for name, environment in environments.items():
            processes[name] = ContenderProcess(name, config, environment)
        for process in processes.values():
            process.wait_until_ready()
        yield processes
        for process in processes.values():
            process.end()
        for process in processes.values():
            process.close()
    except BaseException:
        for process in processes.values():
            process.interrupt()
        for process in processes.values():
            process.close()
        raise
