"""The process of one contender: `python -m deepexp.bench.worker NAME`, told what to do on stdin, answering on stdout.

A line of JSON each way: the config first, then `["steps", 100]` or `["epoch"]` until stdin ends. `process.py` is the
other side.
"""

import contextlib
import dataclasses
import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

import torch

from deepexp import check, paths, runtime
from deepexp.bench.contender import Contender, Unsuited, peak_device_memory_bytes, peak_memory_bytes
from deepexp.bench.limit import Limit
from deepexp.errors import DeepexpError, InputError, Interrupted, in_short
from deepexp.process import late_dynamo, startup
from deepexp.schema import TrainConfig

if TYPE_CHECKING:
    from deepexp.bench.ours import Ours

Opened = Callable[[TrainConfig, check.Plan], contextlib.AbstractContextManager[Contender]]

CONTENDERS = {
    "deepexp": "deepexp.bench.ours",
    "plain": "deepexp.bench.plain",
    "bare": "deepexp.bench.bare",
    "lightning": "deepexp.bench.lightning_loop",
    "keras": "deepexp.bench.keras_loop",
    "limit": "deepexp.bench.limit",
}
"""Each module has `opened`; some need packages that are not always there."""

SET_UP_AS_A_RUN = ("deepexp", "bare")
"""The contenders whose processes are set up as deepexp's runs are; the others are as a script would be."""


def main() -> None:
    """Serve until stdin ends. Whatever else prints to stdout goes to stderr, so that answers stay whole."""
    startup.end_quickly()
    _unwind_at_signals()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    if sys.argv[1] in SET_UP_AS_A_RUN:
        late_dynamo.install()
    try:
        _serve(importlib.import_module(CONTENDERS[sys.argv[1]]).opened, answers)
    except (KeyboardInterrupt, Interrupted, BrokenPipeError):
        os._exit(1)  # the process that asks is interrupted too, and there is nothing to save here
    except Unsuited as error:
        _answer(answers, left_out=str(error))
    except DeepexpError as error:
        _answer(answers, error=str(error), is_input=isinstance(error, InputError))
    except Exception as error:
        _answer(answers, error=in_short(error), is_input=False)


def _unwind_at_signals() -> None:
    """Let Ctrl-C or SIGTERM end what is open as an error does, with its files removed; a second one changes nothing."""

    def unwind(*_: object) -> None:
        for number in caught:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    caught = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    for number in caught:
        signal.signal(number, unwind)


def _serve(opened: Opened, answers: TextIO) -> None:
    paths.make_working_directory_importable()
    config, plan = check.typed_and_planned(json.loads(sys.stdin.readline()))
    with opened(config, plan) as contender:
        device = runtime.describe_device(plan.device)
        _answer(answers, name=contender.name, threads=torch.get_num_threads(), device=device)
        for line in sys.stdin:
            request, *arguments = json.loads(line)
            if request == "steps":
                _answer(answers, step_seconds=contender.steps(*arguments))
            elif request == "epoch":
                _answer(answers, **dataclasses.asdict(contender.epoch()))
            elif request == "kernels":
                _answer(answers, share=_ours(contender).kernel_share(*arguments))
            elif request == "breakdown":
                _answer(answers, **dataclasses.asdict(_ours(contender).breakdown(*arguments)))
            elif request == "limit":
                assert isinstance(contender, Limit)
                _answer(answers, **contender.measure())
            else:
                _answer(answers, main=peak_memory_bytes(), device=peak_device_memory_bytes(plan.device))


def _ours(contender: Contender) -> "Ours":
    from deepexp.bench.ours import Ours  # here, as the others do not need it

    assert isinstance(contender, Ours)
    return contender


def _answer(answers: TextIO, **values: Any) -> None:
    print(json.dumps(values), file=answers, flush=True)


if __name__ == "__main__":
    main()
