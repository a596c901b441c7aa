"""Runs `python -m deepexp …` again and again without importing torch each time: a child is forked for each command.

Reads lines of JSON from stdin: {"argv", "log", "seconds", "fault"}, and answers each with the exit status, negative for
a signal. The child is killed after `seconds`, or by itself at the write point that `fault` names.
"""

import json
import os
import runpy
import signal
import sys
import time

import faults


def main() -> None:

    import deepexp.commands.train
    import deepexp.sweep.worker  # noqa: F401

    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line))), flush=True)


def _run(command: dict) -> int:
    child = os.fork()
    if child == 0:
        _be_deepexp(command)
    deadline = time.monotonic() + (command["seconds"] or 120)
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            deadline += 1000
        time.sleep(0.002)


def _be_deepexp(command: dict) -> None:
    status = 1
    try:
        descriptor = os.open(command["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        for number in (1, 2):
            os.dup2(descriptor, number)
        sys.stdin.close()
        if command["fault"]:
            faults.install(**command["fault"])
        sys.argv = ["deepexp", *command["argv"]]
        runpy.run_module("deepexp", run_name="__main__", alter_sys=True)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    finally:
        sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
