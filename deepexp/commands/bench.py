"""usage: deepexp bench step|epoch|sweep|start [KEY=VALUE …]

How fast is this here and now, and how fast could it be? Everything is compared in one run, in turns, so that a busy
machine slows all alike. Nothing is kept, except a picture if one is asked for: plot=FILE.png (or .svg) draws the
time of each with its single rounds.

bench step: a training step of this model and config against the plain PyTorch loop (float tensors in memory, NCHW, the
loss fetched after each step, as many threads) and against what the machine could do at most. Each runs in a process of
its own; also measured are an epoch with its test, and the peak memory of each process.

  deepexp bench step                                  the default model on the default data
  deepexp bench step data=mnist batch_size=10         any config that `deepexp train` takes
  deepexp bench step data=mnist json=true             every figure, for programs

  rounds=7            turns that each has at the step
  seconds=1.0         length of a turn at the step
  epoch_rounds=null   turns at a whole epoch; null: 3, or none if they would take minutes
  profile=false       also where deepexp's step spends its time: torch's operations on a CPU, kernels on a GPU
  against=plain       plain, bare (deepexp's own arithmetic in a loop of its own: what deepexp costs beside it),
                      lightning, keras, with commas between; all: those that are installed
  json=false          print JSON instead of a table

bench epoch: an epoch with its test, against the plain loop, Lightning and Keras on the same data, net and batches.

  deepexp bench epoch data=mnist
  deepexp bench epoch data=mnist precision=bf16

  rounds=3            turns that each has
  warm_up=true        an epoch of each beforehand that does not count
  against=all         as above
  json=false          print JSON instead of a table

bench sweep: the wall time of a sweep, against its runs as separate commands: one after the other, and several at a
time, once as deepexp starts them and once with OpenMP's idle threads spinning, as they do by default.

  deepexp bench sweep data=mnist data.subset=10000 epochs=2 optim.lr=0.01,0.02,0.05,0.1 seed=0,1,2,3
  deepexp bench sweep                                 four seeds of the default config

  rounds=1            how often all of it is done
  at_a_time=2         separate commands at a time
  json=false          print JSON instead of a table

bench start: from the command to the first training step, against a script with the plain loop for which the pictures
lie ready, and where the time goes. Data that have to be decoded come from the cache, but for the first time.

  deepexp bench start data=mnist
  deepexp bench start data=mnist against=all plot=start.png

  rounds=5            turns that each has
  against=plain       plain, lightning, keras, with commas between; all: those that are installed
  json=false          print JSON instead of tables
"""

import contextlib
import importlib
import signal
import threading
from collections.abc import Iterator, Sequence
from types import FrameType

from deepexp.bench import options, plot
from deepexp.bench.options import BENCHMARKS
from deepexp.disk import json_file
from deepexp.errors import InputError, Interrupted
from deepexp.text.suggest import no_such


def main(argv: Sequence[str]) -> int:
    """Run the benchmark that the first word names, and print its report."""
    name, *words = argv or [""]
    if name not in BENCHMARKS:
        which = f"bench: which one?; one of {', '.join(BENCHMARKS)}"
        raise InputError(no_such("benchmark", name, BENCHMARKS) if name else which)
    chosen, overrides = options.parse(words, BENCHMARKS[name])
    picture = None if chosen.plot is None else plot.check_path(chosen.plot)
    benchmark = importlib.import_module(f"deepexp.bench.{name}")
    with _raising_signals():
        report = benchmark.run(chosen, overrides)
    if chosen.json:
        print(json_file.text_of(report.as_json()))
    else:
        print("\n".join(report.lines()))
    if picture is not None:
        plot.write(report.charts(), picture)
    return 0


@contextlib.contextmanager
def _raising_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise `Interrupted`, so that the processes end and their files are removed."""

    def stop(number: int, _: FrameType | None) -> None:
        raise Interrupted(number, "interrupted")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    caught = [number for number in numbers if signal.getsignal(number) == signal.SIG_DFL]  # ignored under `nohup`
    for number in caught:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, signal.SIG_DFL)
